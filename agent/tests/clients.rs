//! `muster watch`, `events`, `status`, `images` and `explain` as a person runs them, against a feed without a sensor.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use muster::config;
use muster::event::{Body, Event, FilePath, FileRef, Flavour, Kind, ProcessId, Task};
use muster::feed::{Asked, Feed, Socket, StatusSource};
use muster::finding::{Finding, ProcessInfo, Severity, Sha256, Verdict};
use muster::metrics::Metrics;
use muster_proto::v1;

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");

struct Source;

impl StatusSource for Source {
    fn status(&self) -> v1::Status {
        v1::Status {
            kernel_release: "6.12.1".into(),
            flavour: v1::Flavour::Tracepoint.into(),
            blind_spots: vec!["io_uring".into()],
            rings: vec![v1::Ring { name: "exec".into(), size_bytes: 4096 }],
            images: vec![v1::Image {
                digest: format!("sha256:{}", Sha256([0xab; 32])),
                state: "unverified".into(),
                reason: "no key signed it".into(),
                ..v1::Image::default()
            }],
            refused_attestations: vec![v1::RefusedAttestation {
                file: "bad.json".into(),
                reason: "no key signed it".into(),
            }],
            config: "/etc/muster/other.toml".into(),
            ..v1::Status::default()
        }
    }
    fn explain(&self, asked: &Asked, _: Option<Sha256>) -> Vec<v1::Explanation> {
        let (path, sha256) = match asked {
            Asked::Path(path) if path.as_bytes() == b"/nonexistent" => (String::new(), String::new()),
            Asked::Path(path) => (path.to_string(), String::new()),
            Asked::Sha256(digest) => ("/usr/bin/true".to_owned(), digest.to_string()),
        };
        vec![v1::Explanation { path, sha256, text: "it is known".into(), ..v1::Explanation::default() }]
    }
}

