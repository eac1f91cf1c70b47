use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use smallvec::SmallVec;

use super::*;
use crate::event::FilePath;

const A: &str = "05c48c82caff3be3d7f1e896981dd410e81487538936914f32b624d168de9db0";
const B: &str = "99b40d83503dd15f7f68348b43d8a310641357635358debfb6a8dcb8b571cba5";
const SECOND: u64 = 1_000_000_000;

/// A `/proc` and a cgroup2 tree of our own.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new(hybrid: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let machine = Self { dir };
        fs::create_dir_all(machine.path("proc/self")).expect("proc");
        fs::create_dir_all(machine.path("cgroup/system.slice")).expect("cgroup");
        let mut table = format!("1 0 0:1 / {} rw - cgroup2 cgroup2 rw\n", machine.path("cgroup").display());
        if hybrid {
            fs::create_dir_all(machine.path("memory")).expect("memory");
            table +=
                &format!("2 0 0:2 / {} rw - cgroup cgroup rw,memory\n", machine.path("memory").display());
        }
        fs::write(machine.path("proc/self/mountinfo"), table).expect("mountinfo");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name.trim_start_matches('/'))
    }

    fn proc(&self) -> Proc {
        Proc::new(&self.path("proc"))
    }

    fn workloads(&self, config: &str) -> Workloads {
        let config = toml::from_str(config).expect("a configuration");
        let mut workloads =
            Workloads::with_proc(&config, &self.path("proc"), Host::default()).expect("workloads");
        workloads.hierarchies.root = nix::unistd::geteuid().as_raw();
        workloads
    }

    /// A v1 cgroup of the hierarchy with the memory controller.
    fn memory(&self, path: &str) {
        fs::create_dir_all(self.path("memory").join(path.trim_start_matches('/'))).expect("a cgroup");
    }

    /// A process in cgroups of those lines; mount namespace 7, pid namespace 8.
    fn process(&self, pid: u32, ppid: u32, ticks: u64, cgroup: &str) {
        let dir = self.path(&format!("proc/{pid}"));
        fs::create_dir_all(dir.join("ns")).expect("a process");
        let stat = format!("{pid} (p{pid}) S {ppid} 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0\n");
        fs::write(dir.join("stat"), stat).expect("stat");
        fs::write(dir.join("status"), "Name:\tp\nUid:\t1000\t0\t0\t0\n").expect("status");
        fs::write(dir.join("cgroup"), cgroup).expect("cgroup");
        for (link, to) in
            [("exe", format!("/bin/p{pid}")), ("ns/mnt", "mnt:[7]".into()), ("ns/pid", "pid:[8]".into())]
        {
            let link = dir.join(link);
            let _ = fs::remove_file(&link);
            symlink(to, link).expect("a link");
        }
    }

    fn gone(&self, pid: u32) {
        fs::remove_dir_all(self.path(&format!("proc/{pid}"))).expect("removed");
    }

    /// Makes a v2 cgroup with these processes; its id.
    fn cgroup(&self, path: &str, procs: &str) -> u64 {
        let dir = self.path("cgroup").join(path.trim_start_matches('/'));
        fs::create_dir_all(&dir).expect("a cgroup");
        fs::write(dir.join("cgroup.procs"), procs).expect("cgroup.procs");
        fs::metadata(dir).expect("a cgroup").ino()
    }
}

/// A task as the kernel would record it: its start lies 3 ms into the tick.
fn task(tgid: u32, ppid: u32, ticks: u64, cgroup_id: u64) -> Task {
    Task {
        process: ProcessId { tgid, start_ns: ticks * 10_000_000 + 3_000_000 },
        pid: tgid,
        ppid,
        cgroup_id,
        mnt_ns: 7,
        pid_ns: 8,
        comm: SmallVec::from_slice(format!("p{tgid}").as_bytes()),
        ..Task::default()
    }
}

fn digest(c: char) -> String {
    c.to_string().repeat(64)
}

