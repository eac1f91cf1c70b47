use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::FUSE_SUPER_MAGIC;
use nix::unistd::mkfifo;

use super::open::{ctime_ns, device, link, size};
use super::*;
use crate::event::{FileOp, FilePath, KernelDigest, ProcessId, Start};

/// `printf one | sha256sum`, `sha1sum`, `md5sum`.
const ONE: &str = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
const ONE_SHA1: &str = "fe05bcdcdc4928012781a5f1a2a77cbb5398e106";
const ONE_MD5: &str = "f97c5d29941bfb1b2fdab0874906ab82";

fn digests() -> Digests {
    Digests::new(Metrics::new())
}

/// What a metric of the room says.
fn counted(digests: &Digests, name: &str) -> u64 {
    let (text, start) = (digests.metrics.text(), format!("muster_digest_{name} "));
    let value = text.lines().find_map(|line| line.strip_prefix(&start)).expect(name);
    value.parse().expect(name)
}

fn task(pid: u32) -> Task {
    Task { process: ProcessId { tgid: pid, start_ns: 1 }, pid, mnt_ns: 7, ..Task::default() }
}

fn me() -> Task {
    task(std::process::id())
}

/// The file as an event would have it now, under `name`.
fn event_of(path: &Path, name: &str) -> FileRef {
    let stat = link(path).expect("the file").stat;
    FileRef {
        path: FilePath::from(name),
        identity: FileIdentity {
            dev: device(&stat),
            generation: 3,
            ino: stat.st_ino,
            size: size(&stat),
            ctime_ns: ctime_ns(&stat),
            i_version: 4,
            real: Inode { dev: device(&stat), generation: 3, ino: stat.st_ino },
        },
        mode: stat.st_mode,
        nlink: 1,
        ..FileRef::default()
    }
}

fn here(path: &Path) -> FileRef {
    event_of(path, path.to_str().expect("UTF-8"))
}

fn settle() {
    std::thread::sleep(SETTLED + Duration::from_millis(20));
}

/// SHA-256 and origin, or the reason.
fn answer(content: &Content) -> Result<(String, DigestOrigin), String> {
    match content {
        Content::Known { sha256, origin, .. } => Ok((sha256.to_string(), *origin)),
        Content::Undetermined(reason) => Err(reason.as_str().to_owned()),
    }
}

fn agent(sha256: &str) -> Result<(String, DigestOrigin), String> {
    Ok((sha256.to_owned(), DigestOrigin::Agent))
}

fn sha256sum(path: &Path) -> String {
    let out = Command::new("sha256sum").arg(path).output().expect("sha256sum (package coreutils) runs");
    String::from_utf8_lossy(&out.stdout).split(' ').next().unwrap_or_default().to_owned()
}

