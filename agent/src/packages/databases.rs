//! The databases of this machine: the host's, and those of its containers' images, each read once.
//!
//! Reading is done where the answer is needed, by the thread that judges: an answer that comes later would be a verdict that was
//! wrong. It takes tens of milliseconds for an image, once, and its [`Limits`] bound what a hostile one can make of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::overlay::{Layers, OverlayError, lower_directories};
use super::{Limits, PackageFiles, Tree, Wanted, read};
use crate::event::ProcessId;
use crate::finding::Sha256;
use crate::metrics::Metrics;
use crate::proc::{Proc, effective_capabilities};
use crate::sbom::ImageIndex;

/// Bit of `CAP_SYS_ADMIN` (`include/uapi/linux/capability.h`).
const CAP_SYS_ADMIN: u8 = 21;
/// Images whose databases are held.
const IMAGES: usize = 512;
/// After what time an image whose layers could not be told is tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// What an image's databases may cost.
const OF_IMAGE: Limits = Limits { file_bytes: 64 << 20, all_bytes: 192 << 20, paths: 500_000 };

/// Why an image's layers cannot be read.
#[derive(Debug, thiserror::Error)]
enum LayersError {
    #[error("no process of the container is known")]
    NoProcess,
    #[error("the container's first process is gone")]
    Gone,
    #[error(
        "which directories of a layer hide those below it is marked where only CAP_SYS_ADMIN may read; without it a database \
         could be read that the container does not see. Give the agent CAP_SYS_ADMIN, or an SBOM that lists files"
    )]
    Opaque,
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

#[derive(Debug)]
struct Cached {
    /// The SBOM by which it was read: another one names other packages.
    index: Weak<ImageIndex>,
    files: Result<Arc<PackageFiles>, Instant>,
}

/// Package databases.
#[derive(Debug)]
pub struct Databases {
    proc: Proc,
    /// The host's root, also from inside a container of the agent's own.
    host_root: PathBuf,
    /// This process may read `trusted.*` attributes.
    sees_trusted: bool,
    images: HashMap<Sha256, Cached>,
    host: Option<Arc<PackageFiles>>,
    metrics: Arc<Metrics>,
}

impl Databases {
    /// None is read yet. `host_root`: where the host's root directory is seen, if it is.
    pub fn new(metrics: Arc<Metrics>, host_root: Option<PathBuf>) -> Self {
        let host_root = host_root.unwrap_or_else(|| "/proc/1/root".into());
        Self {
            proc: Proc::new(Path::new("/proc")),
            host_root,
            sees_trusted: effective_capabilities() >> CAP_SYS_ADMIN & 1 == 1,
            images: HashMap::new(),
            host: None,
            metrics,
        }
    }

    /// The databases in the read-only layers of an image, as far as its SBOM names the packages. They are found by the first
    /// process of a container of it.
    pub fn of_image(
        &mut self,
        image: Sha256,
        first_process: Option<ProcessId>,
        index: &Arc<ImageIndex>,
    ) -> Option<Arc<PackageFiles>> {
        if let Some(have) = self.images.get(&image)
            && Weak::ptr_eq(&have.index, &Arc::downgrade(index))
        {
            match &have.files {
                Ok(files) => return Some(Arc::clone(files)),
                Err(when) if when.elapsed() < AGAIN => return None,
                Err(_) => {}
            }
        }
        let begun = Instant::now();
        let files = match self.read_image(first_process, index) {
            Ok(files) => {
                self.told(&format!("sha256:{image}"), &files, begun);
                Ok(Arc::new(files))
            }
            Err(error) => {
                self.metrics.package_database_refused();
                tracing::warn!(%image, %error, "no package database of this image counts");
                Err(Instant::now())
            }
        };
        if self.images.len() >= IMAGES && !self.images.contains_key(&image) {
            self.images.clear();
        }
        let cached = self.images.entry(image).insert_entry(Cached { index: Arc::downgrade(index), files });
        cached.get().files.as_ref().ok().map(Arc::clone)
    }

    fn read_image(&self, first: Option<ProcessId>, index: &ImageIndex) -> Result<PackageFiles, LayersError> {
        let wanted = wanted(index);
        if wanted.is_empty() {
            return Ok(PackageFiles::default());
        }
        // Another process of the container may have made a root of its own.
        let first = first.ok_or(LayersError::NoProcess)?;
        let mounts = self.proc.read(&format!("{}/mountinfo", first.tgid))?;
        if !self.proc.is_alive(first) {
            return Err(LayersError::Gone);
        }
        let Layers { directories, trusted } = lower_directories(&mounts)?;
        if trusted && directories.len() > 1 && !self.sees_trusted {
            return Err(LayersError::Opaque);
        }
        let tree = Tree::layers(&self.host_root, directories.iter().map(PathBuf::as_path))?;
        let attested = |path: &[u8]| index.by_path(path).and_then(|entry| entry.sha256());
        Ok(read(&tree, &wanted, &attested, OF_IMAGE))
    }

    /// The host's databases as they were when first asked for.
    pub fn of_host(&mut self) -> Arc<PackageFiles> {
        if self.host.is_none() {
            self.host = Some(Arc::new(self.read_host(&Wanted::everything())));
        }
        self.host.clone().unwrap_or_default()
    }