#[test]
fn unified_by_cgroup_id() {
    let machine = Machine::new(false);
    let id = machine.cgroup(&format!("/system.slice/docker-{A}.scope"), "30\n31\n");
    let host = machine.cgroup("/system.slice/cron.service", "");
    machine.process(30, 1, 500, &format!("0::/system.slice/docker-{A}.scope\n"));
    machine.process(31, 30, 600, "0::/\n");
    machine.process(40, 1, 700, "0::/system.slice/cron.service\n");
    let config =
        format!("[[workload]]\ncontainer = \"{}\"\nname = \"web\"\nimage = \"{}\"\n", &A[..12], digest('a'));
    let mut workloads = machine.workloads(&config);

    let web = workloads.resolve(&task(30, 1, 500, id));
    assert_eq!(web.info.id, format!("docker://{A}"));
    assert_eq!(web.info.name, "web");
    assert_eq!(web.info.image_digest, format!("sha256:{}", digest('a')));
    assert_eq!(web.image.as_ref().and_then(|i| i.image), digest('a').parse().ok());
    assert!(!web.is_host);
    assert_eq!(web.root, Some(ProcessId { tgid: 30, start_ns: 5 * SECOND }));
    let age = SystemTime::now().duration_since(web.started.expect("a start")).expect("in the past");
    let boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).expect("a clock"));
    assert!(
        boot.abs_diff(age).abs_diff(Duration::from_secs(5)) < Duration::from_secs(1),
        "{age:?} of {boot:?}"
    );

    // Known by now: the process need not be there.
    assert!(Arc::ptr_eq(&web, &workloads.resolve(&task(99, 1, 900, id))));
    assert!(workloads.resolve(&task(40, 1, 700, host)).is_host);
    assert_eq!(workloads.stats(), Stats::default());

    // A process that was gone, in a cgroup that is there.
    let other = machine.cgroup(&format!("/kubepods/podc704ef4c297ab11032b83ce52cbfc87b/crio-{B}/x"), "");
    let found = workloads.resolve(&task(77, 1, 900, other));
    assert_eq!((found.info.id.as_str(), found.started), (format!("cri-o://{B}").as_str(), None));
    assert_eq!(found.info.pod_uid, "c704ef4c297ab11032b83ce52cbfc87b");
    assert_eq!(workloads.stats().scans, 1);

    // A process that moved since is found where the event saw it.
    let moved = machine.cgroup(&format!("/docker/{B}"), "");
    let found = workloads.resolve(&task(40, 1, 700, moved));
    assert_eq!(found.info.id, format!("docker://{B}"));

    // Neither: unknown, and searched for only once.
    for _ in 0..2 {
        let found = workloads.resolve(&task(78, 1, 900, u64::MAX));
        assert!(found.is_unknown() && !found.is_host, "{found:?}");
    }
    assert_eq!(workloads.stats(), Stats { unresolved: 2, scans: 3, ..Stats::default() });
}

#[test]
fn hybrid_by_process() {
    let machine = Machine::new(true);
    let v1 = format!("3:memory:/docker/{A}\n1:name=systemd:/\n0::/\n");
    machine.process(1, 0, 1, "3:memory:/\n0::/\n");
    machine.process(30, 1, 500, &v1);
    machine.process(50, 1, 510, "3:memory:/\n0::/\n");
    fs::create_dir_all(machine.path(&format!("memory/docker/{A}"))).expect("a cgroup");
    fs::write(machine.path(&format!("memory/docker/{A}/cgroup.procs")), "30\n").expect("cgroup.procs");
    let mut workloads = machine.workloads("");

    let container = workloads.resolve(&task(30, 1, 500, 1));
    assert_eq!(container.info.id, format!("docker://{A}"));
    assert_eq!(container.root.map(|r| r.tgid), Some(30));
    assert!(container.image.is_none());

    // A child that was gone: its parent's, if it had the same namespaces.
    let child = task(31, 30, 600, 1);
    assert!(Arc::ptr_eq(&container, &workloads.resolve(&child)));
    assert_eq!(workloads.stats().inherited, 1);
    let elsewhere = Task { mnt_ns: 9, ..task(32, 30, 600, 1) };
    assert!(workloads.resolve(&elsewhere).is_unknown());
    // The parent is younger than the child: another process has its number.
    assert!(workloads.resolve(&task(33, 30, 400, 1)).is_unknown());
    // A parent that was never asked lives.
    assert!(workloads.resolve(&task(51, 50, 700, 1)).is_host);
    // A number that was given on: the event is not of the process that has it now.
    assert!(workloads.resolve(&task(50, 4000, 200, 1)).is_unknown());

    // Between fork and exec the runtime moves it into a container.
    assert!(workloads.resolve(&task(50, 1, 510, 1)).is_host);
    machine.process(50, 1, 510, &v1);
    assert!(workloads.resolve(&task(50, 1, 510, 1)).is_host);
    workloads.ask_again(task(50, 1, 510, 1).process);
    assert!(Arc::ptr_eq(&container, &workloads.resolve(&task(50, 1, 510, 1))));
    // Gone before it could be asked again: what was known counts, unless it changed its namespaces.
    let gone = child.clone();
    workloads.ask_again(gone.process);
    assert!(workloads.resolve(&Task { mnt_ns: 9, ..gone.clone() }).is_unknown());
    assert!(!workloads.resolve(&gone).is_unknown());
    // What its exit closes is still its own; its children are not there any more.
    workloads.ended(gone.process);
    assert!(Arc::ptr_eq(&container, &workloads.resolve(&Task { mnt_ns: 0, ..gone.clone() })));
    assert!(workloads.resolve(&task(34, gone.process.tgid, 650, 1)).is_unknown());
    assert_eq!(workloads.stats().unresolved, 5);
}

