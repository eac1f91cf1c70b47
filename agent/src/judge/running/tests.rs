//! Tests with processes of their own.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::look::{STEP, thread_of};
use super::*;
use crate::config::Config;
use crate::metrics::Metrics;

#[test]
fn what_many_processes_run_is_judged_once() {
    let proc = Proc::new(Path::new("/proc"));
    let sleep = || std::process::Command::new("/bin/sleep").arg("60").spawn().expect("a process");
    let mut children = [sleep(), sleep()];
    // They have mapped their libraries.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut running = Running::new(Flavour::Lsm, &proc, None);
    running.pids = children.iter().map(std::process::Child::id).collect();
    running.rounds = 1;
    let mut workloads = Workloads::new(&Config::default()).expect("no entries");
    let mut digests = Digests::new(Metrics::new());
    let mut events = Vec::new();
    while !running.is_done() {
        events.extend(running.step(7, &proc, &mut workloads, &mut digests));
    }
    for child in &mut children {
        child.kill().and_then(|()| child.wait()).expect("it lived");
    }
    // What a child writes to is the caller's.
    events.retain(|event| !matches!(event.body, Body::Running { role: Role::Written, .. }));
    let told: Vec<_> = events
        .iter()
        .map(|event| match &event.body {
            Body::Running { file, role, processes } => {
                (*role, file.path.to_string(), file.identity.ino != 0, processes.len())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let sleep = fs::canonicalize("/bin/sleep").expect("there").display().to_string();
    assert_eq!(told.first(), Some(&(Role::Program, sleep, true, 2)), "{told:?}");
    let libc: Vec<_> = told.iter().filter(|(_, path, ..)| path.contains("libc")).collect();
    assert!(matches!(libc[..], [(Role::Library, _, true, 2)]), "{told:?}");
    assert!(told.iter().all(|(.., processes)| *processes == 2), "{told:?}");
}

fn looked_at(pids: Vec<u32>, found: &Path, meanwhile: impl FnOnce()) -> (Vec<Event>, Counts) {
    let proc = Proc::new(Path::new("/proc"));
    let mut running = Running::new(Flavour::Lsm, &proc, HostRoot::find(&proc).ok());
    (running.pids, running.rounds) = (pids, 1);
    let mut workloads = Workloads::new(&Config::default()).expect("no entries");
    let mut digests = Digests::new(Metrics::new());
    let mut events = Vec::new();
    let is_found = |running: &Running| {
        running.written.iter().any(|written| Path::new(&written.file.path.to_string()) == found)
    };
    while !is_found(&running) && !running.is_done() {
        events.extend(running.step(7, &proc, &mut workloads, &mut digests));
    }
    meanwhile();
    while !running.is_done() {
        events.extend(running.step(7, &proc, &mut workloads, &mut digests));
    }
    (events, running.counts)
}

#[test]
fn what_is_open_for_write_is_judged_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let named = |name: &str| fs::canonicalize(&directory).expect("there").join(name);
    let (file, left, gone) = (named("file"), named("left"), named("gone"));
    for path in [&file, &left, &gone] {
        fs::write(path, "data").expect("a private directory");
    }
    let append = |path: &Path| fs::OpenOptions::new().append(true).open(path).expect("a private directory");
    let read = fs::File::open(&left).expect("a private directory");
    let (one, other, closed, unnamed) = (append(&file), append(&file), append(&left), append(&gone));
    fs::remove_file(&gone).expect("a private directory");
    let (events, counts) = looked_at(vec![std::process::id()], &left, || drop(closed));
    drop((one, other, read, unnamed));
    let told: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Running { file, role: Role::Written, processes } => {
                Some((file.path.to_string(), file.has_writers, processes.len()))
            }
            _ => None,
        })
        .filter(|(path, ..)| Path::new(path).starts_with(named("")))
        .collect();
    assert_eq!(told, [(file.display().to_string(), true, 1)], "two descriptors of one process");
    assert!(counts.written >= 1 && counts.gone >= 1 && counts.left_out == 0, "{counts:?}");
}

#[test]
fn what_is_open_for_write_with_mounts_of_its_own_has_a_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let named = |name: &str| fs::canonicalize(&directory).expect("there").join(name);
    for name in ["a", "b"] {
        fs::create_dir(named(name)).expect("a private directory");
    }
    let script = "mount --bind a b && exec 9>>b/file && echo ready && exec sleep 60";
    let mut child = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .current_dir(&directory)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("unshare of util-linux");
    let mut ready = [0];
    let said = child.stdout.as_mut().expect("a pipe").read(&mut ready).expect("it can be read");
    let (events, _) = looked_at(vec![child.id()], &named("b/file"), || {});
    child.kill().and_then(|()| child.wait()).expect("it lived");
    assert_eq!(said, 1, "it could mount nothing: run the tests as root or with sudo");
    let files = events.iter().filter_map(|event| match &event.body {
        Body::Running { file, role: Role::Written, .. } => Some(file),
        _ => None,
    });
    let file = files.into_iter().find(|file| Path::new(&file.path.to_string()) == named("b/file"));
    let place = file.and_then(|file| file.origin.as_ref()).map(|origin| origin.path.to_string());
    assert!(place.as_ref().is_some_and(|place| place.ends_with("/a/file")), "{place:?}");
}

