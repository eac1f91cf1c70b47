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
    Body::Running { file: at(path), library, processes }
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
    b.judge.running_is_judged();
    assert_eq!(verdicts(&b.connect(6)), one(Kind::Connect, Verdict::Unauthorized, "/opt/x"));
}

/// `/proc` has starts in ticks, the kernel's records to the nanosecond.
#[test]
fn a_process_is_the_same_by_its_exact_start() {
    let mut b = Bench::new();
    b.world.0.borrow_mut().program = Some(at("/bin/true"));
    let body = Body::Running { file: at("/opt/x"), library: true, processes: vec![started(5, 3 * TICK)] };
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
