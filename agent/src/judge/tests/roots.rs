//! Processes of the host that have another root directory than the host.

use super::*;

/// `ldconfig -r DIRECTORY` makes a root directory of it.
#[test]
fn what_a_process_of_the_host_changes_in_a_root_of_its_own_is_not_the_hosts() {
    let mut b = Bench::new();
    b.flavour = Flavour::Lsm;
    let inside = "/var/tmp/x/bin/true";
    {
        let mut world = b.world.0.borrow_mut();
        world.files.extend([(inside, OTHER), ("/bin/true", OTHER)]);
        world.places = vec![(true, inside, inside), (true, "/bin/true", "/bin/true"), (true, "/new", "/new")];
    }
    let change = |op, place: &str, target: Option<&str>| {
        let origin = Origin { path: place.into(), target: target.unwrap_or_default().into() };
        let file = FileRef { origin: Some(Box::new(origin)), ..at("/bin/true") };
        Body::File { op, file, target: None, mode: None }
    };
    let found = b.event(1, change(FileOp::CloseWrite, inside, None));
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Unauthorized, inside));
    assert_eq!(verdicts(&b.event(1, change(FileOp::Unlink, inside, None))), []);
    let found = b.event(1, change(FileOp::CloseWrite, "/bin/true", None));
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/true"));
    // By a new name.
    let origin = Origin { path: "/new".into(), target: inside.into() };
    let file = FileRef { origin: Some(Box::new(origin)), ..at("/bin/true.new") };
    let body = Body::File { op: FileOp::Rename, file, target: Some("/bin/true".into()), mode: None };
    assert_eq!(verdicts(&b.event(1, body)), one(Kind::File, Verdict::Unauthorized, inside));
    // A container's root is its own.
    b.world.0.borrow_mut().workload = Some(container(WALL));
    let found = b.event(1, change(FileOp::CloseWrite, inside, None));
    assert!(
        found.iter().any(|f| f.verdict == Verdict::Modified && f.path == "/bin/true".into()),
        "{found:?}"
    );
}

/// `unshare --map-root-user --mount`, a tmpfs with a `/bin/true`, and `chroot`: anybody may do that.
#[test]
fn a_file_system_that_a_process_has_mounted_for_itself_has_no_name_on_the_host() {
    use FileOp::{Chmod, CloseWrite, OpenWrite, Rename, Unlink};
    let mut b = Bench::new();
    b.flavour = Flavour::Lsm;
    {
        let mut world = b.world.0.borrow_mut();
        world.files.extend([("/bin/true", OTHER), ("/true", OTHER), ("/bin/sh", OTHER)]);
        world.own_mounts = true;
    }
    for (op, target, expected) in [
        (OpenWrite, None, Vec::new()),
        (CloseWrite, None, one(Kind::File, Verdict::Unauthorized, "/bin/true")),
        (Chmod, None, one(Kind::File, Verdict::Unauthorized, "/bin/true")),
        (Rename, Some("/bin/sh"), one(Kind::File, Verdict::Unauthorized, "/bin/sh")),
        (Unlink, None, Vec::new()),
    ] {
        let body = Body::File { op, file: at("/bin/true"), target: target.map(Into::into), mode: None };
        let found = b.event(1, body);
        assert_eq!(verdicts(&found), expected, "{op:?}");
        assert!(found.iter().all(|f| f.severity == Severity::Low), "{op:?}: {found:?}");
    }
    // Moved to where the host sees it: of the file system a part is mounted.
    b.world.0.borrow_mut().places = vec![(true, "/sh", "/bin/sh")];
    let body = Body::File { op: Rename, file: at("/bin/true"), target: Some("/sh".into()), mode: None };
    assert_eq!(verdicts(&b.event(1, body)), one(Kind::File, Verdict::Modified, "/bin/sh"));
    b.world.0.borrow_mut().places.clear();
    // Nor is what runs there the host's.
    let found = b.event(1, Body::Exec { exe: at("/bin/true"), script: None });
    assert_eq!(verdicts(&found), one(Kind::Exec, Verdict::Unauthorized, "/bin/true"));
    // Of a program with a device of its own it cannot be said.
    let own_device = FileRef { own_device: true, ..at("/bin/true") };
    let found = b.event(1, Body::Exec { exe: own_device, script: None });
    assert_eq!(verdicts(&found), one(Kind::Exec, Verdict::Modified, "/bin/true"));
    // A name that proves nothing.
    b.world.0.borrow_mut().unknown_names = true;
    let body = Body::File { op: CloseWrite, file: at("/bin/true"), target: None, mode: None };
    assert_eq!(verdicts(&b.event(1, body)), one(Kind::File, Verdict::Unauthorized, "/bin/true"));
    b.world.0.borrow_mut().unknown_names = false;
    // The host sees it mounted elsewhere; it is the process's root directory.
    b.world.0.borrow_mut().places = vec![(true, "/true", "/bin/true")];
    let body = |op| Body::File { op, file: at("/true"), target: None, mode: None };
    let modified = || one(Kind::File, Verdict::Modified, "/bin/true");
    assert_eq!(verdicts(&b.event(1, body(CloseWrite))), modified());
    assert_eq!(verdicts(&b.event(1, body(Unlink))), modified());
}

/// Also of what is open for write for long, and of what was so before the agent.
#[test]
fn what_is_held_open_in_a_root_of_its_own_is_not_the_hosts() {
    use crate::judge::held::PATIENCE_NS;
    let inside = "/var/tmp/x/bin/true";
    for is_before in [true, false] {
        for (place, expected) in
            [(inside, vec![]), ("/bin/true", one(Kind::File, Verdict::Modified, "/bin/true"))]
        {
            let mut b = Bench::new();
            b.flavour = Flavour::Lsm;
            {
                let mut world = b.world.0.borrow_mut();
                world.files.extend([(inside, OTHER), ("/bin/true", OTHER)]);
                world.places = vec![(true, inside, inside), (true, "/bin/true", "/bin/true")];
            }
            let origin = Origin { path: place.into(), ..Origin::default() };
            let file = FileRef { has_writers: true, origin: Some(Box::new(origin)), ..at("/bin/true") };
            let body = match is_before {
                true => {
                    let processes = vec![ProcessId { tgid: 5, start_ns: 0 }];
                    Body::Running { file, role: Role::Written, processes }
                }
                false => Body::File { op: FileOp::OpenWrite, file, target: None, mode: None },
            };
            let mut found = b.event(5, body);
            b.clock += PATIENCE_NS;
            b.judge.tick(Duration::from_nanos(b.clock));
            found.extend(b.found.take());
            assert_eq!(verdicts(&found), expected, "{place}, before: {is_before}");
        }
    }
}