#[test]
fn hybrid_by_v2_path() {
    let machine = Machine::new(true);
    let id = machine.cgroup("/web", "60\n");
    machine.process(60, 1, 500, "3:memory:/\n0::/web\n");
    let config = format!("[[workload]]\ncgroup = \"/w*\"\nname = \"runc\"\nimage = \"{}\"\n", digest('b'));
    let mut workloads = machine.workloads(&config);
    let web = workloads.resolve(&task(60, 1, 500, id));
    assert_eq!((web.info.id.as_str(), web.info.name.as_str()), ("cgroup:///web", "runc"));
    // Its short-lived programs too.
    assert!(Arc::ptr_eq(&web, &workloads.resolve(&Task { mnt_ns: 70, ..task(61, 60, 501, id) })));

    workloads.reload(&Config::default()).expect("an empty configuration");
    assert!(workloads.resolve(&task(60, 1, 500, id)).is_host);
}

/// The configuration knows both containers.
fn configured() -> String {
    let entry = |id, image| format!("[[workload]]\ncontainer = \"{id}\"\nimage = \"{}\"\n", digest(image));
    format!("[host]\nimage = \"{}\"\n{}{}", digest('1'), entry(A, '2'), entry(B, '3'))
}

#[test]
fn a_name_that_root_did_not_give_changes_no_verdict() {
    for hybrid in [false, true] {
        let machine = Machine::new(hybrid);
        let path = format!("/docker-{A}.scope");
        let id = machine.cgroup(&path, "30\n");
        machine.process(30, 1, 500, &format!("0::{path}\n"));
        for config in [String::new(), format!("[host]\nimage = \"{}\"\n", digest('1')), configured()] {
            let mut workloads = machine.workloads(&config);
            // The tree is of another user than root.
            workloads.hierarchies.root += 1;
            let host = workloads.host();
            let found = workloads.resolve(&task(30, 1, 500, id));
            assert!(found.is_host && found.image == host.image, "{found:?}");
            let mut info = WorkloadInfo::clone(&found.info);
            let claim = std::mem::take(&mut info.claim);
            assert_eq!(info, *host.info, "the same workload");
            let user = nix::unistd::geteuid();
            let expected = format!(
                "its cgroup is called like docker://{A}, which is not believed: {path} belongs to user {user}"
            );
            assert_eq!(claim, expected);
            // Not even where root named it before it was given away, nor by a pattern.
            workloads.hierarchies.root -= 1;
            let real = machine.cgroup(&format!("/docker/{A}"), "");
            assert_eq!(workloads.resolve(&task(99, 1, 900, real)).info.id, format!("docker://{A}"));
        }
    }
    let machine = Machine::new(false);
    let id = machine.cgroup("/user.slice/user-1000.slice/user@1000.service/web", "");
    machine.process(30, 1, 500, "0::/user.slice/user-1000.slice/user@1000.service/web\n");
    let config = format!("[[workload]]\ncgroup = \"/**/web\"\nimage = \"{}\"\n", digest('2'));
    let found = machine.workloads(&config).resolve(&task(30, 1, 500, id));
    assert!(found.is_host && found.info.claim.contains("cgroup:///user.slice"), "{found:?}");
    assert!(found.info.claim.contains("user-1000.slice, where a user may make cgroups"), "{found:?}");
}