fn file(dir: &tempfile::TempDir, name: &str, content: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(&path, content).expect("a file");
    path
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Ends a child of a test, also when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_kernels_digest_passes() {
    let dir = dir();
    let path = file(&dir, "x", "one");
    let mut digests = digests();
    for (cached, origin) in [(false, DigestOrigin::Kernel), (true, DigestOrigin::KernelCache)] {
        let digest = Some(KernelDigest { sha256: ONE.parse().expect("a digest"), cached });
        let event = FileRef { digest, ..here(&path) };
        assert_eq!(
            answer(&digests.content(&me(), &event, Action::Library, false)),
            Ok((ONE.to_owned(), origin))
        );
    }
    // Weak ones belong to the content that the kernel saw, or are left out.
    for (sha256, expected) in [(ONE.to_owned(), true), ("1".repeat(64), false)] {
        let digest = Some(KernelDigest { sha256: sha256.parse().expect("a digest"), cached: false });
        let event = FileRef { digest, ..here(&path) };
        match digests.content(&me(), &event, Action::Library, true) {
            Content::Known { weak, .. } => assert_eq!(weak.is_some(), expected, "{sha256}"),
            Content::Undetermined(reason) => panic!("{reason}"),
        }
    }
    assert_eq!(counted(&digests, r#"hits_total{origin="kernel"}"#), 4);
}

/// What is doubted of the content, which must be known.
fn doubt(content: &Content) -> Option<Doubt> {
    match content {
        Content::Known { doubt, .. } => *doubt,
        Content::Undetermined(reason) => panic!("{reason}"),
    }
}

#[test]
fn what_may_not_be_what_ran_is_doubted() {
    let dir = dir();
    let file = here(&file(&dir, "x", "one"));
    settle();
    let changed = SystemTime::UNIX_EPOCH + Duration::from_nanos(file.identity.ctime_ns);
    let later = changed + TICKS + Duration::from_millis(1);
    let busy = FileRef { has_writers: true, ..file.clone() };
    let by_kernel = KernelDigest { sha256: ONE.parse().expect("a digest"), cached: false };
    let in_memory = FileRef { place: Place::Tmpfs, ..file.clone() };
    let change = Action::Change(FileOp::CloseWrite);
    for (what, file, action, at, expected) in [
        ("long after a change", file.clone(), Action::Library, later, None),
        ("right after a change", file.clone(), Action::Library, changed + TICKS, Some(Doubt::Fresh)),
        ("right after a change: a script", file.clone(), Action::Script, changed, Some(Doubt::Fresh)),
        ("changed by a clock that was ahead", file.clone(), Action::Library, SystemTime::UNIX_EPOCH, None),
        ("a writer", busy.clone(), Action::Library, later, Some(Doubt::Writers)),
        (
            "a writer, and the kernel's digest",
            FileRef { digest: Some(by_kernel), ..busy.clone() },
            Action::Library,
            later,
            Some(Doubt::Writers),
        ),
        (
            "the kernel's digest, right after a change",
            FileRef { digest: Some(by_kernel), ..file.clone() },
            Action::Library,
            changed,
            None,
        ),
        ("in memory", in_memory.clone(), Action::Library, later, Some(Doubt::InMemory)),
        ("in memory, again", in_memory.clone(), Action::Library, later, Some(Doubt::InMemory)),
        (
            "in memory, by the kernel",
            FileRef { digest: Some(by_kernel), ..in_memory },
            Action::Library,
            later,
            None,
        ),
        ("a change is what it is now", busy, change, changed, None),
    ] {
        let mut digests = digests();
        digests.begin(at, 0, "host", None);
        assert_eq!(doubt(&digests.content(&me(), &file, action, false)), expected, "{what}");
        if file.place == Place::Tmpfs {
            assert!(digests.cache.is_empty(), "{what}");
        }
    }
}

#[test]
fn cached_until_changed() {
    let dir = dir();
    let path = file(&dir, "x", "one");
    let mut digests = digests();
    let fresh = here(&path);
    settle();
    let rows = [
        (false, Action::Library, DigestOrigin::Agent),
        (false, Action::Library, DigestOrigin::AgentCache),
        // The cached one has no weak digests; the new one has.
        (true, Action::Script, DigestOrigin::Agent),
        (true, Action::Library, DigestOrigin::AgentCache),
        (false, Action::Library, DigestOrigin::AgentCache),
    ];
    for (weak, action, origin) in rows {
        let content = digests.content(&me(), &fresh, action, weak);
        assert_eq!(answer(&content), Ok((ONE.to_owned(), origin)));
        if let (true, Content::Known { weak, .. }) = (weak, content) {
            let weak = weak.expect("weak digests");
            let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            assert_eq!((hex(&weak.sha1), hex(&weak.md5)), (ONE_SHA1.to_owned(), ONE_MD5.to_owned()));
        }
    }
    digests.changed(&fresh);
    assert_eq!(answer(&digests.content(&me(), &fresh, Action::Library, false)), agent(ONE));

    // Another identity of the same inode is not answered from the cache, nor is a file with writers.
    for event in [
        FileRef { identity: FileIdentity { i_version: 5, ..fresh.identity }, ..fresh.clone() },
        FileRef { has_writers: true, ..fresh.clone() },
        FileRef { has_writers: true, ..fresh.clone() },
    ] {
        assert_eq!(answer(&digests.content(&me(), &event, Action::Library, false)), agent(ONE));
    }
    assert_eq!(counted(&digests, r#"hits_total{origin="agent"}"#), 3);
    assert_eq!(counted(&digests, "misses_total"), 6);
}

#[test]
fn not_cached_while_the_clock_may_hide_a_change() {
    let dir = dir();
    let patience = Instant::now() + Duration::from_secs(60);
    // A file that has not settled after the look had not before it. A slow machine may need more than one.
    loop {
        let mut digests = digests();
        let event = here(&file(&dir, "x", "one"));
        assert_eq!(answer(&digests.content(&me(), &event, Action::Library, false)), agent(ONE));
        if !is_settled(&event.identity) {
            assert!(digests.cache.is_empty());
            break;
        }
        assert!(Instant::now() < patience, "in a minute no file was read within {SETTLED:?} of its change");
    }
    let changed = |ctime_ns| FileIdentity { ctime_ns, ..here(&dir.path().join("x")).identity };
    assert!(is_settled(&changed(1)));
    // What changes from now on gets another time.
    assert!(is_settled(&changed(u64::MAX / 2)), "by a clock that was ahead");
}

#[test]
fn another_file_is_not_judged_for_it() {
    let dir = dir();
    let path = file(&dir, "x", "one");
    let event = here(&path);
    let mut digests = digests();
    let mut expect = |event: &FileRef, action, expected: &str| {
        assert_eq!(
            answer(&digests.content(&me(), event, action, false)),
            Err(expected.to_owned()),
            "{action:?}"
        );
    };
    fs::write(&path, "two").expect("written");
    expect(&event, Action::Library, "replaced");
    fs::remove_file(&path).expect("removed");
    expect(&event, Action::Script, "gone");
    symlink("/bin/sh", &path).expect("a link");
    expect(&event, Action::Library, "replaced");
    fs::remove_file(&path).expect("removed");
    symlink(&path, &path).expect("a link");
    expect(&event, Action::Library, "replaced");
    // A running program with another inode.
    expect(&event, Action::Exec, "replaced");
    // A process that is not there and no namespace to look in.
    let nobody = Task { mnt_ns: 0, ..task(u32::MAX) };
    assert_eq!(answer(&digests.content(&nobody, &event, Action::Exec, false)), Err("gone".to_owned()));
    assert_eq!(counted(&digests, r#"undetermined_total{reason="gone"}"#), 2);
    assert_eq!(counted(&digests, r#"undetermined_total{reason="replaced"}"#), 4);
}

#[test]
fn only_regular_files_of_a_bounded_size() {
    let dir = dir();
    let fifo = dir.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR).expect("a FIFO");
    let mut digests = digests();
    let mut ask = |path: &Path| answer(&digests.content(&me(), &here(path), Action::Library, false));
    assert_eq!(ask(&fifo), Err("not_regular".to_owned()));
    assert_eq!(ask(dir.path()), Err("not_regular".to_owned()));
    assert_eq!(ask(Path::new("/dev/null")), Err("not_regular".to_owned()));
    let large = dir.path().join("large");
    File::create(&large).and_then(|f| f.set_len(MAX_FILE_BYTES + 1)).expect("a sparse file");
    assert_eq!(ask(&large), Err("too_large".to_owned()));
}

#[test]
fn a_mapping_that_may_not_be_followed_is_not_gone() {
    let dir = dir();
    let open = file(&dir, "open/other", "other");
    let closed = file(&dir, "closed/x", "one");
    let event = FileRef { path: FilePath::default(), ..here(&closed) };
    let links = dir.path().join("proc/9/map_files");
    fs::create_dir_all(&links).expect("a directory");
    symlink(&closed, links.join("1000-2000")).expect("a link");
    symlink(&open, links.join("2000-3000")).expect("a link");
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
    let closed = closed.parent().expect("a parent");
    fs::set_permissions(closed, PermissionsExt::from_mode(0o0)).expect("permissions");
    // As somebody else, for this thread alone: root may go anywhere.
    let found = std::thread::scope(|scope| {
        let ask = || {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
            let mut digests = Digests::with_proc(Metrics::new(), &dir.path().join("proc"));
            let found = answer(&digests.content(&task(9), &event, Action::Library, false));
            (found, counted(&digests, r#"undetermined_total{reason="permission"}"#))
        };
        scope.spawn(ask).join().expect("no panic")
    });
    fs::set_permissions(closed, PermissionsExt::from_mode(0o755)).expect("permissions");
    assert_eq!(found, (Err("permission".to_owned()), 1));
}

#[test]
fn what_a_program_serves_is_not_read() {
    let dir = dir();
    let path = file(&dir, "x", "#!one");
    // As the file system says; making one here would need privileges, and a program.
    let found = link(&path).expect("the file");
    found.read().expect("opened");
    let served = Found { fs: Some(FUSE_SUPER_MAGIC), ..found };
    assert_eq!(served.read().map(|_| ()), Err(Unread::Served));
    // As the kernel side says, before anything is looked up.
    let metrics = Metrics::new();
    let mut digests = Digests::new(Arc::clone(&metrics));
    let event = FileRef { served: true, ..here(&path) };
    settle();
    for action in [Action::Exec, Action::Library, Action::Change(FileOp::CloseWrite)] {
        let content = digests.content(&me(), &event, action, true);
        assert_eq!(answer(&content), Err("served".to_owned()), "{action:?}");
    }
    assert_eq!(digests.start(&me(), &event), None);
    assert!(digests.cache.is_empty());
    assert_eq!(metrics.digest_read_bytes(), 0);
}

#[test]
fn no_more_is_read_of_what_changed_than_the_budget_allows() {
    let dir = dir();
    let metrics = Metrics::new();
    let mut digests = Digests::new(Arc::clone(&metrics));
    // Not refilled while the test runs.
    digests.budget = Budget::new(Instant::now() + Duration::from_secs(3600));
    let sparse = |name: &str, bytes| {
        let path = dir.path().join(name);
        File::create(&path).and_then(|f| f.set_len(bytes)).expect("a sparse file");
        here(&path)
    };
    // A hole that is small enough to be read, with as much as that taken from the budget.
    let big = sparse("big", 1 << 20);
    let left = 1000;
    assert!(digests.budget.take(budget::BURST - left, Instant::now()));
    let changed = Action::Change(FileOp::Chmod);
    for _ in 0..2 {
        let content = digests.content(&me(), &big, changed, false);
        assert_eq!(answer(&content), Err("over_budget".to_owned()));
    }
    assert_eq!(metrics.digest_read_bytes(), 0, "nothing of it is read");
    // It leaves room for the small ones, until that is used up, too.
    let small = here(&file(&dir, "small", "one"));
    assert_eq!(answer(&digests.content(&me(), &small, changed, false)), agent(ONE));
    assert!(digests.budget.take(left - 3, Instant::now()));
    assert_eq!(answer(&digests.content(&me(), &small, changed, false)), Err("over_budget".to_owned()));
    // The limit of a file is a reason of its own, and what runs or is mapped is not bound.
    let large = sparse("large", MAX_FILE_BYTES + 1);
    assert_eq!(answer(&digests.content(&me(), &large, changed, false)), Err("too_large".to_owned()));
    let mapped = sparse("mapped", 2 << 20);
    assert_eq!(answer(&digests.content(&me(), &mapped, changed, false)), Err("over_budget".to_owned()));
    let read = metrics.digest_read_bytes();
    answer(&digests.content(&me(), &mapped, Action::Library, false)).expect("read");
    assert_eq!(metrics.digest_read_bytes() - read, 2 << 20);
    let line = r#"muster_digest_undetermined_total{reason="over_budget"} 4"#;
    let text = metrics.text();
    assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
}

#[test]
fn a_change_while_reading_shows() {
    let dir = dir();
    let mut buffer = vec![0; 2];
    let changes: [fn(&Path); 3] = [
        |path| {
            OpenOptions::new().append(true).open(path).and_then(|mut f| f.write_all(b"x")).expect("appended");
        },
        |path| OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(1)).expect("cut"),
        |path| fs::set_permissions(path, PermissionsExt::from_mode(0o700)).expect("mode"),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let path = file(&dir, "x", "one");
        let before = link(&path).expect("the file");
        let opened = before.read().expect("opened");
        settle();
        change(&path);
        let result = hash::hash(&opened, &before.stat, &mut buffer, false, false, &Metrics::new())
            .map(|(sha256, _)| sha256);
        assert_eq!(result, Err(Unread::ChangedWhileRead), "change {number}");
    }
    // Hashed in pieces of two bytes, it is still the same content.
    let path = file(&dir, "y", "one");
    let before = link(&path).expect("the file");
    let result =
        hash::hash(&before.read().expect("opened"), &before.stat, &mut buffer, true, false, &Metrics::new());
    assert_eq!(result.map(|(sha256, _)| sha256.to_string()), Ok(ONE.to_owned()));
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn renames_never_mix_contents_up() {
    let dir = dir();
    let target = dir.path().join("target");
    let (a, b) = (file(&dir, "a", "one"), file(&dir, "b", "two"));
    let event = event_of(&a, target.to_str().expect("UTF-8"));
    let stop = AtomicBool::new(false);
    let mut seen = [0; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for from in [&a, &b] {
                    fs::rename(from, &target).expect("renamed");
                    std::thread::yield_now();
                    fs::rename(&target, from).expect("renamed back");
                }
            }
        });
        // A failed assertion ends the other thread, too.
        let _ends = Ends(&stop);
        let mut digests = digests();
        for _ in 0..5000 {
            // The event's ctime is of before the first rename, so for a change only the inode is compared.
            match answer(&digests.content(&me(), &event, Action::Change(FileOp::Rename), false)) {
                Ok((sha256, _)) => {
                    assert_eq!(sha256, ONE);
                    seen[0] += 1;
                }
                Err(reason) => {
                    assert!(
                        ["gone", "replaced", "changed_while_read", "over_budget"].contains(&reason.as_str()),
                        "{reason}"
                    );
                    seen[1] += 1;
                }
            }
        }
    });
    assert!(seen[1] > 0, "no race was met: {seen:?}");
}

#[test]
fn a_program_deleted_while_it_runs() {
    let dir = dir();
    let path = dir.path().join("sleep");
    fs::copy("/bin/sleep", &path).expect("a copy");
    let expected = sha256sum(&path);
    let mut event = here(&path);
    let child = Running(Command::new(&path).arg("60").spawn().expect("started"));
    settle();
    fs::remove_file(&path).expect("removed");
    let mut digests = digests();
    let content = digests.content(&task(child.0.id()), &event, Action::Exec, false);
    assert_eq!(answer(&content), agent(&expected));
    // It may have run something else since, and the file may have been changed meanwhile.
    assert_eq!(doubt(&content), Some(Doubt::Touched));
    event.deleted = true;
    assert_eq!(
        answer(&digests.content(&task(child.0.id()), &event, Action::Connect, false)),
        agent(&expected)
    );
    // Its mapping leads there too, but nothing keeps writers from a library: its ctime must be the event's.
    let library = digests.content(&task(child.0.id()), &event, Action::Library, false);
    assert_eq!(answer(&library), Err("replaced".to_owned()));
    let now = event_of(Path::new(&format!("/proc/{}/exe", child.0.id())), "/gone");
    let library = FileRef { deleted: true, ..now };
    assert_eq!(
        answer(&digests.content(&task(child.0.id()), &library, Action::Library, false)),
        agent(&expected)
    );
    // When it has ended nothing is left.
    let pid = child.0.id();
    drop(child);
    assert_eq!(answer(&digests.content(&task(pid), &event, Action::Exec, false)), Err("gone".to_owned()));
}

#[test]
fn a_program_in_a_memfd() {
    let memfd = File::from(memfd_create("program", MFdFlags::MFD_CLOEXEC).expect("a memfd"));
    (&memfd).write_all(&fs::read("/bin/sleep").expect("a program")).expect("written");
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), memfd.as_raw_fd()));
    // The kernel does not run what is open for writing.
    let program = File::open(&path).expect("opened again");
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), program.as_raw_fd()));
    drop(memfd);
    let child = Running(Command::new(&path).arg("60").spawn().expect("started"));
    let event = FileRef { place: Place::Memfd, deleted: true, ..event_of(&path, "/memfd:program") };
    let mut digests = digests();
    let expected = agent(&sha256sum(Path::new("/bin/sleep")));
    assert_eq!(answer(&digests.content(&task(child.0.id()), &event, Action::Exec, false)), expected);
    // A script in one, by the descriptor of the process that reads it.
    assert_eq!(answer(&digests.content(&me(), &event, Action::Script, false)), expected);
    assert_eq!(fstat(&program).map(|s| s.st_ino).ok(), Some(event.identity.ino));
}

