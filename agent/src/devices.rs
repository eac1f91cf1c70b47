//! Which file systems lie on a block device: on itself, on the disk that it is a partition of, or on a partition, a volume or a loop
//! device that lies on it.
//!
//! Whoever writes to the device changes their files without any inode showing it.
//!
//! A file system may be mounted where the host's processes do not see it, or nowhere any more while something of it is in use. So the
//! mounts of every mount namespace count in which a process lives, and what file systems say of themselves in sysfs.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::stat::{major, minor};
use serde::{Deserialize, Serialize};

use crate::event::FilePath;

/// Bytes of the list of mounts that are read: some ten thousand mounts.
const MAX_MOUNTS: u64 = 8 << 20;
/// Mount namespaces that are looked at. More than that, and what is mounted where is not known.
const MAX_NAMESPACES: usize = 4096;
/// File systems that the host's processes do not see, at most: beyond those one namespace more is looked at.
const MAX_SYSTEMS: usize = 16_384;
/// Time for looking at the namespaces of all processes, at once; and over a longer time, one part in so many.
const BURST: Duration = Duration::from_millis(500);
const PART: u32 = 20;
/// No process's mounts were read.
const NOBODY: u32 = 0;
/// Time within which digests are not dropped again for one device.
const DROPPED_FOR: Duration = Duration::from_secs(1);
/// Devices below one file system that are looked at.
const MAX_BELOW: usize = 256;
/// Mount points that are named.
const MAX_NAMED: usize = 8;

/// What the kernel programs know of devices. Device numbers are in the kernel's encoding.
pub trait Kernel: Send {
    /// Files on the device must not be believed to be unchanged (`true`), or may be again. Whether that is new.
    fn mark(&self, device: u32, written: bool) -> bool;
    /// No digest of before is to be used any more.
    fn forget(&self);
    /// Who has the device open for write, which somebody opened since the programs were attached.
    fn writers(&self, device: u32) -> Writers;
}

/// Who has a device open for write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// Somebody has, for all that is known.
    pub open: bool,
    /// When one of them closed it last while a file system or a volume had claimed it, nanoseconds since boot.
    pub claimed_ns: u64,
}

/// A device that was opened for write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub device: u32,
    /// When it was opened first of those times that it was not closed yet, nanoseconds since boot.
    pub since_ns: u64,
    /// That a file system lies on it was found before.
    pub told: bool,
}

/// What is found when a device that was opened for write is looked at again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Again {
    /// Nothing new, and it may be open still.
    Open,
    /// It need not be looked at any more.
    Closed,
    /// File systems lie on it, mounted here, of which some did not before.
    Mounted(Vec<FilePath>),
}

/// Device numbers are in the kernel's encoding: `major << 20 | minor`.
pub struct Devices {
    proc: PathBuf,
    sys: PathBuf,
    kernel: Option<Box<dyn Kernel>>,
    /// When devices were looked at again last, and the time that it took.
    looked: Option<(Instant, Duration)>,
    /// Devices for which digests were dropped, and when; none of them was released since.
    dropped: HashMap<u32, Instant>,
    /// Time that may go into looking at namespaces, and when that was last added to.
    left: Duration,
    filled: Instant,
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices").field("proc", &self.proc).field("sys", &self.sys).finish_non_exhaustive()
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
            kernel: None,
            looked: None,
            dropped: HashMap::new(),
            left: BURST,
            filled: Instant::now(),
        }
    }
}

struct Mount {
    device: u32,
    point: FilePath,
    source: PathBuf,
    /// The process whose mounts were read; 1 for the host's, or [`NOBODY`].
    seen_by: u32,
}

/// What is mounted.
struct Mounts {
    mounts: Vec<Mount>,
    /// Why there may be more.
    doubt: Option<io::Error>,
}

impl Mount {
    fn seen_by(self, seen_by: u32, through: &str) -> Self {
        let point = match through {
            "" => self.point,
            _ => FilePath::from([through.as_bytes(), self.point.as_bytes()].concat().as_slice()),
        };
        Self { point, seen_by, ..self }
    }
}

