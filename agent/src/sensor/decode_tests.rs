use muster_common::{COMM_LEN, SHA256_LEN};
use zerocopy::{FromZeros, IntoBytes};

use super::*;

fn header<T>(kind: u16) -> Header {
    Header { size: u32::try_from(size_of::<T>()).unwrap(), kind, hook: hook::LSM, reserved: 0, time_ns: 7 }
}

fn task() -> muster_common::Task {
    let mut comm = [0; COMM_LEN];
    comm[..4].copy_from_slice(b"bash");
    muster_common::Task {
        start_ns: 5,
        cgroup_id: 6,
        pid: 11,
        tgid: 10,
        ppid: 9,
        uid: 1000,
        gid: 1001,
        mnt_ns: 12,
        pid_ns: 13,
        euid: 0,
        comm,
    }
}

/// The record and its paths, as they lie in a ring.
fn bytes<T: IntoBytes + Immutable>(head: &T, paths: &[u8]) -> Vec<u8> {
    let mut bytes = [head.as_bytes(), paths].concat();
    let size = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&size.to_ne_bytes());
    bytes
}

const BASH: &[u8] = b"bash\0bin\0usr\0";

/// Of [`BASH`].
fn exec_record() -> ExecRecord {
    let mut r = ExecRecord::new_zeroed();
    r.header = header::<ExecRecord>(kind::EXEC);
    r.task = task();
    r.exe.flags = file_flag::PRESENT;
    r.exe.ino = 42;
    r.exe.i_version = 0b101;
    r.exe.path_len = 13;
    r
}

/// Bytes, stated length, flags, and what they give.
type Row = (&'static [u8], u16, u16, Result<&'static str, Malformed>);

#[test]
fn paths() {
    const TRUNCATED: u16 = path_flag::TRUNCATED;
    const BY_NAME: u16 = path_flag::BY_NAME;
    let refused = |len, reason| Err(Malformed::Path { kind: Kind::Exec, len, reason });
    #[rustfmt::skip]
    let rows: [Row; 18] = [
        (b"bash\0bin\0usr\0", 13, 0, Ok("/usr/bin/bash")),
        (b"init\0", 5, 0, Ok("/init")),
        (b"", 0, 0, Ok("")),
        (b"a\0b\0", 4, TRUNCATED, Ok("b/a")),
        (b"a\0", 2, TRUNCATED, Ok("a")),
        (b"memfd:../usr/bin/sh\0", 20, 0, Ok(r"/memfd:..\x2fusr\x2fbin\x2fsh")),
        (b"./run.sh", 8, BY_NAME, Ok("./run.sh")),
        (b"./run.sh\0", 9, BY_NAME, Ok("./run.sh")),
        (b"./run.sh\0src\0home\0", 18, BY_NAME, Ok("/home/src/./run.sh")),
        (b"run.sh\0src\0", 11, BY_NAME | TRUNCATED, Ok("run.sh")),
        (b"run.sh\0src\0", 11, BY_NAME | path_flag::UNREACHABLE, Ok("run.sh")),
        (b"run\0.sh", 7, BY_NAME, refused(7, "the last name does not end with NUL")),
        (b"", 0, BY_NAME, Ok("")),
        (b"bash\0bin", 8, 0, refused(8, "the last name does not end with NUL")),
        (b"bash\0\0usr\0", 10, 0, refused(10, "empty name")),
        (b"\0", 1, 0, refused(1, "empty name")),
        (b"\0a\0", 3, 0, refused(3, "empty name")),
        (b"a\0", 3, 0, refused(3, "longer than what the record holds of it")),
    ];
    for (bytes, len, flags, expected) in rows {
        let expected = expected.map(FilePath::from);
        assert_eq!(path(Kind::Exec, len, flags, bytes), expected, "{:?}", bytes.escape_ascii().to_string());
    }
}

#[test]
fn exec_with_and_without_script() {
    let mut r = exec_record();
    let event = decode(&bytes(&r, BASH)).unwrap();
    assert_eq!((event.time_ns, event.flavour, event.kind()), (7, Flavour::Lsm, Kind::Exec));
    assert_eq!(event.task.process, ProcessId { tgid: 10, start_ns: 5 });
    assert_eq!((event.task.pid, event.task.ppid, &event.task.comm[..]), (11, 9, &b"bash"[..]));
    let Body::Exec { exe, script: None } = event.body else { panic!("{event:?}") };
    assert_eq!((exe.path, exe.identity.ino, exe.identity.i_version), ("/usr/bin/bash".into(), 42, 0b10));
    assert_eq!(exe.digest, None);

    r.script.flags = file_flag::PRESENT;
    r.script.path_flags = path_flag::BY_NAME;
    r.script.ino = 9;
    r.script.path_len = 7;
    let both = bytes(&r, b"bash\0bin\0usr\0./x.sh\0");
    let Body::Exec { exe, script: Some(script) } = decode(&both).unwrap().body else { panic!() };
    assert_eq!(exe.path, "/usr/bin/bash".into());
    assert_eq!((script.path.as_bytes(), script.by_name), (&b"./x.sh"[..], true));
    assert_eq!(script.identity, FileIdentity::default(), "a name that was not resolved has no identity");
}