/// A `/proc` with processes of our own.
fn fake(dir: &tempfile::TempDir, pid: u32, mnt_ns: u32) {
    let process = dir.path().join(format!("proc/{pid}"));
    fs::create_dir_all(process.join("ns")).expect("a process");
    fs::create_dir_all(process.join("fd")).expect("a process");
    symlink(format!("mnt:[{mnt_ns}]"), process.join("ns/mnt")).expect("a link");
    symlink(dir.path().join("root"), process.join("root")).expect("a link");
    symlink(dir.path().join("root/srv"), process.join("cwd")).expect("a link");
}

#[test]
fn paths_stay_in_the_containers_root() {
    let dir = dir();
    let library = file(&dir, "root/usr/lib/x.so", "one");
    symlink("/usr/lib", dir.path().join("root/lib")).expect("a link");
    symlink("/../../../../../../../../bin/sh", dir.path().join("root/sh")).expect("a link");
    symlink("../../../../../../../../bin", dir.path().join("root/bin")).expect("a link");
    fake(&dir, 30, 7);
    let mut digests = Digests::with_proc(Metrics::new(), &dir.path().join("proc"));
    let mut ask = |pid, event: &FileRef| answer(&digests.content(&task(pid), event, Action::Library, false));
    assert_eq!(ask(30, &event_of(&library, "/usr/lib/x.so")), agent(ONE));
    assert_eq!(ask(30, &event_of(&library, "/lib/x.so")), agent(ONE));
    for escape in ["/sh", "/bin/sh", "/../../../../../../bin/sh"] {
        let got = ask(30, &event_of(Path::new("/bin/sh"), escape));
        assert!(
            matches!(got.as_ref().map_err(String::as_str), Err("gone" | "replaced")),
            "{escape}: {got:?}"
        );
    }
    // The process is gone: another one of its mount namespace sees the same files.
    assert_eq!(ask(31, &event_of(&library, "/usr/lib/x.so")), agent(ONE));
    let elsewhere = digests.content(&Task { mnt_ns: 8, ..task(31) }, &here(&library), Action::Library, false);
    assert_eq!(answer(&elsewhere), Err("gone".to_owned()));
}