    /// What the host's databases say of these paths now.
    pub fn of_host_now<'a>(&self, paths: impl IntoIterator<Item = &'a [u8]>) -> PackageFiles {
        self.read_host(&Wanted::owners_of(paths))
    }

    fn read_host(&self, wanted: &Wanted) -> PackageFiles {
        let begun = Instant::now();
        match Tree::directory(&self.host_root) {
            Ok(tree) => {
                let files = read(&tree, wanted, &|_| None, Limits::default());
                self.told("host", &files, begun);
                files
            }
            Err(error) => {
                self.metrics.package_database_refused();
                tracing::warn!(%error, root = %self.host_root.display(), "the host's package database cannot be read");
                PackageFiles::default()
            }
        }
    }

    /// Counts, and says what does not count.
    fn told(&self, of: &str, files: &PackageFiles, begun: Instant) {
        self.metrics.package_database_read(begun.elapsed());
        let (problems, more) = files.problems();
        for problem in problems {
            self.metrics.package_database_refused();
            tracing::warn!(of, %problem, "part of a package database does not count");
        }
        for _ in 0..more {
            self.metrics.package_database_refused();
        }
        if more > 0 {
            tracing::warn!(of, more, "further parts of the package database do not count");
        }
        let took = format!("{:.1?}", begun.elapsed());
        tracing::info!(
            of,
            files = files.len(),
            packages = files.packages().len(),
            took,
            "package databases read"
        );
    }
}

/// The packages that the SBOM names.
fn wanted(index: &ImageIndex) -> Wanted {
    Wanted::named(index.packages())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::event::PackageDigest;
    use crate::sbom;

    /// An SBOM of one package, with the SHA-256 of one file of its database.
    fn index(version: &str, status: &str) -> Arc<ImageIndex> {
        let document = serde_json::json!({
            "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "test",
            "creationInfo": { "created": "2026-01-01T00:00:00Z", "creators": ["Tool: test"] },
            "packages": [{ "SPDXID": "SPDXRef-P", "name": "tool", "versionInfo": version }],
            "files": [{
                "SPDXID": "SPDXRef-F", "fileName": "/var/lib/dpkg/status",
                "checksums": [{ "algorithm": "SHA256", "checksumValue": status }],
            }],
            "relationships": [],
        });
        let limits = sbom::Limits::default();
        Arc::new(sbom::parse(document.to_string().as_bytes(), &limits).expect("a good document"))
    }

    #[test]
    fn an_images_database_is_read_from_its_layers_once_for_an_sbom() {
        let dir = tempfile::tempdir().expect("a private directory");
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("a private directory");
            fs::write(path, text).expect("a private directory");
        };
        let status = "Package: tool\nVersion: 1\nStatus: install ok installed\nArchitecture: all\n";
        put("host/l/1/var/lib/dpkg/status", status);
        put("host/l/1/var/lib/dpkg/info/tool.list", "/opt/tool\n");
        put("host/l/2/var/lib/dpkg/info/tool.md5sums", "11111111111111111111111111111111  opt/tool\n");
        // What the container wrote itself does not count.
        put("host/up/var/lib/dpkg/info/tool.md5sums", "22222222222222222222222222222222  opt/tool\n");
        let mounts = "1 0 0:9 / / rw - overlay overlay rw,lowerdir=/l/2:/l/1,upperdir=/up,workdir=/w\n";
        put("proc/77/mountinfo", mounts);
        put("proc/77/stat", "77 (a) S 1 77 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0\n");
        let metrics = Metrics::new();
        let databases = || Databases {
            proc: Proc::new(&dir.path().join("proc")),
            host_root: dir.path().join("host"),
            sees_trusted: true,
            images: HashMap::new(),
            host: None,
            metrics: Arc::clone(&metrics),
        };
        let start_ns = 5 * Proc::new(Path::new("/proc")).tick_ns();
        let image = Sha256([1; 32]);
        let container = |tgid, start_ns| Some(ProcessId { tgid, start_ns });
        let good = container(77, start_ns);
        let zero = "0".repeat(64);
        let mut all = databases();
        let (one, two) = (index("1", &zero), index("2", &zero));
        let files = all.of_image(image, good, &one).expect("an overlay");
        let owner = files.owner(b"/opt/tool").expect("owned");
        assert_eq!((&*owner.package, owner.digest), ("tool 1", Some(PackageDigest::Md5([0x11; 16]))));
        assert!(Arc::ptr_eq(&files, &all.of_image(image, good, &one).expect("held")));
        // Another SBOM names another version.
        assert!(all.of_image(image, good, &two).expect("an overlay").is_empty());
        // An SBOM that has the database itself, with another digest.
        assert!(all.of_image(image, good, &index("1", &"ab".repeat(32))).expect("an overlay").is_empty());
        for (what, bad) in [
            ("gone", container(78, start_ns)),
            ("another process with its number", container(77, start_ns * 2)),
            ("not known", None),
        ] {
            assert!(databases().of_image(image, bad, &one).is_none(), "{what}");
        }
        // What one layer hides of another is not seen by everybody: then none is read, unless it cannot matter.
        for (options, is_read) in [
            ("lowerdir=/l/2:/l/1", false),
            ("lowerdir=/l/2:/l/1,userxattr", true),
            ("lowerdir=/l/1,upperdir=/l/2", true),
        ] {
            put("proc/77/mountinfo", &format!("1 0 0:9 / / rw - overlay overlay {options}\n"));
            let mut all = Databases { sees_trusted: false, metrics: Metrics::new(), ..databases() };
            assert_eq!(all.of_image(image, good, &one).is_some(), is_read, "{options}");
        }
        put("proc/77/mountinfo", "1 0 8:1 / / rw - ext4 /dev/vda rw\n");
        let mut all = databases();
        assert!(all.of_image(image, good, &one).is_none());
        put("proc/77/mountinfo", mounts);
        assert!(all.of_image(image, good, &one).is_none(), "not tried again at once");
        assert!(
            metrics.text().contains("muster_package_databases_total{outcome=\"refused\"} 5"),
            "{}",
            metrics.text()
        );
    }
}