#[test]
fn what_root_named_wins_over_what_others_did() {
    let machine = Machine::new(true);
    machine.memory(&format!("/docker/{A}"));
    let mine = format!("/user.slice/user-1000.slice/user@1000.service/docker-{B}.scope");
    let id = machine.cgroup(&mine, "");
    machine.process(30, 1, 500, &format!("3:memory:/docker/{A}\n0::{mine}\n"));
    let mut workloads = machine.workloads(&configured());
    let found = workloads.resolve(&task(30, 1, 500, id));
    assert_eq!((found.info.id.as_str(), found.info.claim.as_str()), (format!("docker://{A}").as_str(), ""));
}

#[test]
fn a_container_stays_itself_whatever_cgroups_it_makes() {
    let machine = Machine::new(true);
    machine.memory(&format!("/docker/{A}/libpod-conmon-x"));
    let inside = [
        format!("3:memory:/docker/{A}/libpod-conmon-x\n0::/\n"),
        format!("3:memory:/docker/{A}\n0::/docker/{A}/docker-{B}.scope\n"),
    ];
    let id = machine.cgroup(&format!("/docker/{A}/docker-{B}.scope"), "");
    let mut workloads = machine.workloads(&configured());
    for (pid, lines) in (40..).zip(inside) {
        machine.process(pid, 1, 500, &lines);
        assert_eq!(workloads.resolve(&task(pid, 1, 500, id)).info.id, format!("docker://{A}"), "{lines}");
    }
    // Where it is in two at once nobody knows which it is.
    let other = machine.cgroup(&format!("/docker/{B}"), "");
    machine.process(50, 1, 500, &format!("3:memory:/docker/{A}\n0::/docker/{B}\n"));
    assert!(workloads.resolve(&task(50, 1, 500, other)).is_unknown());
}

#[test]
fn what_cannot_be_seen_is_neither_the_host_nor_a_container() {
    let machine = Machine::new(false);
    let unseen = [
        format!("0::/../../docker-{A}.scope\n"),
        format!("0::/{}/docker-{A}.scope\n", "x".repeat(4096)),
        format!("0::/gone/docker-{A}.scope\n"),
    ];
    let mut workloads = machine.workloads(&configured());
    for (pid, lines) in (40..).zip(unseen) {
        machine.process(pid, 1, 500, &lines);
        assert!(workloads.resolve(&task(pid, 1, 500, 77)).is_unknown(), "{lines}");
    }
}

#[test]
fn searches_have_a_share_of_the_time() {
    let machine = Machine::new(false);
    let id = machine.cgroup(&format!("/docker/{A}"), "");
    let mut workloads = machine.workloads("");
    workloads.searching.spend(Duration::from_secs(1), Instant::now());
    assert!(workloads.resolve(&task(77, 1, 900, id)).is_unknown(), "it is not said whose it is");
    assert_eq!(workloads.stats(), Stats { unresolved: 1, scans_put_off: 1, ..Stats::default() });
    workloads.searching = Allowance::new(Instant::now());
    assert_eq!(workloads.resolve(&task(77, 1, 900, id)).info.id, format!("docker://{A}"));
}