#[test]
fn names_as_the_caller_gave_them() {
    let dir = dir();
    let script = file(&dir, "root/srv/dir/run.sh", "one");
    symlink("/srv/dir/run.sh", dir.path().join("root/srv/link")).expect("a link");
    fake(&dir, 30, 7);
    symlink(&script, dir.path().join("proc/30/fd/63")).expect("a link");
    let mut digests = Digests::with_proc(Metrics::new(), &dir.path().join("proc"));
    let by_name = |name: &str| FileRef { path: FilePath::from(name), by_name: true, ..FileRef::default() };
    let names =
        ["dir/run.sh", "./dir/../dir/run.sh", "link", "/srv/dir/run.sh", "/dev/fd/63", "/proc/self/fd/63"];
    for name in names {
        let found = digests.resolve_by_name(&task(30), &by_name(name), None, true, None).expect(name);
        assert_eq!(found.path, FilePath::from("/srv/dir/run.sh"), "{name}");
        let mut expected = FileIdentity { generation: 0, i_version: 0, ..here(&script).identity };
        expected.real.generation = 0;
        assert_eq!(found.identity, expected);
        assert!(
            !found.by_name && !found.unreachable && !found.deleted && found.mode & 0o100_000 != 0,
            "{found:?}"
        );
        assert_eq!(answer(&digests.content(&task(30), &found, Action::Script, false)), agent(ONE), "{name}");
    }
    // The process is gone.
    let found = digests
        .resolve_by_name(&task(31), &by_name("/srv/dir/run.sh"), None, true, None)
        .expect("by another process");
    assert_eq!(found.path, FilePath::from("/srv/dir/run.sh"));
    let error = digests
        .resolve_by_name(&task(31), &by_name("dir/run.sh"), None, true, None)
        .expect_err("nowhere to start from");
    assert!(error.to_string().contains("the process is gone"), "{error}");
    for name in ["/missing", "/dev/fd/64", ""] {
        assert!(digests.resolve_by_name(&task(30), &by_name(name), None, true, None).is_err(), "{name}");
    }
    // Its working directory was moved out of its root.
    fs::remove_file(dir.path().join("proc/30/cwd")).expect("removed");
    symlink("/", dir.path().join("proc/30/cwd")).expect("a link");
    let error =
        digests.resolve_by_name(&task(30), &by_name("dir/run.sh"), None, true, None).expect_err("outside");
    assert!(error.to_string().contains("outside its root"), "{error}");
}

