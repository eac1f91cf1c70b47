//! What ran before the agent, and what a runtime's helper runs.

use super::*;
use crate::event::Place;

/// Nanoseconds of a tick.
const TICK: u64 = 10_000_000;

fn started(tgid: u32, start_ns: u64) -> ProcessId {
    ProcessId { tgid, start_ns }
}

fn running(path: &str, library: bool, processes: &[u32]) -> Body {
    let processes = processes.iter().map(|pid| started(*pid, 0)).collect();
    let role = if library { Role::Library } else { Role::Program };
    Body::Running { file: at(path), role, processes }
}

#[test]
fn what_ran_before_is_told_once_and_said_so() {
    let mut b = Bench::new();
    let found = b.as_root(|b| b.event(7, running("/opt/x", false, &[7, 8, 9])));
    assert_eq!(verdicts(&found), one(Kind::Exec, Verdict::Unauthorized, "/opt/x"));
    assert_eq!(found[0].severity, Severity::Critical);
    let reason = &found[0].reason;
    assert!(reason.ends_with("; it was running before the agent started, in 3 processes"), "{reason}");
    let found = b.event(7, running("/opt/x", true, &[7]));
    assert_eq!(verdicts(&found), one(Kind::Library, Verdict::Unauthorized, "/opt/x"));
    assert!(found[0].reason.ends_with("; it was running before the agent started"), "{}", found[0].reason);
    // The attested are silent.
    assert_eq!(verdicts(&b.event(3, running("/bin/true", false, &[3]))), []);
    assert_eq!(verdicts(&b.event(3, running("/bin/sh", true, &[3]))), []);
}

#[test]
fn later_events_of_what_ran_before_carry_its_verdict() {
    let mut b = Bench::new();
    b.world.0.borrow_mut().program = Some(at("/bin/true"));
    assert_eq!(verdicts(&b.connect(5)), [], "its program is attested, and of its library nobody knows yet");
    assert_eq!(b.event(5, running("/opt/x", true, &[5, 6])).len(), 1);
    for pid in [5, 6] {
        assert_eq!(verdicts(&b.connect(pid)), one(Kind::Connect, Verdict::Unauthorized, "/opt/x"), "{pid}");
    }
    assert_eq!(verdicts(&b.connect(4)), [], "another process");
    b.fork(6, 66);
    assert_eq!(verdicts(&b.connect(66)), one(Kind::Connect, Verdict::Unauthorized, "/opt/x"), "its child");
    assert_eq!(verdicts(&b.exec(6, at("/bin/sh"))), []);
    assert_eq!(verdicts(&b.connect(6)), [], "it runs another program now");
    b.ends(5);
    assert_eq!(verdicts(&b.connect(5)), [], "another process with its number");
}

#[test]
fn what_has_run_another_program_by_then_is_left_out() {
    let mut b = Bench::new();
    assert_eq!(b.exec(5, at("/opt/x")).len(), 1);
    assert_eq!(verdicts(&b.event(5, running("/opt/x", false, &[5]))), [], "its exec was told");
    let found = b.event(6, running("/opt/x", true, &[5, 6]));
    assert_eq!(found.len(), 1, "another has it mapped");
    b.judge.running_is_judged(Flavour::Lsm, 0);
    assert_eq!(b.found.take().len(), 0);
    assert_eq!(verdicts(&b.connect(6)), one(Kind::Connect, Verdict::Unauthorized, "/opt/x"));
}

#[test]
fn what_was_not_looked_at_is_lost() {
    let b = Bench::new();
    b.judge.running_is_judged(Flavour::Lsm, 2);
    let found = b.found.take();
    assert_eq!(verdicts(&found), one(Kind::Lost, Verdict::Loss, ""));
    assert!(
        found[0].reason.starts_with("2 of the processes that ran before the agent"),
        "{}",
        found[0].reason
    );
}

/// `/proc` has starts in ticks, the kernel's records to the nanosecond.
#[test]
fn a_process_is_the_same_by_its_exact_start() {
    let mut b = Bench::new();
    b.world.0.borrow_mut().program = Some(at("/bin/true"));
    let body =
        Body::Running { file: at("/opt/x"), role: Role::Library, processes: vec![started(5, 3 * TICK)] };
    assert_eq!(b.event(5, body).len(), 1);
    for (start_ns, expected) in
        [(3 * TICK + 7, true), (4 * TICK - 1, true), (4 * TICK, false), (2 * TICK, false)]
    {
        let held = b.judge.program_of(started(5, start_ns)).is_some();
        assert_eq!(held, expected, "{start_ns}");
    }
}