#[test]
fn first_entry_counts_and_the_host_has_its_image() {
    let machine = Machine::new(false);
    let id = machine.cgroup(&format!("/docker/{A}"), "");
    let config = format!(
        "[host]\nimage = \"{}\"\n[[workload]]\ncgroup = \"/docker/**\"\nimage = \"{}\"\n[[workload]]\ncontainer = \"{A}\"\nimage = \"{}\"\n",
        digest('1'),
        digest('2'),
        digest('3')
    );
    let mut workloads = machine.workloads(&config);
    let container = workloads.resolve(&task(30, 1, 500, id));
    assert_eq!(container.image.as_ref().and_then(|i| i.image), digest('2').parse().ok());
    let host = workloads.host();
    assert_eq!(
        (host.info.id.as_str(), host.image.as_ref().and_then(|i| i.key)),
        (HOST, digest('1').parse().ok())
    );
    assert!(!host.info.name.is_empty());
}

#[test]
fn bad_entries_are_refused() {
    let image = digest('a');
    for (entry, expected) in [
        ("", "found neither"),
        ("container = \"0123456789ab\"\ncgroup = \"/a\"", "found both"),
        ("container = \"0123456789a\"", "at least 12"),
        ("container = \"docker://0123456789a\"", "leave out"),
        ("cgroup = \"docker/*\"", "begins with"),
    ] {
        let text = format!(
            "[[workload]]\ncgroup = \"/ok\"\nimage = \"{image}\"\n[[workload]]\nname = \"x\"\nimage = \"{image}\"\n{entry}\n"
        );
        let config: Config = toml::from_str(&text).expect("TOML");
        let error = Workloads::new(&config).expect_err("must be refused").to_string();
        assert!(
            error.starts_with("[[workload]] number 2 (x): expected ") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn ancestry_ends_at_the_container() {
    let machine = Machine::new(false);
    let id = machine.cgroup(&format!("/docker/{A}"), "30\n");
    let host = machine.cgroup("/system.slice", "");
    machine.process(1, 0, 1, "0::/system.slice\n");
    machine.process(20, 1, 400, "0::/system.slice\n");
    machine.process(30, 20, 500, &format!("0::/docker/{A}\n"));
    fs::create_dir_all(machine.path("proc/55")).expect("a process that is half gone");
    let mut workloads = machine.workloads("");
    let mut processes = Processes::with_proc(machine.proc());
    processes.seed(&mut workloads).expect("seeded");
    assert_eq!(processes.stats(), ProcessesStats { living: 3, ..ProcessesStats::default() });

    // The seeded start is in ticks, the event's exact.
    let (init, sh, ls) = (task(30, 20, 500, id), task(31, 30, 600, id), task(32, 31, 601, id));
    let container = workloads.resolve(&init);
    processes.on_fork(&sh, init.process, &container);
    processes.on_exec(&sh, &FilePath::from("/bin/sh"), &container);
    processes.on_fork(&ls, sh.process, &container);
    let names = |list: &[crate::finding::ProcessInfo]| -> Vec<(u32, String)> {
        list.iter().map(|p| (p.id.tgid, p.exe.to_string())).collect()
    };
    assert_eq!(
        names(&processes.ancestry(ls.process, 16)),
        [(31, "/bin/sh".to_owned()), (30, "/bin/p30".to_owned())],
        "the shim and process 1 are not the container's"
    );
    assert_eq!(processes.ancestry(ls.process, 1).len(), 1);
    assert_eq!(
        processes.get(ls.process).map(|p| (*p.exe).clone()),
        Some(FilePath::from("/bin/sh")),
        "as its parent until it execs"
    );
    assert_eq!(
        processes.get(init.process).map(|p| (p.uid, p.euid, p.comm)),
        Some((1000, 0, "p30".to_owned()))
    );

    // The host's go up to process 1.
    let cron = task(21, 20, 700, host);
    let on_host = workloads.resolve(&task(20, 1, 400, host));
    processes.on_fork(&cron, task(20, 1, 400, host).process, &on_host);
    assert_eq!(processes.ancestry(cron.process, 16).iter().map(|p| p.id.tgid).collect::<Vec<_>>(), [20, 1]);

    // An exited parent is still an ancestor; one whose number was given on is not.
    processes.on_exit(sh.process);
    assert_eq!(processes.ancestry(ls.process, 16).len(), 2);
    processes.on_fork(&task(31, 1, 900, host), task(1, 0, 1, host).process, &on_host);
    assert!(processes.ancestry(ls.process, 16).is_empty());
    assert_eq!(processes.stats().exited, 0);
}

#[test]
fn a_missed_exec_heals() {
    let machine = Machine::new(false);
    let host = machine.cgroup("/system.slice", "");
    machine.process(20, 1, 400, "0::/system.slice\n");
    let mut workloads = machine.workloads("");
    let mut processes = Processes::with_proc(machine.proc());
    let before = task(20, 1, 400, host);
    let workload = workloads.resolve(&before);
    processes.note(&before, &workload);
    assert_eq!(processes.get(before.process).map(|p| (*p.exe).clone()), Some(FilePath::from("/bin/p20")));

    let link = machine.path("proc/20/exe");
    fs::remove_file(&link).expect("removed");
    symlink("/bin/other", &link).expect("a link");
    processes.note(&before, &workload);
    assert_eq!(processes.get(before.process).map(|p| (*p.exe).clone()), Some(FilePath::from("/bin/p20")));
    let after = Task { comm: SmallVec::from_slice(b"other\n"), ..before.clone() };
    let thread = Task { pid: 24, ..after.clone() };
    processes.note(&thread, &workload);
    assert_eq!(
        processes.get(before.process).map(|p| p.comm),
        Some("p20".to_owned()),
        "a thread's name is its own"
    );
    processes.note(&after, &workload);
    let healed = processes.get(before.process).expect("a process");
    assert_eq!((healed.comm.as_str(), &*healed.exe), ("other\\x0a", &FilePath::from("/bin/other")));

    // Gone before it was asked: what the event says.
    machine.gone(20);
    let gone = task(90, 20, 950, host);
    processes.note(&gone, &workload);
    assert_eq!(processes.get(gone.process).map(|p| (p.comm, p.ppid)), Some(("p90".to_owned(), 20)));
    assert_eq!(processes.ancestry(gone.process, 16).len(), 1);
    assert_eq!(processes.stats().healed, 2);
}

#[test]
fn the_exited_are_bounded() {
    let machine = Machine::new(false);
    let mut processes = Processes::with_proc(machine.proc());
    let host = machine.workloads("").host();
    let parent = ProcessId { tgid: 1, start_ns: 1 };
    for n in 0..u32::try_from(MAX_EXITED).expect("small") + 100 {
        let child = task(1000 + n, 1, 1000 + u64::from(n), 1);
        processes.on_fork(&child, parent, &host);
        processes.on_exit(child.process);
        processes.on_exit(child.process);
    }
    assert_eq!(processes.stats(), ProcessesStats { exited: MAX_EXITED, ..ProcessesStats::default() });
    assert!(processes.get(task(1000, 1, 1000, 1).process).is_none());
    assert!(processes.get(task(1100, 1, 1100, 1).process).is_some());
}

#[test]
fn the_living_are_bounded() {
    let machine = Machine::new(false);
    let mut processes = Processes::with_proc(machine.proc());
    let host = machine.workloads("").host();
    let parent = ProcessId { tgid: 1, start_ns: 1 };
    let most = u32::try_from(MAX_PROCESSES).expect("small");
    for n in 0..most {
        processes.on_fork(&task(1000 + n, 1, 1000, 1), parent, &host);
    }
    assert_eq!(processes.stats().living, MAX_PROCESSES);
    // None of them is in /proc: their exits were missed, and the next one makes room.
    processes.on_fork(&task(5, 1, 1000, 1), parent, &host);
    assert_eq!(processes.stats(), ProcessesStats { living: 1, ..ProcessesStats::default() });
}

#[test]
fn this_machine() {
    let mut workloads = Workloads::new(&Config::default()).expect("workloads");
    let mut processes = Processes::new();
    processes.seed(&mut workloads).expect("seeded");
    let stat = Proc::new(Path::new("/proc")).stat(std::process::id()).expect("own stat");
    let me = ProcessId { tgid: std::process::id(), start_ns: stat.start_ns };
    let info = processes.get(me).expect("this process");
    assert_eq!(
        info.exe.as_bytes(),
        std::env::current_exe().expect("own path").as_os_str().as_encoded_bytes()
    );
    let parents = processes.ancestry(me, 16);
    assert_eq!(parents.first().map(|p| p.id.tgid), Some(std::os::unix::process::parent_id()));
}
