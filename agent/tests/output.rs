//! What goes into commands and comes out of them: pipes, output that nobody reads, a full disk; and the statuses that say so, which
//! are documented ones and never a panic's.

#[path = "common/image.rs"]
mod image;
#[path = "common/layout.rs"]
mod layout;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use image::{Image, envelope, of_layer, text};
use muster::finding::Sha256;

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// A disk without space.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("the kernel has it").into()
}

/// The status, and what is on standard error.
fn run(arguments: &[&str], out: Stdio, err: Stdio) -> (Option<i32>, String) {
    let mut muster = Command::new(env!("CARGO_BIN_EXE_muster"));
    let child = muster.args(arguments).stdout(out).stderr(err).spawn().expect("muster runs");
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), text(&output.stderr))
}

#[test]
fn nobody_reads_or_the_disk_is_full() {
    let image = Image::new(true);
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name).to_str().expect("text").to_owned();
    layout::write(&image, &place.path().join("layout"));
    let [key, private, other, good, sbom, more, config] =
        ["key.pub", "key.pem", "other.pub", "good.json", "a.json", "b.json", "muster.toml"].map(at);
    let foreign = muster::attestation::PrivateKey::generate(muster::attestation::key::Algorithm::P256);
    let document = of_layer("/usr/bin/a", image::LAYER);
    for (file, content) in [
        (&key, image.key.public_pem()),
        (&private, image.key.to_pem().expect("PEM").to_string()),
        (&other, foreign.expect("a key").public_pem()),
        (&good, text(&envelope(&image.key, Sha256([9; 32]), &document))),
        (&sbom, document),
        (&more, of_layer("/usr/bin/b", image::LAYER)),
        (&config, format!("[attestation]\nkeys = [{key:?}]\ndirectory = {:?}\n", place.path())),
    ] {
        fs::write(file, content).expect("written");
    }
    fs::create_dir_all(place.path().join("root/etc")).expect("a directory");
    fs::write(at("root/etc/os-release"), "IMAGE_ID=edge\nIMAGE_VERSION=33\n").expect("written");
    let root = at("root");
    let (fetched, none) = (format!("oci:{}@sha256:{}", at("layout"), image.index), at("none.json"));
    let subject = format!("web@sha256:{}", image.manifest);
    // The status, that of an output that nobody reads, and that of a full disk; `None`: nothing is written there.
    for (arguments, status, unread_status, full_status) in [
        (&["attest", "verify", &good, "--key", &key][..], 0, 0, Some(1)),
        (&["attest", "verify", &good, "--key", &key, "--json"], 0, 0, Some(1)),
        (&["attest", "verify", &good, "--key", &other, "--json"], 1, 1, Some(1)),
        (&["attest", "verify", &good, "--key", &other], 1, 1, None),
        (&["attest", "verify", &none, "--key", &key], 2, 2, None),
        (&["attest", "fetch", &fetched, "--key", &key], 0, 0, Some(1)),
        (&["attest", "fetch", &fetched, "--key", &key, "--json"], 0, 0, Some(1)),
        (&["attest", "fetch", &fetched, "--key", &other], 1, 1, Some(1)),
        (&["attest", "subject", "--root", &root], 0, 0, Some(1)),
        // Of a document that nobody took there is none.
        (&["attest", "sign", &sbom, "--key", &private, "--subject", &subject], 0, 1, Some(1)),
        (&["sbom", "generate", &root], 0, 1, Some(1)),
        (&["sbom", "inspect", &sbom], 0, 0, Some(1)),
        (&["sbom", "inspect", &sbom, "--json"], 0, 0, Some(1)),
        (&["sbom", "inspect", &none], 2, 2, None),
        (&["sbom", "diff", &sbom, &more], 1, 1, Some(2)),
        (&["sbom", "diff", &sbom, &sbom, "--json"], 0, 0, Some(2)),
        (&["agent", "--check", "--config", &config], 0, 0, Some(1)),
    ] {
        let (code, said) = run(arguments, Stdio::piped(), Stdio::piped());
        assert_eq!(code, Some(status), "{arguments:?}: {said}");
        let (code, said) = run(arguments, unread(), Stdio::piped());
        assert_eq!(code, Some(unread_status), "{arguments:?}, nobody reads: {said}");
        let (code, said) = run(arguments, full(), Stdio::piped());
        assert_eq!(code, Some(full_status.unwrap_or(status)), "{arguments:?}, full disk: {said}");
        let times = said.matches("No space left").count();
        assert_eq!(times, usize::from(full_status.is_some()), "{arguments:?}: {said}");
        // Nor does it matter whether anybody reads the messages.
        for errors in [unread, full] {
            let (code, _) = run(arguments, Stdio::null(), errors());
            assert_eq!(code, Some(status), "{arguments:?}, without standard error");
        }
    }
}