struct Agent {
    feed: Feed,
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"))
    }

    fn start_in(directory: tempfile::TempDir) -> Self {
        let socket = directory.path().join("muster.sock");
        let feed = Feed::new(&config::Feed::default(), Metrics::new()).expect("a feed");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime
            .block_on(async {
                let socket = Socket::bind(&socket).expect("a socket");
                feed.serve(socket, Arc::new(Source)).await
            })
            .expect("served");
        Self { feed, socket, runtime, directory }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(MUSTER);
        command.arg(args[0]).arg("--socket").arg(&self.socket).args(&args[1..]);
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("muster runs");
        assert!(output.status.success(), "muster {args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn start_client(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("muster runs")
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn finding(severity: Severity, path: &[u8]) -> Finding {
    Finding {
        time: UNIX_EPOCH + Duration::from_millis(1_795_475_415_123),
        verdict: Verdict::Unauthorized,
        severity,
        kind: Kind::Exec,
        process: Some(ProcessInfo {
            id: ProcessId { tgid: 77, start_ns: 1 },
            comm: "evil".into(),
            ..ProcessInfo::default()
        }),
        path: FilePath::from(path),
        ..Finding::loss(Flavour::Lsm, "not in the SBOM".into())
    }
}

#[test]
fn watch_shows_a_table_of_what_passes_the_filters() {
    let agent = Agent::start();
    agent.feed.publish(finding(Severity::Low, b"/tmp/low"));
    agent.feed.publish(finding(Severity::Critical, b"/tmp/e\xff\x1b[2J"));
    let text = agent.run(&["watch", "--after", "0", "--severity", "medium", "--count", "1"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "TIME           SEVERITY  VERDICT       WORKLOAD      PROCESS               PATH                                  REASON",
            r"23:10:15.123Z  critical  unauthorized  host          evil[77]              /tmp/e\xff\x1b[2J                     not in the SBOM",
        ]
    );
    let json = agent.run(&[
        "watch",
        "--after",
        "0",
        "--kind",
        "exec",
        "--workload",
        "host",
        "--json",
        "--count",
        "2",
    ]);
    let paths: Vec<_> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["path"].clone())
        .collect();
    assert_eq!(paths, ["/tmp/low", r"/tmp/e\xff\x1b[2J"]);
}

#[test]
fn watch_goes_on_over_a_restart_of_the_agent_and_says_so() {
    let agent = Agent::start();
    let mut client = agent.start_client(&["watch", "--count", "4"]);
    let mut lines = BufReader::new(client.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    assert!(next().starts_with("TIME "), "the heading says that the stream is in place");
    for path in [b"/tmp/live", b"/tmp/last"] {
        agent.feed.publish(finding(Severity::High, path));
    }
    assert!(next().contains("/tmp/live"));
    assert!(next().contains("/tmp/last"));
    agent.runtime.block_on(agent.feed.shutdown(Duration::from_secs(5)));
    // The new run has passed the number that the client has seen before it is back: none of that may be missing.
    let again = Feed::new(&config::Feed::default(), Metrics::new()).expect("a feed");
    for path in [b"/tmp/new1", b"/tmp/new2"] {
        again.publish(finding(Severity::High, path));
    }
    let served = async {
        let socket = Socket::bind(&agent.socket).expect("a socket");
        again.serve(socket, Arc::new(Source)).await
    };
    agent.runtime.block_on(served).expect("served");
    assert!(next().contains("/tmp/new1"));
    assert!(next().contains("/tmp/new2"));
    let output = client.wait_with_output().expect("ended");
    assert!(output.status.success());
    assert_eq!(
        stderr(&output).lines().collect::<Vec<_>>(),
        [
            "muster: the agent has shut down; waiting for it to come back",
            "muster: the agent answers again",
            "muster: the agent was started anew, and its findings are numbered from 1 again; what it found last before may be missing \
             here",
        ]
    );
}

#[test]
fn an_environment_variable_names_the_socket() {
    let agent = Agent::start();
    let output =
        Command::new(MUSTER).arg("status").env("MUSTER_SOCKET", &agent.socket).output().expect("muster runs");
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn events_show_what_comes() {
    let agent = Agent::start();
    let mut client = agent.start_client(&["events", "--kind", "exec", "--count", "1"]);
    let mut lines = BufReader::new(client.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    assert!(next().starts_with("TIME "));
    let event = |body| Event { time_ns: 1, flavour: Flavour::Lsm, task: Task::default(), body };
    agent.feed.event(&event(Body::Exit { status: 0 }));
    let exe = FileRef { path: "/usr/bin/true".into(), ..FileRef::default() };
    agent.feed.event(&event(Body::Exec { exe, script: None }));
    let line = next();
    assert!(line.contains("exec") && line.ends_with("/usr/bin/true"), "{line}");
    assert!(client.wait().expect("ended").success());
}

#[test]
fn status_images_and_explain_answer_in_words_and_in_json() {
    let agent = Agent::start();
    let json = |args: &[&str]| serde_json::from_str::<serde_json::Value>(&agent.run(args)).expect("JSON");
    let status = agent.run(&["status"]);
    let lines: Vec<_> = status.lines().collect();
    assert!(lines[0].contains(", Linux 6.12.1, flavour tracepoint, up "), "{status}");
    // What matters comes first, and what this kernel never shows last and short.
    assert_eq!(
        lines[1..9],
        [
            "health    2 problems",
            "          - 1 image without a verified SBOM: its attestation was refused (`muster images`)",
            "          - refused: bad.json: no key signed it",
            "findings  0",
            "lost      0 records, 0 findings",
            "lag       0.000 ms; 0 records wait to be judged",
            "images    0 of 1 verified",
            "refused   1 attestation",
        ]
    );
    assert!(status.contains("config    /etc/muster/other.toml"), "{status}");
    assert_eq!(
        lines.last(),
        Some(&"With this flavour on this kernel 1 kind of change is not seen: `muster probe` lists it.")
    );
    let whole = json(&["status", "--json"]);
    assert_eq!(whole["problems"].as_array().expect("a list").len(), 2);
    assert_eq!(whole["refused_attestations"][0]["file"], "bad.json");
    assert_eq!(whole["blind_spots"][0], "io_uring");
    assert_eq!(whole["run"], agent.feed.origin().run);
    assert!(whole["resident_bytes"].as_u64() > Some(1 << 20), "{whole}");
    assert_eq!(json(&["status", "--json"])["flavour"], "tracepoint");
    let images = agent.run(&["images"]);
    assert!(
        images.contains("image sha256:abababababab") && images.contains("state      unverified"),
        "{images}"
    );
    let none = muster::feed::status_text::images(&[]);
    assert!(none.starts_with("no image is known yet: "), "{none}");
    assert_eq!(json(&["images", "--json"])[0]["reason"], "no key signed it");
    assert!(agent.run(&["explain", "/usr/bin/true"]).contains("it is known"));
    assert_eq!(json(&["explain", "/usr/bin/true", "--json"])[0]["path"], "/usr/bin/true");
    let digest = Sha256([0xcd; 32]).to_string();
    assert_eq!(json(&["explain", &format!("sha256:{digest}"), "--json"])[0]["sha256"], *digest);
}

/// A configuration that can verify something.
fn good_config(directory: &Path) -> String {
    let key = muster::attestation::PrivateKey::generate(muster::attestation::key::Algorithm::P256);
    fs::write(directory.join("key.pub"), key.expect("a key").public_pem()).expect("written");
    let text =
        format!("[attestation]\ndirectory = {directory:?}\nkeys = [{:?}]\n", directory.join("key.pub"));
    let config = directory.join("muster.toml");
    fs::write(&config, text).expect("written");
    config.into_os_string().into_string().expect("UTF-8")
}

#[test]
fn a_configuration_with_which_nothing_can_be_verified_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let check = |config: &str, place: &Path| {
        let mut muster = Command::new(MUSTER);
        let output = muster.args(["agent", "--check", "--config", config]).current_dir(place).output();
        let output = output.expect("muster runs");
        (output.status.code(), stderr(&output))
    };
    let good = good_config(directory.path());
    assert_eq!(check(&good, Path::new("/")), (Some(0), String::new()));
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/muster.toml");
    let (code, said) = check(shipped, Path::new("/"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("attestation.keys and attestation.identities are both empty"), "{said}");
    let relative = fs::read_to_string(&good)
        .expect("there")
        .replace(&directory.path().join("key.pub").display().to_string(), "key.pub");
    fs::write(&good, relative.replace("directory = \"", "directory = \"/none")).expect("written");
    let (code, said) = check(&good, directory.path());
    assert_eq!(code, Some(0), "{said}");
    let warnings: Vec<_> = said.lines().collect();
    assert!(warnings[0].contains("warning: attestation.directory: /none"), "{said}");
    assert!(warnings[1].contains("warning: attestation.keys: key.pub depends on where"), "{said}");
    assert_eq!(warnings.len(), 2, "{said}");
}

#[test]
fn what_no_sbom_has_is_said_by_name_and_by_status() {
    let agent = Agent::start();
    for args in [&["explain", "/nonexistent"][..], &["explain", "/nonexistent", "--json"]] {
        let output = agent.command(args).output().expect("muster runs");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(args.len() > 2 || said.starts_with("/nonexistent: no verified SBOM has it\n"), "{said}");
    }
}

#[test]
fn mistakes_get_an_answer_that_helps() {
    let agent = Agent::start();
    for (args, part) in [
        (&["explain", "usr/bin/true"][..], "expected an absolute path or a SHA-256"),
        (&["watch", "--verdict", "bad"], "expected one of: attested, relocated"),
        (&["watch", "--severity", "bad"], "expected one of: info, low"),
        (&["explain", "/a", "--image", "latest"], "not a SHA-256"),
    ] {
        let output = agent.command(args).output().expect("muster runs");
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn replay_of_what_is_not_there_says_that_alone() {
    let output = Command::new(MUSTER).args(["replay", "/nonexistent"]).output().expect("muster runs");
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("/nonexistent") && said.lines().count() == 1, "{said}");
}

#[test]
fn client_without_an_agent_says_why() {
    let ask = |socket: &Path| {
        let output =
            Command::new(MUSTER).args(["status", "--socket"]).arg(socket).output().expect("muster runs");
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    let agent = Agent::start();
    let error = ask(&agent.directory.path().join("none"));
    assert!(error.contains("is the agent running? Look with `systemctl status muster`"), "{error}");
    let stale = agent.directory.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("bound"));
    let error = ask(&stale);
    assert!(error.contains("nobody answers at"), "{error}");
}

#[test]
fn another_user_is_refused_and_told() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "needs root to become another user: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo test --test clients"
    );
    let agent = Agent::start();
    // Where nobody may go: a directory that is open to all, with a copy of the program.
    fs::set_permissions(agent.directory.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    let program = agent.directory.path().join("muster");
    // By another process: a file that this one has open for writing, any test's child may have too, and cannot be run.
    assert!(Command::new("cp").arg(MUSTER).arg(&program).status().expect("cp(1) runs").success());
    let mut command = Command::new(&program);
    command.args(["status", "--socket"]).arg(&agent.socket).uid(65534).gid(65534);
    let output = command.output().expect("muster runs");
    assert!(!output.status.success());
    assert!(stderr(&output).contains("are you root? Try sudo"), "{}", stderr(&output));
}

#[test]
fn reader_that_goes_away_ends_watch_quietly() {
    let agent = Agent::start();
    (0..2000).for_each(|_| agent.feed.publish(finding(Severity::High, b"/tmp/many")));
    let mut client = agent.start_client(&["watch", "--after", "0"]);
    drop(client.stdout.take());
    let output = client.wait_with_output().expect("ended");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn reader_that_goes_away_is_no_error_of_what_needs_no_agent() {
    let seed = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/recording/events");
    let directory = tempfile::tempdir().expect("a directory");
    let config = good_config(directory.path());
    for args in [
        &["probe"][..],
        &["probe", "--json"],
        &["replay", seed, "--attestations", "/nonexistent"],
        &["agent", "--check", "--config", &config],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = Command::new(MUSTER).args(args).stdout(writer).output().expect("muster runs");
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    }
}
