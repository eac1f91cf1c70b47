//! What several fuzz targets check.

use muster::finding::Sha256;
use muster::sbom::{Limits, canonical, diff, parse};

/// No bytes stop the reader of SBOMs, and an index that it gives agrees with itself. Which format is read is decided by the bytes;
/// the targets differ in their seeds.
pub fn sbom(data: &[u8]) {
    let limits = Limits { max_bytes: 1 << 20, max_depth: 32 };
    let Ok(index) = parse(data, &limits) else { return };
    for entry in index.entries() {
        let path = entry.path();
        assert_eq!(canonical(path.as_bytes()).as_deref(), Ok(path.as_bytes()));
        assert_eq!(index.by_path(path.as_bytes()).map(|found| found.id()), Some(entry.id()));
        if let Some(sha256) = entry.sha256() {
            assert!(entry.weak().is_none());
            let found = index.by_sha256(&sha256).any(|found| found.id() == entry.id());
            assert_eq!(found, sha256 != Sha256::EMPTY);
        }
    }
    let numbers = index.numbers();
    assert!(numbers.with_sha256 + numbers.with_weak <= numbers.files);
    assert!(numbers.owned <= numbers.files);
    assert_eq!(index.packages().count() as u64, numbers.packages);
    assert!(index.origin().layers.iter().all(|layer| !layer.is_zero()));
    assert!(diff::diff(&index, &index).is_empty());
}