/// Runs it there, with this on standard input.
fn piped(place: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut muster = Command::new(env!("CARGO_BIN_EXE_muster"));
    muster
        .args(arguments)
        .current_dir(place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = muster.spawn().expect("muster runs");
    // One that wants no input may end before it is written.
    drop(child.stdin.take().expect("a pipe").write_all(input));
    child.wait_with_output().expect("it ends")
}

#[test]
fn pipes_are_files_and_a_dash_is_standard_output() {
    let image = Image::new(false);
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path();
    fs::write(place.join("key.pem"), image.key.to_pem().expect("PEM").as_bytes()).expect("written");
    fs::write(place.join("key.pub"), image.key.public_pem()).expect("written");
    fs::create_dir(place.join("root")).expect("a directory");
    fs::write(place.join("root/run"), "#!/bin/sh\n").expect("written");
    let (sbom, stdin) = (of_layer("/usr/bin/a", image::LAYER), "/dev/stdin");
    let subject = format!("web@sha256:{}", image.manifest);
    let done = |arguments: &[&str], input: &[u8]| {
        let output = piped(place, arguments, input);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        output.stdout
    };

    let sign = ["attest", "sign", stdin, "--key", "key.pem", "--subject", &subject];
    let envelope = done(&sign, sbom.as_bytes());
    let verified = done(&["attest", "verify", stdin, "--key", "key.pub"], &envelope);
    let digest = muster::attestation::sha256(sbom.as_bytes()).to_string();
    assert!(text(&verified).contains(&digest), "{}", text(&verified));
    assert!(text(&done(&["sbom", "inspect", stdin], sbom.as_bytes())).contains("files      1 "));
    let made = done(&["sbom", "generate", "root", "--output", "-"], b"");
    let completed = done(&["sbom", "generate", "root", "-o", "-", "--complete", stdin], &made);
    assert!(text(&completed).contains("./run"), "{}", text(&completed));
    done(&[&sign[..], &["--output", "-"]].concat(), sbom.as_bytes());
    assert!(!place.join("-").exists(), "no file of that name is made");
}

#[test]
fn what_a_command_cannot_use_is_wrong_usage() {
    let image = Image::new(false);
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path();
    let (sbom, subject) = (of_layer("/usr/bin/a", image::LAYER), format!("web@sha256:{}", image.manifest));
    let digest = muster::attestation::sha256(b"/usr/bin/a").to_string();
    assert!(sbom.contains(&digest));
    for (file, content) in [
        ("key.pem", image.key.to_pem().expect("PEM").to_string()),
        ("key.pub", image.key.public_pem()),
        ("good.json", sbom.clone()),
        ("short.json", sbom.replace(&digest, "abcd")),
        ("none.json", "{}".to_owned()),
        ("v9.json", sbom.replace("SPDX-2.3", "SPDX-9.9")),
    ] {
        fs::write(place.join(file), content).expect("written");
    }
    fs::create_dir(place.join("root")).expect("a directory");
    let sign = |sbom, key| ["attest", "sign", sbom, "--key", key, "--subject", &subject, "-", "out.json"];
    for (arguments, status, says) in [
        (sign("good.json", "no.pem"), 2, "no.pem: cannot open"),
        (sign("good.json", "key.pub"), 2, "key.pub: "),
        (sign("no.json", "key.pem"), 2, "no.json: cannot read: No such file"),
        (sign("root", "key.pem"), 2, "root: cannot read: Is a directory"),
        // The agent would refuse these: nobody is to sign them.
        (sign("short.json", "key.pem"), 1, "found \"abcd\" at line 1 column "),
        (sign("v9.json", "key.pem"), 1, "v9.json: the SBOM is refused: spdx-2-json: spdxVersion"),
        (sign("none.json", "key.pem"), 1, "none.json: the SBOM is JSON of an unknown form"),
        (sign("good.json", "key.pem"), 0, "signed good.json"),
    ] {
        let arguments = arguments.map(|argument| if argument == "-" { "--output" } else { argument });
        let output = piped(place, &arguments, b"");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
        assert_eq!(place.join("out.json").exists(), status == 0, "{arguments:?}");
    }
    for (more, says) in [
        (["--exclude", "usr"], "cannot exclude \"usr\""),
        (["--complete", "no.json"], "no.json: cannot read"),
        (["--complete", "short.json"], "short.json: spdx-2-json: "),
        (["--platform", "linux/amd64"], "a file tree is of no platform"),
    ] {
        let output = piped(place, &[&["sbom", "generate", "root"], &more[..]].concat(), b"");
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(says), "{more:?}: {said}");
        assert!(output.stdout.is_empty(), "{more:?}");
    }
}