impl Devices {
    /// Tells `kernel` what it finds from now on, and asks it.
    pub fn tell(&mut self, kernel: impl Kernel + 'static) {
        self.kernel = Some(Box::new(kernel));
    }

    /// A device was opened for write: what lay on it before, and is mounted again when it was written, has its old identities. So digests of
    /// before are dropped, by the kernel at once, and by the caller if this is `true`. `false`: they were dropped a moment ago for the same
    /// device, which is marked since, and nothing lies on a part of it: none was kept of its files meanwhile.
    pub fn drops(&mut self, device: u32) -> bool {
        let now = Instant::now();
        self.dropped.retain(|_, at| now.saturating_duration_since(*at) < DROPPED_FOR);
        if self.dropped.contains_key(&device) && !self.has_parts(device) {
            return false;
        }
        self.dropped.insert(device, now);
        if let Some(kernel) = &self.kernel {
            kernel.forget();
        }
        true
    }

    /// It has partitions, or something else is made of it. What cannot be looked at may have.
    fn has_parts(&self, device: u32) -> bool {
        let at = self.sys.join(format!("dev/block/{}:{}", device >> 20, device & 0xf_ffff));
        let Ok(entries) = fs::read_dir(&at) else { return true };
        let mut parts = entries.map(|entry| entry.map(|entry| entry.path().join("partition").exists()));
        let has_holders = fs::read_dir(at.join("holders")).is_ok_and(|mut holders| holders.next().is_some());
        has_holders || parts.any(|is_part| is_part.unwrap_or(true))
    }

    /// Where the file systems are mounted that lie on a device which was opened for write at that time (nanoseconds since boot); some of
    /// them if there are many. What cannot be looked at counts as mounted at no known place (`None`).
    pub fn written(&mut self, device: u32, at_ns: u64) -> Option<Vec<FilePath>> {
        // Before the mounts: who mounts it and closes it then is seen by one of the two.
        let writers = self.writers(device);
        if !writers.open && writers.claimed_ns < at_ns {
            // What is mounted now was mounted after that. The mark goes when it is looked at again: others may have it open.
            return Some(Vec::new());
        }
        let Mounts { mounts, doubt } = self.mounts(true);
        let (points, _) = self.on(&self.stacks(mounts), device);
        if points.is_empty() {
            if let Some(error) = doubt {
                tracing::warn!(%error, "which file systems lie on a block device cannot be found out");
                return None;
            }
            if !writers.open {
                self.release(device);
            }
        }
        Some(points)
    }

    /// Looks again at devices that were opened for write and may be open still: a file system may have been mounted meanwhile. As often as
    /// that takes no more than one part in [`PART`] of the time; the answers are in the order of `opened`.
    pub fn again(&mut self, opened: &[Opened]) -> Vec<Again> {
        // Before the mounts, as above.
        let opened: Vec<_> = opened.iter().map(|one| (one, self.writers(one.device))).collect();
        // What nothing had claimed when it was closed held no file system then: one that is mounted now is as the writer left it.
        let is_done = |(one, writers): &(&Opened, Writers)| {
            !writers.open && (one.told || writers.claimed_ns < one.since_ns)
        };
        for (one, _) in opened.iter().filter(|one| is_done(one) && !one.0.told) {
            self.release(one.device);
        }
        let now = Instant::now();
        let is_early = self.looked.is_some_and(|(at, took)| now < at + took * PART);
        let mut looked = None;
        if !is_early && !opened.iter().all(is_done) {
            // The half is left for devices that are opened.
            let mounts = self.mounts(self.left >= BURST / 2);
            looked = Some((self.stacks(mounts.mounts), mounts.doubt.is_some()));
            self.looked = Some((now, now.elapsed()));
        }
        let again = opened.iter().map(|both| {
            let (one, writers) = both;
            let Some((stacks, doubt)) = looked.as_ref().filter(|_| !is_done(both)) else {
                return if is_done(both) { Again::Closed } else { Again::Open };
            };
            let (points, new) = self.on(stacks, one.device);
            if !points.is_empty() && (new || !one.told) {
                return Again::Mounted(points);
            }
            if writers.open || *doubt {
                return Again::Open;
            }
            self.release(one.device);
            Again::Closed
        });
        again.collect()
    }

