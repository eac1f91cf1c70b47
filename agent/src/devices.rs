//! Which file systems lie on a block device: on itself, or on a partition, a volume or a loop device that does.
//!
//! Whoever writes to the device changes their files without any inode showing it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::event::FilePath;

/// Bytes of the list of mounts that are read: some ten thousand mounts.
const MAX_MOUNTS: u64 = 8 << 20;
/// Devices below one file system that are looked at.
const MAX_BELOW: usize = 256;
/// Mount points that are named.
const MAX_NAMED: usize = 8;

/// Told that files on a device of this number must not be believed to be unchanged (`true`), or may be again.
type Mark = Box<dyn Fn(u32, bool) + Send>;

/// Device numbers are in the kernel's encoding: `major << 20 | minor`.
pub struct Devices {
    proc: PathBuf,
    sys: PathBuf,
    mark: Option<Mark>,
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices").field("proc", &self.proc).field("sys", &self.sys).finish_non_exhaustive()
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), mark: None }
    }
}

struct Mount {
    device: u32,
    point: FilePath,
    source: PathBuf,
}

impl Devices {
    /// Tells `mark` what it finds from now on.
    pub fn tell(&mut self, mark: impl Fn(u32, bool) + Send + 'static) {
        self.mark = Some(Box::new(mark));
    }

    /// Where the file systems are mounted that lie on a device which was opened for write; some of them if there are many. What cannot be
    /// looked at counts as mounted at no known place (`None`).
    pub fn written(&self, device: u32) -> Option<Vec<FilePath>> {
        let mounts = self.mounts().inspect_err(|error| {
            tracing::warn!(%error, "which file systems lie on a block device cannot be found out");
        });
        let mut points = Vec::new();
        let mut found = false;
        for mount in mounts.ok()? {
            if self.below(&mount).contains(&device) {
                found = true;
                self.tell_one(mount.device, true);
                if points.len() < MAX_NAMED {
                    points.push(mount.point);
                }
            }
        }
        if !found {
            self.tell_one(device, false);
        }
        Some(points)
    }

    fn tell_one(&self, device: u32, written: bool) {
        if let Some(mark) = &self.mark {
            mark(device, written);
        }
    }

    /// Those of process 1, which sees the host's.
    fn mounts(&self) -> io::Result<Vec<Mount>> {
        let open = |pid: &str| File::open(self.proc.join(pid).join("mountinfo"));
        let mut text = Vec::new();
        open("1").or_else(|_| open("self"))?.take(MAX_MOUNTS).read_to_end(&mut text)?;
        Ok(text.split(|b| *b == b'\n').filter_map(mount).collect())
    }

    /// A file system's device, and those below it.
    fn below(&self, mount: &Mount) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut left = vec![mount.device];
        // btrfs and its like have a number of their own, and name one of their devices.
        if mount.device >> 20 == 0
            && let Ok(source) = fs::metadata(&mount.source)
            && source.file_type().is_block_device()
        {
            left.push(encoded(source.rdev()));
        }
        while let Some(device) = left.pop() {
            if found.len() >= MAX_BELOW || !found.insert(device) {
                continue;
            }
            let at = self.sys.join(format!("dev/block/{}:{}", device >> 20, device & 0xf_ffff));
            let Ok(at) = fs::canonicalize(at) else { continue };
            if at.join("partition").exists()
                && let Some(disk) = at.parent()
            {
                left.extend(number(&disk.join("dev")));
            }
            for slave in fs::read_dir(at.join("slaves")).into_iter().flatten().flatten() {
                left.extend(number(&slave.path().join("dev")));
            }
            if let Ok(file) = fs::read(at.join("loop/backing_file")) {
                let file = Path::new(std::ffi::OsStr::from_bytes(file.trim_ascii_end()));
                left.extend(fs::metadata(file).map(|file| encoded(file.dev())));
            }
        }
        found
    }
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: proc(5).
fn mount(line: &[u8]) -> Option<Mount> {
    let line = std::str::from_utf8(line).ok()?;
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ');
    let (major, minor) = before.nth(2)?.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    let point = FilePath::from(before.nth(1)?);
    let source = after.split(' ').nth(1)?.into();
    Some(Mount { device: major.checked_shl(20)? | minor, point, source })
}

/// `8:1` in a file of sysfs.
fn number(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let (major, minor) = text.trim_end().split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    Some(major << 20 | minor & 0xf_ffff)
}

fn encoded(device: u64) -> u32 {
    u32::try_from(major(device) << 20 | minor(device)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::{Arc, Mutex};

    use super::*;

    fn device(major: u32, minor: u32) -> u32 {
        major << 20 | minor
    }

    /// A root file system on a volume of a partition of a disk, and a disk beside it with nothing on it.
    fn machine() -> (tempfile::TempDir, Devices) {
        let dir = tempfile::tempdir().expect("a directory");
        let (proc, sys) = (dir.path().join("proc"), dir.path().join("sys"));
        let blocks = sys.join("devices");
        for (path, text) in [
            ("sda/dev", "8:0\n"),
            ("sda/sda1/dev", "8:1\n"),
            ("sda/sda1/partition", "1\n"),
            ("dm-0/dev", "253:0\n"),
            ("sdb/dev", "8:16\n"),
        ] {
            let path = blocks.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        fs::create_dir_all(blocks.join("dm-0/slaves")).expect("a directory");
        symlink(blocks.join("sda/sda1"), blocks.join("dm-0/slaves/sda1")).expect("a link");
        fs::create_dir_all(sys.join("dev/block")).expect("a directory");
        for (number, name) in [("8:0", "sda"), ("8:1", "sda/sda1"), ("253:0", "dm-0"), ("8:16", "sdb")] {
            symlink(blocks.join(name), sys.join("dev/block").join(number)).expect("a link");
        }
        fs::create_dir_all(proc.join("1")).expect("a directory");
        let mounts = "21 1 253:0 / / rw,relatime shared:1 - ext4 /dev/mapper/root rw\n\
                      22 21 0:21 / /proc rw - proc proc rw\nnot a line\n23 21 x:1 / /y rw - z z z\n";
        fs::write(proc.join("1/mountinfo"), mounts).expect("a file");
        (dir, Devices { proc, sys, mark: None })
    }

    #[test]
    fn a_device_is_written_for_all_that_lies_on_it() {
        let (_dir, mut devices) = machine();
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = Arc::clone(&told);
        devices.tell(move |device, written| telling.lock().expect("one thread").push((device, written)));
        let root = device(253, 0);
        for (what, opened, expected, marked) in [
            ("the volume", root, true, (root, true)),
            ("the partition that it lies on", device(8, 1), true, (root, true)),
            ("the disk", device(8, 0), true, (root, true)),
            ("another disk", device(8, 16), false, (device(8, 16), false)),
        ] {
            let points = devices.written(opened).expect("a list of mounts");
            assert_eq!(points.iter().any(|p| p.as_bytes() == b"/"), expected, "{what}");
            assert_eq!(std::mem::take(&mut *told.lock().expect("one thread")), [marked], "{what}");
        }
    }

    #[test]
    fn without_a_list_of_mounts_nothing_is_known() {
        let (dir, devices) = machine();
        fs::remove_dir_all(dir.path().join("proc")).expect("a directory");
        assert_eq!(devices.written(device(8, 16)), None);
    }
}