/// A directory with a tree to list, an SBOM and a key; and the commands that write a file, each without its `--output`.
fn writers(place: &Path) -> [Vec<&'static str>; 2] {
    let image = Image::new(false);
    fs::write(place.join("key.pem"), image.key.to_pem().expect("PEM").as_bytes()).expect("written");
    fs::write(place.join("sbom.json"), of_layer("/usr/bin/a", image::LAYER)).expect("written");
    fs::create_dir_all(place.join("root")).expect("a directory");
    fs::write(place.join("root/run"), "#!/bin/sh\n").expect("written");
    fs::create_dir_all(place.join("out")).expect("a directory");
    let subject = "web@sha256:5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
    [
        vec!["sbom", "generate", "root", "-o"],
        vec!["attest", "sign", "sbom.json", "--key", "key.pem", "--subject", subject, "-o"],
    ]
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn an_output_destroys_nothing_that_is_there() {
    use std::os::unix::fs::{FileTypeExt as _, symlink};
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path();
    for command in writers(place) {
        let run = |output: &str| {
            let done = piped(place, &[&command[..], &[output]].concat(), b"");
            (done.status.code(), text(&done.stderr))
        };
        fs::remove_dir_all(place.join("out")).expect("removed");
        fs::create_dir(place.join("out")).expect("a directory");
        let at = |name: &str| place.join("out").join(name);

        // A link where earlier versions put what was not whole yet.
        fs::write(at("victim"), "precious").expect("written");
        for link in ["x.part", ".x.partial"] {
            symlink(at("victim"), at(link)).expect("linked");
        }
        let (code, said) = run("out/x");
        assert_eq!(code, Some(0), "{command:?}: {said}");
        assert_eq!(fs::read(at("victim")).expect("there"), b"precious", "{command:?}");
        assert_eq!(names(&place.join("out")), [".x.partial", "victim", "x", "x.part"], "{command:?}");

        // A link to a file means the file.
        fs::create_dir(at("real")).expect("a directory");
        fs::write(at("real/file"), "old").expect("written");
        symlink("real/file", at("link")).expect("linked");
        assert_eq!(run("out/link").0, Some(0), "{command:?}");
        assert!(at("link").symlink_metadata().expect("there").is_symlink(), "{command:?}");
        assert_ne!(fs::read(at("real/file")).expect("there"), b"old", "{command:?}");
        assert_eq!(names(&at("real")), ["file"], "{command:?}");

        // As /dev/null, which root must not lose.
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
        nix::sys::stat::mknod(
            &at("null"),
            nix::sys::stat::SFlag::S_IFCHR,
            mode,
            nix::sys::stat::makedev(1, 3),
        )
        .expect(
            "needs root to make a device: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo test --test output",
        );
        run("out/null");
        assert!(at("null").metadata().expect("there").file_type().is_char_device(), "{command:?}");
        let (code, said) = run("/dev/full");
        assert_eq!(code, Some(1), "{command:?}: {said}");
        assert!(said.contains("No space left"), "{command:?}: {said}");

        nix::unistd::mkfifo(&at("pipe"), mode).expect("a pipe");
        let pipe = at("pipe");
        let reader = std::thread::spawn(move || fs::read(pipe).expect("read"));
        assert_eq!(run("out/pipe").0, Some(0), "{command:?}");
        assert!(reader.join().expect("no panic").starts_with(b"{"), "{command:?}");
        assert!(at("pipe").metadata().expect("there").file_type().is_fifo(), "{command:?}");

        // What fails leaves what was there.
        let before = (names(&place.join("out")), fs::read(at("x")).expect("there"));
        let broken = command.iter().map(|a| match *a {
            "root" => "no-such-root",
            "sbom.json" => "key.pem",
            a => a,
        });
        let done = piped(place, &broken.chain(["out/x"]).collect::<Vec<_>>(), b"");
        assert_eq!(done.status.code(), Some(1), "{command:?}: {}", text(&done.stderr));
        assert_eq!((names(&place.join("out")), fs::read(at("x")).expect("there")), before, "{command:?}");
    }
}

#[test]
fn nothing_half_made_is_left_when_a_command_is_ended() {
    use nix::sys::signal::{Signal, kill};
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::ExitStatusExt as _;
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path();
    let [command, _] = writers(place);
    // Sparse: it takes minutes to read and no space.
    let large = File::create(place.join("root/large")).expect("created");
    large.set_len(200 << 30).expect("sparse");
    large.set_permissions(fs::Permissions::from_mode(0o755)).expect("executable");
    fs::write(place.join("out/x"), "old").expect("written");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // Who started the tests in the background ignores SIGINT, and so would the command.
        let mut muster = Command::new("/usr/bin/env");
        muster.args(["--default-signal=INT,TERM", env!("CARGO_BIN_EXE_muster")]);
        muster.args(&command).arg("out/x").current_dir(place).stderr(Stdio::null());
        let mut child = muster.spawn().expect("muster runs");
        let begun = std::time::Instant::now();
        while names(&place.join("out")).len() < 2 {
            assert!(begun.elapsed().as_secs() < 30, "nothing is being written");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), signal).expect("it lives");
        assert_eq!(child.wait().expect("it ends").signal(), Some(signal as i32));
        assert_eq!(names(&place.join("out")), ["x"], "{signal}");
        assert_eq!(fs::read(place.join("out/x")).expect("there"), b"old");
    }
}