#[test]
fn files_and_flags() {
    #[rustfmt::skip]
    let rows = [
        (0, Place::Disk), (file_flag::OVERLAY_LOWER, Place::ImageLayer), (file_flag::OVERLAY_UPPER, Place::UpperLayer),
        (file_flag::TMPFS, Place::Tmpfs), (file_flag::TMPFS | file_flag::MEMFD, Place::Memfd),
    ];
    for (flags, place) in rows {
        let mut r = exec_record();
        r.exe.flags |= flags | file_flag::WRITERS;
        r.exe.path_flags = path_flag::DELETED | path_flag::UNREACHABLE;
        let Body::Exec { exe, .. } = decode(&bytes(&r, BASH)).unwrap().body else { panic!() };
        assert_eq!((exe.place, exe.has_writers, exe.deleted, exe.unreachable), (place, true, true, true));
    }
}

#[test]
fn digests() {
    let sha256 = [3; SHA256_LEN];
    let known = |cached| Ok(Some(KernelDigest { sha256: Sha256(sha256), cached }));
    let unknown = Err(Malformed::Code { kind: Kind::Exec, field: "digest origin", value: 9 });
    #[rustfmt::skip]
    let rows = [
        (digest_origin::NONE, sha256, Ok(None)), (digest_origin::IMA, sha256, known(false)),
        (digest_origin::CACHE, sha256, known(true)), (digest_origin::IMA, [0; SHA256_LEN], Ok(None)), (9, sha256, unknown),
    ];
    for (origin, sha256, expected) in rows {
        let mut r = exec_record();
        r.exe_digest = Digest { sha256, origin, reserved: [0; 3], error: 0 };
        let found = decode(&bytes(&r, BASH)).map(|event| match event.body {
            Body::Exec { exe, .. } => exe.digest,
            other => panic!("{other:?}"),
        });
        assert_eq!(found, expected, "origin {origin}");
    }
}

#[test]
fn what_a_program_serves_has_no_digest_of_the_kernels() {
    let mut r = exec_record();
    r.exe.fs_magic = 0x6573_5546;
    r.exe_digest = Digest { sha256: [3; SHA256_LEN], origin: digest_origin::IMA, reserved: [0; 3], error: 0 };
    let Body::Exec { exe, .. } = decode(&bytes(&r, BASH)).unwrap().body else { panic!() };
    assert_eq!((exe.served, exe.digest), (true, None));
}

fn refused_path<T>(len: u16, reason: &'static str) -> Result<T, Malformed> {
    Err(Malformed::Path { kind: Kind::File, len, reason })
}

#[test]
fn file_operations() {
    let record = |op| {
        let mut r = FileRecord::new_zeroed();
        r.header = header::<FileRecord>(kind::FILE);
        r.op = op;
        r.arg = 0o755;
        (r.file.path_len, r.target_len) = (2, 6);
        decode(&bytes(&r, b"a\0b\0tmp\0"))
    };
    let target = Some(FilePath::from("/tmp/b"));
    #[rustfmt::skip]
    let rows = [
        (1, FileOp::OpenWrite, None, None), (2, FileOp::Create, None, None), (3, FileOp::Rename, target.clone(), None),
        (11, FileOp::Exchange, target.clone(), None), (4, FileOp::Link, target, None), (5, FileOp::Unlink, None, None), (6, FileOp::Chmod, None, Some(0o755)),
        (7, FileOp::Truncate, None, None), (8, FileOp::CloseWrite, None, None), (9, FileOp::MapWrite, None, None),
        (12, FileOp::Capability, None, None),
    ];
    for (code, op, target, mode) in rows {
        let file = FileRef { path: "/a".into(), ..FileRef::default() };
        assert_eq!(record(code).unwrap().body, Body::File { op, file, target, mode });
    }
    // Of a block device the number comes along.
    match record(10).unwrap().body {
        Body::File { op: FileOp::BlockWrite, file, .. } => assert_eq!(file.identity.real.dev, 0o755),
        other => panic!("{other:?}"),
    }
    let mut r = FileRecord::new_zeroed();
    r.header = header::<FileRecord>(kind::FILE);
    r.op = file_op::LINK;
    (r.file.path_len, r.target_len) = (6, 6);
    let long = [&b"a\0mnt\0"[..], &[b'x'; PATH_BUF + 1], b"b\0mnt\0"].concat();
    for (lens, paths, expected) in [
        ((0, 0), &b"a\0mnt\0b\0mnt\0"[..], Ok(None)),
        ((6, 6), b"a\0mnt\0a\0usr\0b\0mnt\0b\0opt\0", Ok(Some(("/usr/a", "/opt/b")))),
        ((ORIGIN_CUT, 6), b"a\0mnt\0b\0mnt\0b\0opt\0", Ok(Some(("", "/opt/b")))),
        ((6, ORIGIN_CUT), b"a\0mnt\0a\0usr\0b\0mnt\0", Ok(Some(("/usr/a", "")))),
        ((1281, 0), &long, refused_path(1281, "longer than the kernel programs' buffer")),
        ((5, 6), b"a\0mnt\0a\0usrb\0mnt\0b\0opt\0", refused_path(5, "the last name does not end with NUL")),
    ] {
        (r.origin_len, r.target_origin_len) = lens;
        let found = decode(&bytes(&r, paths)).map(|event| match event.body {
            Body::File { file, .. } => file.origin,
            other => panic!("{other:?}"),
        });
        let expected = expected.map(|names| {
            names.map(|(path, target)| Box::new(Origin { path: path.into(), target: target.into() }))
        });
        assert_eq!(found, expected, "{lens:?}");
    }
    for code in [0, 13, 255] {
        let refused = Malformed::Code { kind: Kind::File, field: "operation", value: code.into() };
        assert_eq!(record(code), Err(refused));
    }
}