#[test]
fn a_name_that_may_have_meant_another_file() {
    let dir = dir();
    let good = file(&dir, "root/usr/bin/good.sh", "one");
    let evil = file(&dir, "root/srv/evil.sh", "two");
    symlink("evil.sh", dir.path().join("root/srv/link")).expect("a link");
    symlink("../usr/bin/good.sh", dir.path().join("root/srv/other")).expect("a link");
    symlink("/srv", dir.path().join("root/usr/srv")).expect("a link");
    fake(&dir, 30, 7);
    symlink(&good, dir.path().join("proc/30/fd/63")).expect("a link");
    let mut digests = Digests::with_proc(Metrics::new(), &dir.path().join("proc"));
    settle();
    let mut resolve = |name: &str, at| {
        let by_name = FileRef { path: FilePath::from(name), by_name: true, ..FileRef::default() };
        digests.resolve_by_name(&task(30), &by_name, Some(at), true, None).map(|found| found.path.to_string())
    };
    let expect = |result: io::Result<String>, why: &str| {
        let error = result.expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    };
    // Nothing was touched since.
    let at = SystemTime::now();
    for (name, expected) in [
        ("/usr/bin/good.sh", "/usr/bin/good.sh"),
        ("/srv/./link", "/srv/evil.sh"),
        ("/srv/other", "/usr/bin/good.sh"),
        ("/usr/srv/../srv/link", "/srv/evil.sh"),
        ("/../srv/../../usr/bin/../bin/good.sh", "/usr/bin/good.sh"),
    ] {
        assert_eq!(resolve(name, at).ok().as_deref(), Some(expected), "{name}");
    }
    expect(resolve("/dev/fd/63", at), "the descriptor");
    expect(resolve("link", at), "its working directory");
    // It ran evil.sh, and means good.sh by the time it is looked at.
    let link = dir.path().join("root/srv/link");
    fs::remove_file(&link).expect("removed");
    symlink("../usr/bin/good.sh", &link).expect("a link");
    expect(resolve("/srv/link", at), "on the way was changed");
    assert_eq!(resolve("/usr/bin/good.sh", at).ok().as_deref(), Some("/usr/bin/good.sh"));
    // The other script was run before its name was taken.
    settle();
    fs::rename(&evil, &good).expect("renamed");
    expect(resolve("/usr/bin/good.sh", at), "what is there now");
    settle();
    resolve("/srv/link", SystemTime::now()).expect("that is long ago for a later one");
}