#[test]
fn a_runtimes_copy_of_itself_is_as_attested_as_its_file() {
    let memfd = |name: &str| FileRef { path: name.into(), place: Place::Memfd, deleted: true, ..at(name) };
    let helping = Workload { helps: true, ..Workload::clone(&host(Some(IMAGE))) };
    let with_runc = || {
        let (index, document) = sbom_of(&["/usr/sbin/runc"], Some("2026-01-01T00:00:00Z"));
        image(ImageState::Verified { index, documents: vec![document] })
    };
    for (what, image, helps, holds, expected) in [
        ("the host's runc", with_runc(), true, ATTESTED, None),
        ("an impostor with its name", with_runc(), true, OTHER, Some(Verdict::Unauthorized)),
        ("no runtime's program, though attested", verified(), true, ATTESTED, Some(Verdict::Relocated)),
        ("not at work in a container", with_runc(), false, ATTESTED, Some(Verdict::Relocated)),
    ] {
        let mut b = Bench::new();
        b.now(image);
        let name = "/memfd:runc_cloned:/proc/self/exe";
        b.world.0.borrow_mut().files.insert(name, holds);
        b.world.0.borrow_mut().workload = helps.then(|| Arc::new(helping.clone()));
        let found = b.exec(5, memfd(name));
        assert_eq!(found.first().map(|f| f.verdict), expected, "{what}");
    }
}

#[test]
fn findings_name_the_claim_that_is_not_believed() {
    let mut b = Bench::new();
    let claim = "its cgroup is called like docker://1, which is not believed: /x belongs to user 1000";
    let info = WorkloadInfo { claim: claim.into(), ..WorkloadInfo::clone(&host(Some(IMAGE)).info) };
    let workload = Workload { info: Arc::new(info), ..Workload::clone(&host(Some(IMAGE))) };
    b.world.0.borrow_mut().workload = Some(Arc::new(workload));
    let found = b.exec(5, at("/opt/x"));
    assert_eq!(verdicts(&found), one(Kind::Exec, Verdict::Unauthorized, "/opt/x"));
    assert_eq!((found[0].severity, found[0].workload.id.as_str()), (Severity::High, "host"));
    assert!(found[0].reason.ends_with(claim), "{}", found[0].reason);
    assert_eq!(verdicts(&b.exec(6, at("/bin/true"))), []);
}

fn written(path: &str, processes: &[u32]) -> Body {
    let file = FileRef { has_writers: true, ..at(path) };
    let processes = processes.iter().map(|pid| started(*pid, 0)).collect();
    Body::Running { file, role: Role::Written, processes }
}

/// As the kernel has it.
fn with_generation(path: &str) -> FileRef {
    let mut file = at(path);
    file.identity.generation = 77;
    file
}

#[test]
fn what_was_open_for_write_before_is_looked_at_and_watched() {
    use crate::judge::held::PATIENCE_NS;
    for flavour in [Flavour::Lsm, Flavour::Tracepoint] {
        let mut b = Bench::new();
        b.flavour = flavour;
        let wait = |b: &mut Bench, ns: u64| {
            b.clock += ns;
            b.judge.tick(Duration::from_nanos(b.clock));
            b.found.take()
        };
        // What the SBOM does not have is nobody's business; what is as it says is silent, and not forgotten.
        assert_eq!(verdicts(&b.event(5, written("/opt/x", &[5]))), []);
        assert_eq!(verdicts(&b.event(5, written("/bin/true", &[5, 6]))), []);
        b.world.0.borrow_mut().files.insert("/bin/true", OTHER);
        let found = wait(&mut b, PATIENCE_NS);
        assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/true"));
        let words = "; it has been open for write since before the agent started, so this may not be all";
        assert!(found[0].reason.ends_with(words), "{}", found[0].reason);
        assert_eq!((found[0].operation, found[0].severity), (Some(FileOp::OpenWrite), Severity::High));
        // What was changed by then is told at once, and once for all that have it open.
        b.world.0.borrow_mut().files.insert("/bin/sh", OTHER);
        let found = b.event(5, written("/bin/sh", &[5]));
        assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/sh"));
        assert_eq!(verdicts(&b.event(6, written("/bin/sh", &[6]))), []);
        // One of several closes it, and the last. The kernel knows its generation.
        b.world.0.borrow_mut().files.insert("/bin/sh", 7);
        b.clock += PATIENCE_NS;
        let file = FileRef { has_writers: true, ..with_generation("/bin/sh") };
        let found = b.event(5, Body::File { op: FileOp::CloseWrite, file, target: None, mode: None });
        assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/sh"));
        let close = |path| Body::File {
            op: FileOp::CloseWrite,
            file: with_generation(path),
            target: None,
            mode: None,
        };
        let found = b.event(5, close("/bin/sh"));
        assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/sh"));
        // On overlayfs not even the device is the kernel's, but the name is.
        let mut elsewhere = with_generation("/bin/true");
        elsewhere.identity.dev = 9;
        let close = Body::File { op: FileOp::CloseWrite, file: elsewhere, target: None, mode: None };
        assert_eq!(b.event(5, close).len(), 1);
        b.world.0.borrow_mut().files.extend([("/bin/true", 8), ("/bin/sh", 8)]);
        assert_eq!(verdicts(&wait(&mut b, 100 * PATIENCE_NS)), [], "both are closed");
    }
}