    /// Mounts with the devices that they lie on.
    fn stacks(&self, mounts: Vec<Mount>) -> Vec<(Mount, Rc<BTreeSet<u32>>)> {
        let mut known = HashMap::new();
        let with_devices = mounts.into_iter().map(|mount| {
            let key = (mount.device, mount.source.clone());
            let below = Rc::clone(known.entry(key).or_insert_with(|| Rc::new(self.below(&mount))));
            (mount, below)
        });
        with_devices.collect()
    }

    /// Where those are mounted that lie on a device, and whether that is new of one of them. All of them are marked.
    fn on(&self, stacks: &[(Mount, Rc<BTreeSet<u32>>)], device: u32) -> (Vec<FilePath>, bool) {
        let (mut points, mut named, mut new) = (Vec::new(), HashMap::new(), false);
        for (mount, _) in stacks.iter().filter(|(_, below)| below.contains(&device)) {
            new |= self.mark(mount.device, true);
            // Where the host's processes see a file system, its places elsewhere say nothing more.
            let says_more = match mount.seen_by {
                NOBODY => points.is_empty(),
                by => *named.entry(mount.device).or_insert(by) == by,
            };
            if points.len() < MAX_NAMED && says_more {
                points.push(mount.point.clone());
            }
        }
        (points, new)
    }

    fn writers(&self, device: u32) -> Writers {
        self.kernel.as_ref().map_or(Writers::default(), |kernel| kernel.writers(device))
    }