#[test]
fn names_of_this_process() {
    let memfd = File::from(memfd_create("script", MFdFlags::MFD_CLOEXEC).expect("a memfd"));
    (&memfd).write_all(b"one").expect("written");
    let name = format!("/dev/fd/{}", memfd.as_raw_fd());
    let event = FileRef { path: FilePath::from(name.as_str()), by_name: true, ..FileRef::default() };
    let mut digests = digests();
    let found = digests.resolve_by_name(&me(), &event, None, true, None).expect("resolved");
    assert_eq!(
        (found.path.to_string().as_str(), found.place, found.deleted),
        ("/memfd:script", Place::Memfd, true)
    );
    assert_eq!(answer(&digests.content(&me(), &found, Action::Script, false)), agent(ONE));
}

#[test]
fn the_program_of_a_process() {
    let child = Running(Command::new("/bin/sleep").arg("60").spawn().expect("started"));
    let pid = child.0.id();
    let start_ns = Proc::new(Path::new("/proc")).stat(pid).expect("stat").start_ns;
    let mut digests = digests();
    let process = Task { process: ProcessId { tgid: pid, start_ns }, ..task(pid) };
    let program = digests.program(&process).expect("a program");
    let sleep = fs::canonicalize("/bin/sleep").expect("a path");
    assert_eq!((program.path.to_string(), program.mode & 0o111), (sleep.display().to_string(), 0o111));
    let content = digests.content(&process, &program, Action::Connect, false);
    assert_eq!(answer(&content), agent(&sha256sum(&sleep)));
    let another = digests.program(&task(pid)).expect_err("it started at another time");
    assert!(another.to_string().contains("another one"), "{another}");
}