/// A user's own root directory has each path in it, and on a file system of his own the numbers are his.
#[test]
fn no_watch_of_what_was_open_before_is_taken_by_another_file_of_the_same_path() {
    use crate::judge::held::PATIENCE_NS;
    let (own, listed) = (9, 1);
    for (what, number) in [("another number", 1), ("the same number", 0)] {
        for first in [own, listed] {
            let mut b = Bench::new();
            b.flavour = Flavour::Lsm;
            b.world.0.borrow_mut().own_root = Some(own);
            let of = |dev, generation, has_writers| {
                let mut file = FileRef { has_writers, ..at("/bin/true") };
                (file.identity.dev, file.identity.generation) = (dev, generation);
                file.identity.ino += if dev == own { number } else { 0 };
                file
            };
            let held = |b: &Bench| b.judge.held.with(|held| held.devices());
            for dev in [first, own + listed - first] {
                let (role, processes) = (Role::Written, vec![started(5, 0)]);
                b.event(5, Body::Running { file: of(dev, 0, true), role, processes });
            }
            assert_eq!(held(&b), [listed, own], "{what}: both are watched");
            // Another that is opened later has a watch of its own, and its close takes only that.
            let file = |op, file| Body::File { op, file, target: None, mode: None };
            b.event(5, file(FileOp::CloseWrite, of(own, 0, false)));
            assert_eq!(held(&b), [listed], "{what}");
            b.event(5, file(FileOp::OpenWrite, of(own, 77, true)));
            assert_eq!(held(&b), [listed, own], "{what}");
            b.event(5, file(FileOp::CloseWrite, of(own, 77, false)));
            assert_eq!(held(&b), [listed], "{what}");
            b.event(5, file(FileOp::CloseWrite, of(own, 78, false)));
            assert_eq!(held(&b), [listed], "{what}: of a file that is not known");
            b.world.0.borrow_mut().files.insert("/bin/true", OTHER);
            b.clock += PATIENCE_NS;
            b.judge.tick(Duration::from_nanos(b.clock));
            assert_eq!(verdicts(&b.found.take()), one(Kind::File, Verdict::Modified, "/bin/true"), "{what}");
            b.event(5, file(FileOp::CloseWrite, of(listed, 77, false)));
            assert_eq!(held(&b), [0_u32; 0], "{what}");
        }
    }
}

/// No tracepoint sees what an exit closes. `/proc` has the process's start in ticks.
#[test]
fn what_was_open_for_write_before_is_judged_when_its_process_exits() {
    let mut b = Bench::new();
    let file = FileRef { has_writers: true, ..at("/bin/true") };
    let body = Body::Running { file, role: Role::Written, processes: vec![started(5, 3 * TICK)] };
    assert_eq!(verdicts(&b.event(5, body)), []);
    b.world.0.borrow_mut().files.insert("/bin/true", OTHER);
    let task = Task { process: started(5, 3 * TICK + 7), pid: 5, ..Task::default() };
    let exit = Event { time_ns: 8, flavour: Flavour::Tracepoint, task, body: Body::Exit { status: 0 } };
    b.judge.event(&exit);
    let found = b.found.take();
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/true"));
    assert_eq!(found[0].operation, Some(FileOp::CloseWrite));
    b.judge.event(&exit);
    assert_eq!(verdicts(&b.found.take()), [], "it has ended");
}

#[test]
fn more_that_was_open_for_write_before_than_is_looked_at_is_undetermined() {
    use crate::judge::held::FILES;
    let mut b = Bench::new();
    b.flavour = Flavour::Lsm;
    b.world.0.borrow_mut().rest = Some(ATTESTED);
    for n in 0..=FILES {
        let mut file = FileRef { has_writers: true, ..at("/bin/true") };
        file.identity.ino = 1_000_000 + n as u64;
        // Other workloads have other files at the same path.
        let info = WorkloadInfo { id: n.to_string(), ..WorkloadInfo::default() };
        let workload = Workload { info: Arc::new(info), ..Workload::clone(&container(1)) };
        b.world.0.borrow_mut().workload = Some(Arc::new(workload));
        let processes = vec![started(5, 0)];
        let found = b.event(5, Body::Running { file, role: Role::Written, processes });
        let told = found.iter().filter(|f| f.verdict == Verdict::Undetermined).count();
        assert_eq!(told, usize::from(n == FILES), "{n}: {:?}", verdicts(&found));
    }
}
