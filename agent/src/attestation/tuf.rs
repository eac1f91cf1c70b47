//! The cache of a TUF client (cosign's `~/.sigstore/root/HOST`, sigstore-python's), which another program refreshes.
//!
//! Its metadata is verified again from its own root: signatures, thresholds, versions, hashes. That it has expired does not make
//! what was signed before it less true, so the expiry is told and not enforced.

use std::path::Path;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use sigstore_tuf::TrustedMetadataSet;

use super::trust_root::first_file;

/// Before any expiry: nothing is refused as expired.
const NO_EXPIRY: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;
/// The target that is wanted.
const TARGET: &str = "trusted_root.json";

/// The files of a cache.
#[derive(Clone, Debug)]
pub struct TufFiles {
    /// `root.json`.
    pub root: Vec<u8>,
    /// `timestamp.json`.
    pub timestamp: Vec<u8>,
    /// `snapshot.json`.
    pub snapshot: Vec<u8>,
    /// `targets.json`.
    pub targets: Vec<u8>,
    /// The target, `trusted_root.json`.
    pub trusted_root: Vec<u8>,
}

impl TufFiles {
    pub(super) fn read(
        directory: &Path,
        read: &dyn Fn(&Path) -> Result<Vec<u8>, String>,
    ) -> Result<Self, String> {
        let file = |name: &str| read(&directory.join(name));
        let (root, timestamp) = (file("root.json")?, file("timestamp.json")?);
        let (snapshot, targets) = (file("snapshot.json")?, file("targets.json")?);
        let path = first_file(directory, &["targets/trusted_root.json", TARGET])
            .ok_or("TUF cache: neither targets/trusted_root.json nor trusted_root.json is in it")?;
        Ok(Self { root, timestamp, snapshot, targets, trusted_root: read(&path)? })
    }
}

/// What a cache holds.
pub(super) struct Cache<'a> {
    /// `trusted_root.json`, as its metadata says it must be.
    pub(super) trusted_root: &'a [u8],
    /// When the first of its metadata expires: then it should have been refreshed.
    pub(super) expires: SystemTime,
}

impl<'a> Cache<'a> {
    pub(super) fn of(files: &'a TufFiles) -> Result<Self, String> {
        let TufFiles { root, timestamp, snapshot, targets, trusted_root } = files;
        let refuse =
            |name: &'static str| move |error: sigstore_tuf::Error| format!("TUF cache, {name}: {error}");
        let mut set = TrustedMetadataSet::from_root(root).map_err(refuse("root.json"))?;
        set.update_timestamp(timestamp, NO_EXPIRY).map_err(refuse("timestamp.json"))?;
        set.update_snapshot(snapshot, NO_EXPIRY).map_err(refuse("snapshot.json"))?;
        let targets = set.update_targets(targets, NO_EXPIRY).map_err(refuse("targets.json"))?;
        let stated =
            targets.target(TARGET).ok_or("TUF cache: targets.json does not list trusted_root.json")?;
        let hashes: Vec<_> = stated
            .hashes
            .iter()
            .filter_map(|(algorithm, stated)| match algorithm.as_str() {
                "sha256" => Some((digest(&SHA256, trusted_root), stated)),
                "sha512" => Some((digest(&SHA512, trusted_root), stated)),
                _ => None,
            })
            .collect();
        let fits = |(found, stated): &(aws_lc_rs::digest::Digest, &String)| {
            let found: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            found.eq_ignore_ascii_case(stated)
        };
        if hashes.is_empty() || !hashes.iter().all(fits) || trusted_root.len() as u64 != stated.length {
            return Err(format!(
                "TUF cache, {TARGET}: not the file that targets.json names; refresh the cache"
            ));
        }
        let ends = [
            Some(set.root().expires),
            set.timestamp().map(|of| of.expires),
            set.snapshot().map(|of| of.expires),
            set.targets_role("targets").map(|of| of.expires),
        ];
        let expires = ends.into_iter().flatten().min().unwrap_or(NO_EXPIRY).into();
        Ok(Self { trusted_root, expires })
    }
}