#[test]
fn beginnings() {
    let dir = dir();
    let mut digests = digests();
    let elf = |order: char, kind: &str| format!("\u{7f}ELF\u{2}{order}\u{1}{}{kind}and more", "\0".repeat(9));
    for (content, expected) in [
        ("#!/bin/sh\n".to_owned(), Start::Program),
        ("\u{7f}ELF\u{2}".to_owned(), Start::Program),
        (elf('\u{1}', "\u{2}\0"), Start::Program),
        (elf('\u{1}', "\u{3}\0"), Start::Program),
        (elf('\u{1}', "\u{1}\0"), Start::Object),
        (elf('\u{1}', "\u{4}\0"), Start::Object),
        (elf('\u{2}', "\0\u{1}"), Start::Object),
        (elf('\u{2}', "\u{1}\0"), Start::Program),
        ("\u{7f}EL".to_owned(), Start::Data),
        ("#".to_owned(), Start::Data),
        (String::new(), Start::Data),
        (" #!".to_owned(), Start::Data),
    ] {
        let event = here(&file(&dir, "x", &content));
        assert_eq!(digests.start(&me(), &event), Some(expected), "{content:?}");
    }
    assert_eq!(digests.start(&me(), &here(dir.path())), Some(Start::Data));
    let event = here(&file(&dir, "x", "#!"));
    let again = digests.again(&me(), &event).expect("it is there");
    assert_eq!((again.identity.size, again.path), (2, event.path.clone()));
    fs::rename(file(&dir, "y", "#!"), dir.path().join("x")).expect("renamed");
    assert_eq!(digests.start(&me(), &event), None, "another file is there");
    assert_eq!(digests.again(&me(), &event), None, "another file is there");
}