#[test]
fn connects() {
    let record = |family, protocol| {
        let mut r = Box::new(ConnectRecord::new_zeroed());
        r.header = header::<ConnectRecord>(kind::CONNECT);
        (r.family, r.protocol, r.port, r.source_port, r.sendto) = (family, protocol, 443, 5555, 1);
        r.address[..4].copy_from_slice(&[127, 0, 0, 1]);
        r.address[15] = 1;
        decode(r.as_bytes()).map(|event| match event.body {
            Body::Connect(connect) => connect,
            other => panic!("{other:?}"),
        })
    };
    let v4 = record(2, 6).unwrap();
    assert_eq!(
        (v4.destination, v4.protocol, v4.sendto),
        ("127.0.0.1:443".parse().unwrap(), Protocol::Tcp, true)
    );
    let v6 = record(10, 17).unwrap();
    assert_eq!((v6.destination, v6.protocol), ("[7f00:1::1]:443".parse().unwrap(), Protocol::Udp));
    assert_eq!(record(1, 6), Err(Malformed::Code { kind: Kind::Connect, field: "address family", value: 1 }));
    assert_eq!(record(2, 1), Err(Malformed::Code { kind: Kind::Connect, field: "protocol", value: 1 }));
}

#[test]
fn processes_and_libraries() {
    let fork = ForkRecord { header: header::<ForkRecord>(kind::FORK), task: task(), parent_start_ns: 4 };
    let parent = ProcessId { tgid: 9, start_ns: 4 };
    assert_eq!(decode(fork.as_bytes()).unwrap().body, Body::Fork { parent });
    let exit =
        ExitRecord { header: header::<ExitRecord>(kind::EXIT), task: task(), exit_code: 256, reserved: 0 };
    assert_eq!(decode(exit.as_bytes()).unwrap().body, Body::Exit { status: 256 });
    let mut r = LibraryRecord::new_zeroed();
    r.header = header::<LibraryRecord>(kind::LIBRARY);
    (r.mprotect, r.address) = (1, 0x1000);
    r.file.path_len = 12;
    let file = FileRef { path: "/lib/libc.so".into(), ..FileRef::default() };
    let whole = bytes(&r, b"libc.so\0lib\0");
    assert_eq!(decode(&whole).unwrap().body, Body::Library { file, mprotect: true, address: 0x1000 });
}

#[test]
fn sizes_kinds_and_hooks() {
    let whole = &bytes(&exec_record(), BASH)[..];
    for len in 0..whole.len() {
        let refused = decode(&whole[..len]).unwrap_err();
        assert_eq!(refused.kind(), (len >= 16).then_some(Kind::Exec), "{len} bytes: {refused}");
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert_eq!(decode(&longer).unwrap_err().kind(), Some(Kind::Exec));
    // Bytes that are not aligned are read all the same.
    let mut shifted = vec![0; 1];
    shifted.extend_from_slice(whole);
    assert_eq!(decode(&shifted[1..]), decode(whole));

    let mut r = exec_record();
    r.header.kind = 99;
    assert_eq!(decode(&bytes(&r, BASH)), Err(Malformed::Kind(99)));
    r.header.kind = kind::CONNECT;
    assert_eq!(decode(&bytes(&r, BASH)).unwrap_err().kind(), Some(Kind::Connect));
    r.header.kind = kind::EXEC;
    let misstated = [r.as_bytes(), BASH].concat();
    let refused = Malformed::Size { kind: Kind::Exec, expected: 320 + 13, found: 320 + 13, stated: 320 };
    assert_eq!(decode(&misstated), Err(refused));
    r.exe.path_len = 14;
    assert_eq!(decode(&bytes(&r, BASH)).unwrap_err().kind(), Some(Kind::Exec), "less than the path has");
    r.exe.path_len = 13;
    r.header.hook = 0;
    assert_eq!(decode(&bytes(&r, BASH)), Err(Malformed::Code { kind: Kind::Exec, field: "hook", value: 0 }));
}