    fn mark(&self, device: u32, written: bool) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.mark(device, written))
    }

    /// Nobody writes to the device. Whoever opens it meanwhile is counted first, and marks it then.
    fn release(&mut self, device: u32) {
        self.dropped.remove(&device);
        self.mark(device, false);
        if self.writers(device).open {
            self.mark(device, true);
        }
    }

    /// Those of process 1, which sees the host's, then what is in use wherever it is mounted, then those of one process of each other
    /// mount namespace.
    fn mounts(&mut self, of_others: bool) -> Mounts {
        let host = self.of_process("1").or_else(|_| self.of_process("self"));
        let (mut mounts, mut doubt) = match host {
            Ok(mounts) => (mounts, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let now = Instant::now();
        self.left = BURST.min(self.left + now.saturating_duration_since(self.filled) / PART);
        self.filled = now;
        let others = match of_others {
            true => self.others(),
            false => Err(io::Error::other("the other mount namespaces were looked at a short time ago")),
        };
        match others {
            Ok(others) => mounts.extend(others),
            Err(error) => doubt = Some(error),
        }
        self.left = self.left.saturating_sub(now.elapsed());
        // At the end: they name nothing that has a place.
        mounts.extend(self.living());
        Mounts { mounts, doubt }
    }

    fn others(&self) -> io::Result<Vec<Mount>> {
        if self.left.is_zero() {
            return Err(io::Error::other("too much time went into looking at mount namespaces"));
        }
        let began = Instant::now();
        let mut mounts = Vec::new();
        // Who has a namespace of his own chooses how often a file system is mounted there.
        let mut systems = BTreeSet::new();
        let mut seen = BTreeSet::from([self.namespace("1").or_else(|_| self.namespace("self"))?]);
        for entry in fs::read_dir(&self.proc)? {
            let name = entry?.file_name();
            let is_process = |name: &&str| name.bytes().all(|b| b.is_ascii_digit());
            let Some(pid) = name.to_str().filter(is_process) else { continue };
            // A process that ends meanwhile has none.
            let Ok(namespace) = self.namespace(pid) else { continue };
            if seen.contains(&namespace) {
                continue;
            }
            let others = match self.of_process(pid) {
                Ok(others) => others,
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(error),
                Err(_) => continue,
            };
            if seen.len() >= MAX_NAMESPACES || systems.len() >= MAX_SYSTEMS {
                return Err(io::Error::other("there are too many mount namespaces or file systems"));
            }
            if began.elapsed() >= self.left {
                return Err(io::Error::other("looking at all mount namespaces takes too long"));
            }
            seen.insert(namespace);
            let is_new = |mount: &Mount| systems.insert((mount.device, mount.source.clone()));
            mounts.extend(others.into_iter().filter(is_new));
        }
        Ok(mounts)
    }

    fn namespace(&self, pid: &str) -> io::Result<PathBuf> {
        fs::read_link(self.proc.join(pid).join("ns/mnt"))
    }

    /// The mounts that a process sees; places that the host's processes do not see are reached through it.
    fn of_process(&self, pid: &str) -> io::Result<Vec<Mount>> {
        let mut text = Vec::new();
        let table = File::open(self.proc.join(pid).join("mountinfo"))?;
        let read = table.take(MAX_MOUNTS).read_to_end(&mut text)?;
        if u64::try_from(read).is_ok_and(|read| read >= MAX_MOUNTS) {
            let reason = format!("the table of mounts of process {pid} has more than {MAX_MOUNTS} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
        }
        let seen_by = pid.parse().unwrap_or(1);
        let through = if seen_by == 1 { String::new() } else { format!("/proc/{pid}/root") };
        let mounts = text.split(|b| *b == b'\n').filter_map(mount);
        Ok(mounts.map(|mount| mount.seen_by(seen_by, &through)).collect())
    }

    /// File systems that are in use, wherever they are mounted: ext4, xfs, f2fs and others have a directory of the device's name here
    /// as long as they live, btrfs a link to each of its devices.
    fn living(&self) -> Vec<Mount> {
        let list = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten();
        let mut all = Vec::new();
        for of_type in list(self.sys.join("fs")) {
            for one in list(of_type.path()) {
                let devices = one.path().join("devices");
                all.push(one.path());
                all.extend(list(devices).map(|device| device.path()));
            }
        }
        let living = all.into_iter().filter_map(|at| {
            let device = number(&self.sys.join("class/block").join(at.file_name()?).join("dev"))?;
            let point = format!("no place that a process sees ({})", at.display());
            let point = FilePath::from(point.as_bytes());
            Some(Mount { device, point, source: PathBuf::new(), seen_by: NOBODY })
        });
        living.collect()
    }

    /// A file system's device, and those below it.
    fn below(&self, mount: &Mount) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        // And whether its partitions lie on what it holds, too. Those of a disk that holds a partition lie beside it.
        let mut left = vec![(mount.device, true)];
        // btrfs and its like have a number of their own, and name one of their devices.
        if mount.device >> 20 == 0
            && let Ok(source) = fs::metadata(&mount.source)
            && source.file_type().is_block_device()
        {
            left.push((encoded(source.rdev()), true));
        }
        while let Some((device, is_whole)) = left.pop() {
            if found.len() >= MAX_BELOW || !found.insert(device) {
                continue;
            }
            let at = self.sys.join(format!("dev/block/{}:{}", device >> 20, device & 0xf_ffff));
            let Ok(at) = fs::canonicalize(at) else { continue };
            let is_partition = |at: &Path| at.join("partition").exists();
            if is_partition(&at) {
                left.extend(at.parent().and_then(|disk| number(&disk.join("dev"))).map(|disk| (disk, false)));
            } else if is_whole {
                // The file system of a whole disk has parts of it that anybody may have made since (BLKPG_ADD_PARTITION).
                let parts = fs::read_dir(&at).into_iter().flatten().flatten().map(|part| part.path());
                let parts = parts.filter(|part| is_partition(part));
                found.extend(parts.filter_map(|part| number(&part.join("dev"))).take(MAX_BELOW));
            }
            for slave in fs::read_dir(at.join("slaves")).into_iter().flatten().flatten() {
                left.extend(number(&slave.path().join("dev")).map(|slave| (slave, true)));
            }
            if let Ok(file) = fs::read(at.join("loop/backing_file")) {
                let file = Path::new(std::ffi::OsStr::from_bytes(file.trim_ascii_end()));
                left.extend(fs::metadata(file).map(|file| (encoded(file.dev()), true)));
            }
        }
        found
    }
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: proc(5).
fn mount(line: &[u8]) -> Option<Mount> {
    let line = String::from_utf8_lossy(line);
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ');
    let (major, minor) = before.nth(2)?.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    let point = FilePath::from(before.nth(1)?);
    let source = after.split(' ').nth(1)?.into();
    Some(Mount { device: major.checked_shl(20)? | minor, point, source, seen_by: 1 })
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

    /// What a kernel is told, and says of every device.
    #[derive(Clone, Default)]
    struct Seen {
        told: Arc<Mutex<Vec<(u32, bool)>>>,
        marked: Arc<Mutex<BTreeSet<u32>>>,
        writers: Arc<Mutex<Writers>>,
        forgotten: Arc<Mutex<usize>>,
    }

    impl Seen {
        fn take(&self) -> Vec<(u32, bool)> {
            std::mem::take(&mut *self.told.lock().expect("one thread"))
        }

        fn set(&self, open: bool, claimed_ns: u64) {
            *self.writers.lock().expect("one thread") = Writers { open, claimed_ns };
        }
    }

    impl Kernel for Seen {
        fn mark(&self, device: u32, written: bool) -> bool {
            self.told.lock().expect("one thread").push((device, written));
            let mut marked = self.marked.lock().expect("one thread");
            if written { marked.insert(device) } else { marked.remove(&device) }
        }

        fn forget(&self) {
            *self.forgotten.lock().expect("one thread") += 1;
        }

        fn writers(&self, _: u32) -> Writers {
            *self.writers.lock().expect("one thread")
        }
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
            ("sda/sda2/dev", "8:2\n"),
            ("sda/sda2/partition", "2\n"),
            ("dm-0/dev", "253:0\n"),
            ("sdb/dev", "8:16\n"),
            ("sdb/sdb1/dev", "8:17\n"),
            ("sdb/sdb1/partition", "1\n"),
            ("sde/dev", "8:64\n"),
        ] {
            let path = blocks.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        fs::create_dir_all(blocks.join("dm-0/slaves")).expect("a directory");
        symlink(blocks.join("sda/sda1"), blocks.join("dm-0/slaves/sda1")).expect("a link");
        fs::create_dir_all(sys.join("dev/block")).expect("a directory");
        for (number, name) in
            [("8:0", "sda"), ("8:1", "sda/sda1"), ("253:0", "dm-0"), ("8:16", "sdb"), ("8:64", "sde")]
        {
            symlink(blocks.join(name), sys.join("dev/block").join(number)).expect("a link");
        }
        fs::create_dir_all(proc.join("1")).expect("a directory");
        let mounts = "21 1 253:0 / / rw,relatime shared:1 - ext4 /dev/mapper/root rw\n\
                      22 21 0:21 / /proc rw - proc proc rw\nnot a line\n23 21 x:1 / /y rw - z z z\n";
        fs::write(proc.join("1/mountinfo"), mounts).expect("a file");
        for (pid, namespace) in [("1", "mnt:[1]"), ("7", "mnt:[1]"), ("8", "mnt:[2]"), ("9", "mnt:[2]")] {
            fs::create_dir_all(proc.join(pid).join("ns")).expect("a directory");
            symlink(namespace, proc.join(pid).join("ns/mnt")).expect("a link");
        }
        for pid in ["8", "9"] {
            let mounts = "31 1 253:0 / /host rw - ext4 /dev/mapper/root rw\n32 31 8:16 / /data rw - vfat /dev/sdb rw\n";
            fs::write(proc.join(pid).join("mountinfo"), mounts).expect("a file");
        }
        for (name, dev) in [("sdc", "8:32\n"), ("sdd", "8:48\n"), ("sde", "8:64\n")] {
            fs::create_dir_all(sys.join("class/block").join(name)).expect("a directory");
            fs::write(sys.join("class/block").join(name).join("dev"), dev).expect("a file");
        }
        for living in ["fs/ext4/features", "fs/ext4/sdc", "fs/btrfs/1234/devices/sdd"] {
            fs::create_dir_all(sys.join(living)).expect("a directory");
        }
        (dir, Devices { proc, sys, ..Devices::default() })
    }

    #[test]
    fn a_device_is_written_for_all_that_lies_on_it() {
        let (_dir, mut devices) = machine();
        let seen = Seen::default();
        devices.tell(seen.clone());
        let root = device(253, 0);
        for (what, opened, expected) in [
            ("the volume", root, "/"),
            ("the partition that it lies on", device(8, 1), "/"),
            ("the disk", device(8, 0), "/"),
            ("a partition beside it", device(8, 2), ""),
            ("one that a container alone has mounted", device(8, 16), "/proc/N/root/data"),
            ("a partition that was made of that since", device(8, 17), "/proc/N/root/data"),
            (
                "one that is mounted nowhere any more",
                device(8, 32),
                "no place that a process sees (SYS/fs/ext4/sdc)",
            ),
            (
                "a disk of btrfs",
                device(8, 48),
                "no place that a process sees (SYS/fs/btrfs/1234/devices/sdd)",
            ),
            ("another disk", device(8, 64), ""),
        ] {
            let points = devices.written(opened, 0).expect("all can be looked at");
            let points: Vec<_> = points.iter().map(ToString::to_string).collect();
            let sys = devices.sys.display().to_string();
            // Either process of the namespace will do.
            let points = points.join(" ").replace("/8/", "/N/").replace("/9/", "/N/").replace(&sys, "SYS");
            assert_eq!(points, expected, "{what}");
            let mut told = seen.take();
            told.dedup();
            let marked = match expected {
                "/" => root,
                "/proc/N/root/data" => device(8, 16),
                _ => opened,
            };
            assert_eq!(told, [(marked, !expected.is_empty())], "{what}");
        }
    }

    #[test]
    fn who_opens_devices_again_and_again_gets_no_more_than_a_part_of_the_time() {
        let (_dir, mut devices) = machine();
        devices.left = Duration::ZERO;
        devices.filled = Instant::now() + Duration::from_secs(1);
        assert_eq!(devices.written(device(8, 64), 0), None, "it may be mounted where nobody looked");
        let points = devices.written(device(8, 0), 0).expect("the host's mounts are looked at");
        assert_eq!(points, [FilePath::from("/")]);
        devices.filled = Instant::now();
        devices.left = Duration::from_millis(1);
        assert_eq!(devices.written(device(8, 64), 0), Some(Vec::new()));
    }

    #[test]
    fn digests_are_dropped_once_while_a_device_stays_marked() {
        let (_dir, mut devices) = machine();
        let seen = Seen::default();
        devices.tell(seen.clone());
        seen.set(true, 0);
        let (alone, with_parts, unknown) = (device(8, 64), device(8, 16), device(9, 9));
        for (what, opened, expected) in [
            ("first", alone, true),
            ("again", alone, false),
            ("another", with_parts, true),
            ("a partition of it may have been mounted meanwhile", with_parts, true),
            ("one that cannot be looked at", unknown, true),
            ("that again", unknown, true),
            ("the first again", alone, false),
        ] {
            let before = *seen.forgotten.lock().expect("one thread");
            assert_eq!(devices.drops(opened), expected, "{what}");
            let dropped = *seen.forgotten.lock().expect("one thread") - before;
            assert_eq!(dropped, usize::from(expected), "{what}: by the kernel");
        }
        // Nobody has it open, and its files may be believed again.
        seen.set(false, 0);
        let opened = Opened { device: alone, since_ns: 10, told: false };
        assert_eq!(devices.again(&[opened]), [Again::Closed]);
        assert!(devices.drops(alone), "they may have been kept since");
        // Time has passed.
        devices.dropped.values_mut().for_each(|at| *at -= DROPPED_FOR);
        assert!(devices.drops(alone));
    }

    #[test]
    fn a_mark_stays_while_somebody_has_the_device_open() {
        let (_dir, mut devices) = machine();
        let seen = Seen::default();
        devices.tell(seen.clone());
        let other = device(8, 64);
        let opened = |device, told| Opened { device, since_ns: 10, told };
        seen.set(true, 0);
        assert_eq!(devices.written(other, 0), Some(Vec::new()));
        assert_eq!(seen.take(), []);
        assert_eq!(devices.again(&[opened(other, false)]), [Again::Open]);
        assert_eq!(seen.take(), []);
        // Closed before its opening is looked at.
        seen.set(false, 9);
        assert_eq!(devices.written(device(8, 0), 10), Some(Vec::new()));
        assert_eq!(seen.take(), []);
        seen.set(false, 10);
        assert_eq!(devices.written(device(8, 0), 10), Some(vec!["/".into()]));
        seen.take();
        // Closed, and never mounted.
        for claimed_ns in [0, 9, 11] {
            devices.looked = None;
            seen.set(false, claimed_ns);
            assert_eq!(devices.again(&[opened(other, false)]), [Again::Closed], "{claimed_ns}");
            assert_eq!(seen.take(), [(other, false)], "{claimed_ns}");
        }
    }

    #[test]
    fn what_is_mounted_while_its_device_is_open_is_told_once() {
        let (_dir, mut devices) = machine();
        let seen = Seen::default();
        devices.tell(seen.clone());
        let (root, disk) = (device(253, 0), device(8, 0));
        let opened = |told| [Opened { device: disk, since_ns: 10, told }];
        let mounted = [Again::Mounted(vec!["/".into()])];
        let mut look = |open, claimed_ns, told| {
            devices.looked = None;
            seen.set(open, claimed_ns);
            let again = devices.again(&opened(told));
            let mut marks = seen.take();
            marks.dedup();
            (again, marks)
        };
        let (again, marks) = look(true, 0, false);
        assert_eq!((again.as_slice(), marks), (mounted.as_slice(), vec![(root, true)]));
        assert_eq!(look(true, 0, true).0, [Again::Open]);
        // Another file system has come.
        seen.marked.lock().expect("one thread").clear();
        assert_eq!(look(true, 0, true).0, mounted);
        // The marks stay.
        assert_eq!(look(false, 11, true), (vec![Again::Closed], vec![]));
        // It was mounted, and then closed.
        assert_eq!(look(false, 11, false).0, mounted);
        // It was closed, and then mounted.
        assert_eq!(look(false, 9, false), (vec![Again::Closed], vec![(disk, false)]));
    }

    #[test]
    fn devices_that_stay_open_cost_no_more_than_a_part_of_the_time() {
        let (_dir, mut devices) = machine();
        let seen = Seen::default();
        devices.tell(seen.clone());
        seen.set(true, 0);
        let opened = [Opened { device: device(8, 0), since_ns: 10, told: false }];
        devices.looked = Some((Instant::now(), Duration::from_secs(10)));
        assert_eq!(devices.again(&opened), [Again::Open]);
        // The host's mounts are looked at, the others' not.
        devices.looked = None;
        (devices.left, devices.filled) = (Duration::ZERO, Instant::now() + Duration::from_secs(1));
        assert_eq!(devices.again(&opened), [Again::Mounted(vec!["/".into()])]);
        devices.looked = None;
        seen.set(false, 11);
        let other = [Opened { device: device(8, 64), ..opened[0] }];
        assert_eq!(devices.again(&other), [Again::Open], "it may be mounted where nobody looked");
    }

    #[test]
    fn without_a_list_of_mounts_nothing_is_known() {
        let (dir, mut devices) = machine();
        fs::remove_dir_all(dir.path().join("proc")).expect("a directory");
        assert_eq!(devices.written(device(8, 64), 0), None);
    }
}