/// A `/proc` in which process 1 has `root`, as has process 7; 8 has another root, 9 another mount namespace.
fn machine(dir: &Path) -> Digests {
    for (pid, root, ns) in [(1, "root", 1), (7, "root", 1), (8, "other", 1), (9, "root", 2)] {
        let proc = dir.join(format!("proc/{pid}"));
        fs::create_dir_all(proc.join("ns")).expect("a private directory");
        fs::create_dir_all(dir.join(root)).expect("a private directory");
        symlink(dir.join(root), proc.join("root")).expect("a private directory");
        symlink(format!("mnt:[{ns}]"), proc.join("ns/mnt")).expect("a private directory");
        let stat = format!("{pid} (a) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0\n");
        fs::write(proc.join("stat"), stat).expect("a private directory");
    }
    Digests::with_proc(Metrics::new(), &dir.join("proc"))
}

#[test]
fn what_is_on_the_host_now() {
    let dir = tempfile::tempdir().expect("a private directory");
    let mut digests = machine(dir.path());
    fs::write(dir.path().join("root/one"), "one").expect("a private directory");
    symlink("one", dir.path().join("root/link")).expect("a private directory");
    assert_eq!(digests.at(1, &"/one".into(), false), (true, None));
    assert_eq!(digests.at(1, &"/gone".into(), true), (false, None));
    assert_eq!(digests.at(1, &"/one/gone".into(), true), (false, None));
    assert_eq!(digests.at(1, &"/link".into(), true), (false, None), "a link is no file");
    let (exists, content) = digests.at(1, &"/one".into(), true);
    let Some(Content::Known { sha256, weak: Some(weak), .. }) = content else { panic!("{content:?}") };
    assert!(exists);
    assert_eq!(sha256.to_string(), ONE);
    assert_eq!(weak.md5.iter().map(|b| format!("{b:02x}")).collect::<String>(), ONE_MD5);
}