#[test]
fn a_library_that_is_open_for_write_is_doubted() {
    let file = |path: &str, ino| {
        let mut file = FileRef { path: path.into(), mode: crate::judge::REGULAR, ..FileRef::default() };
        (file.identity.dev, file.identity.ino) = (1, ino);
        file
    };
    let mut running = Running::new(Flavour::Lsm, &Proc::new(Path::new("/proc")), None);
    for (path, ino) in [("/lib/a", 5), ("/lib/b", 6)] {
        let key = ("host".to_owned(), 1, Role::Library, Vec::new(), ino, path.into());
        running.add(key, 0, || Ok(file(path, ino))).expect("no error");
    }
    running.add_written(0, None, "1/fd/1".to_owned(), file("/other/name", 5));
    running.doubt_written();
    let doubted: Vec<_> = running.groups.iter().map(|group| group.file.has_writers).collect();
    assert_eq!(doubted, [true, false]);
    assert!(running.written.iter().all(|written| written.file.has_writers));
}

/// A user has many descriptors of one file, and many files.
#[test]
fn a_step_looks_at_few_descriptors_and_no_file_is_left_out() {
    const FILES: usize = 300;
    let directory = tempfile::tempdir().expect("a directory");
    let path = |n: usize| directory.path().join(n.to_string());
    let open: Vec<_> = (0..FILES).map(|n| fs::File::create(path(n)).expect("a file")).collect();
    let copies: Vec<_> = (0..100).map(|_| open[0].try_clone().expect("a descriptor")).collect();
    let proc = Proc::new(Path::new("/proc"));
    let mut running = Running::new(Flavour::Lsm, &proc, None);
    (running.pids, running.rounds) = (vec![std::process::id()], 1);
    let mut workloads = Workloads::new(&Config::default()).expect("no entries");
    let mut digests = Digests::new(Metrics::new());
    let (mut told, mut most) = (Vec::new(), 0);
    while !running.is_done() {
        if let Some(Event { body: Body::Running { file, role: Role::Written, .. }, .. }) =
            running.step(7, &proc, &mut workloads, &mut digests)
            && file.path.to_string().starts_with(&directory.path().display().to_string())
        {
            told.push(file.path.to_string());
        }
        most = most.max(running.written.iter().map(|written| written.links.len()).sum());
    }
    drop((open, copies));
    told.sort();
    told.dedup();
    assert_eq!((told.len(), running.counts.left_out), (FILES, 0));
    assert!(most > 1 && most <= STEP, "{most}");
}

#[test]
fn a_kernel_thread_is_none_by_its_flags() {
    let directory = tempfile::tempdir().expect("a directory");
    let proc = Proc::new(directory.path());
    let process = |pid: u32, state: char, flags: u64, threads: &[(u32, char, bool)]| {
        let stat =
            |state, flags| format!("{pid} (a) b) {state} 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 0 0 0 0 5");
        for (tid, state, has_exe) in [(pid, state, false)].iter().chain(threads) {
            let own = directory.path().join(tid.to_string());
            fs::create_dir_all(&own).expect("a directory");
            fs::write(own.join("stat"), stat(*state, flags)).expect("a file");
            if *has_exe {
                std::os::unix::fs::symlink("/bin/x", own.join("exe")).expect("a link");
            }
            let thread = directory.path().join(format!("{pid}/task/{tid}"));
            fs::create_dir_all(thread).expect("a directory");
        }
        thread_of(&proc, pid).map_err(|error| error.kind())
    };
    assert_eq!(process(10, 'S', 0x0020_8040, &[]), Ok(None), "a kernel thread");
    assert_eq!(process(20, 'Z', 0x0040_0044, &[]), Ok(None), "a zombie");
    let living = process(30, 'Z', 0x0040_0044, &[(31, 'S', true)]);
    assert_eq!(living, Ok(Some(31)), "its leader has ended, and a thread lives");
    let hidden = process(40, 'Z', 0x0040_0044, &[(41, 'S', false)]);
    assert_eq!(hidden, Err(io::ErrorKind::Other), "it is not looked at, and counted");
}

/// One that is looked at has forked meanwhile.
#[test]
fn a_process_that_is_new_is_looked_at() {
    let proc = Proc::new(Path::new("/proc"));
    let mut running = Running::new(Flavour::Lsm, &proc, None);
    running.pids = vec![std::os::unix::process::parent_id()];
    let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().expect("a process");
    let mut workloads = Workloads::new(&Config::default()).expect("no entries");
    let mut digests = Digests::new(Metrics::new());
    while !running.is_listed() {
        running.step(7, &proc, &mut workloads, &mut digests);
    }
    let is_there = running.tasks.iter().any(|task| task.process.tgid == child.id());
    child.kill().and_then(|()| child.wait()).expect("it lived");
    assert!(is_there);
}
