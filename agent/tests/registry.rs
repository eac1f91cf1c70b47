//! Attestations from registries over TLS: Debian's `docker-registry` with a password, and a server of our own for what no good
//! registry does. Loopback only.

#[path = "common/image.rs"]
mod image;
#[path = "common/tls.rs"]
mod tls;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Image, MANIFEST, text, tool};
use muster::attestation::sha256;
use muster::attestation::source::{Found, Scope, Sources};
use muster::config::{self, Config};
use muster::finding::{Binding, Sha256};
use muster::identity::Digests;
use muster::images::{ImageState, Images};
use muster::metrics::Metrics;
use serde_json::{Value, json};
use tls::{Authority, Said, Server, request};

const USER: &str = "muster";
const PASSWORD: &str = "correct horse";
/// Of the password, by bcrypt: the only kind that `docker-registry` takes.
const HASH: &str = "$2b$05$MusterTestSaltMusterTeY3Sc19oe4cS3lku8uquOT.uoerNOufa";

/// A registry of Debian; it ends with the test, however that ends.
struct Registry {
    process: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Registry {
    /// With a password, or open to all.
    fn start(has_password: bool) -> Self {
        let authority = Authority::get();
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        // Free now, and not given to anybody else so soon.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let mut config = json!({
            "version": 0.1, "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": at("storage")}},
            "http": {
                "addr": address.to_string(), "secret": "of this test",
                "tls": {"certificate": authority.file("server.crt"), "key": authority.file("server.key")},
            },
        });
        if has_password {
            config["auth"] = json!({"htpasswd": {"realm": "tests", "path": at("htpasswd")}});
        }
        // JSON is YAML.
        fs::write(at("config.yml"), config.to_string()).expect("written");
        fs::write(at("htpasswd"), format!("{USER}:{HASH}\n")).expect("written");
        let log = fs::File::create(at("log")).expect("a file");
        let process = tool("docker-registry", "docker-registry")
            .arg("serve")
            .arg(at("config.yml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry runs");
        let mut registry = Self { process, address, directory };
        let started = Instant::now();
        while registry.request("GET", "/v2/", &[]).is_err() {
            let ended = registry.process.try_wait().expect("it is our process");
            assert!(ended.is_none() && started.elapsed() < Duration::from_secs(20), "{}", registry.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn request(&self, method: &str, path: &str, sent: &[(&str, &[u8])]) -> std::io::Result<(u16, String)> {
        let basic = basic();
        let (media_type, body) = sent.first().copied().unwrap_or(("application/octet-stream", b""));
        let head =
            format!("{method} {path} HTTP/1.1\r\nAuthorization: {basic}\r\nContent-Type: {media_type}");
        request(self.address, &head, body)
    }

    /// Pushes the image with everything beside it, as the OCI distribution specification says.
    fn push(&self, image: &Image, repository: &str) {
        for blob in &image.blobs {
            let (status, answer) =
                self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), &[]).expect("an answer");
            assert_eq!(status, 202, "{answer}");
            let location = answer.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a place");
            let path = location.split_once(&self.address.to_string()).map_or(location, |(_, path)| path);
            let path = format!("{path}&digest=sha256:{}", sha256(blob));
            let (status, answer) =
                self.request("PUT", &path, &[("application/octet-stream", blob)]).expect("an answer");
            assert_eq!(status, 201, "{answer}");
        }
        for document in &image.documents {
            let name = document.tag.clone().unwrap_or_else(|| format!("sha256:{}", sha256(&document.bytes)));
            let path = format!("/v2/{repository}/manifests/{name}");
            let (status, answer) =
                self.request("PUT", &path, &[(document.media_type, &document.bytes)]).expect("an answer");
            assert_eq!(status, 201, "{name}: {answer}");
        }
    }

    fn end(&mut self) {
        // It is our process; that it has ended already is no fault.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs `muster attest fetch` with a key and the credentials of a file.
struct Fetch {
    directory: tempfile::TempDir,
}

impl Fetch {
    fn new(image: &Image) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("key.pub"), image.key.public_pem()).expect("written");
        Self { directory }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log_in(&self, address: SocketAddr, password: &str) {
        let auth = STANDARD.encode(format!("{USER}:{password}"));
        let auths = json!({"auths": {address.to_string(): {"auth": auth}}});
        fs::write(self.at("auth.json"), auths.to_string()).expect("written");
    }

    fn command(&self, from: SocketAddr, digest: &Sha256) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(["attest", "fetch", &format!("{from}/team/web@sha256:{digest}"), "--key"]);
        command.arg(self.at("key.pub"));
        // Nothing of the machine: no proxy, no other credentials.
        command.env_clear().env("REGISTRY_AUTH_FILE", self.at("auth.json"));
        command
    }

    fn run(&self, from: SocketAddr, digest: &Sha256) -> Output {
        let mut command = self.command(from, digest);
        command.arg("--ca").arg(Authority::get().ca()).arg("--json").output().expect("muster runs")
    }
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

fn passing(said: &Value) -> usize {
    let attestations = said["attestations"].as_array().expect("a list");
    attestations.iter().filter(|attestation| attestation["verified"] == true).count()
}

#[test]
fn a_real_registry() {
    let image = Image::new(true);
    let mut registry = Registry::start(true);
    registry.push(&image, "team/web");
    let (fetch, address) = (Fetch::new(&image), registry.address);
    let stderr = |output: &Output| text(&output.stderr);

    fetch.log_in(address, PASSWORD);
    let output = fetch.run(address, &image.index);
    assert_eq!(output.status.code(), Some(0), "{} {}", stderr(&output), registry.log());
    let said = json(&output);
    assert_eq!(passing(&said), 3, "{said:#}");
    assert_eq!(said["attestations"].as_array().map(Vec::len), Some(4), "{said:#}");
    assert_eq!(said["index"], format!("sha256:{}", image.index));
    assert_eq!(said["platforms"][0]["manifest"], format!("sha256:{}", image.manifest));
    assert_eq!(said["unread"], json!([]), "{said:#}");
    assert!(said["not_counted"].to_string().contains("never evidence"), "{said:#}");
    // A registry does not say in which index a manifest is.
    let said = json(&fetch.run(address, &image.manifest));
    assert_eq!((passing(&said), &said["index"]), (1, &Value::Null), "{said:#}");
    let output = fetch.run(address, &Sha256([0x5a; 32]));
    assert_eq!((output.status.code(), passing(&json(&output))), (Some(1), 0));

    let without_ca = fetch.command(address, &image.index).output().expect("muster runs");
    let why = stderr(&without_ca);
    assert!(without_ca.status.code() == Some(1) && why.contains("(or --ca)"), "{why}");
    fetch.log_in(address, "wrong");
    let output = fetch.run(address, &image.index);
    let why = stderr(&output);
    assert_eq!((output.status.code(), passing(&json(&output))), (Some(1), 0), "{why}");
    assert!(why.contains("401 Unauthorized with the credentials of") && why.contains("auth.json"), "{why}");
    fs::remove_file(fetch.at("auth.json")).expect("removed");
    let why = stderr(&fetch.run(address, &image.index));
    assert!(why.contains("without credentials"), "{why}");

    registry.end();
    fetch.log_in(address, PASSWORD);
    let output = fetch.run(address, &image.index);
    let why = stderr(&output);
    assert!(output.status.code() == Some(1) && why.contains("cannot be reached"), "{why}");
}

/// What a registry with a referrers API says of the image.
fn honest(image: &Image, path: &str) -> Said {
    let Some((kind, name)) = path.strip_prefix("/v2/team/web/").and_then(|rest| rest.split_once('/')) else {
        return Said::new(404, "");
    };
    let digest = |bytes: &[u8]| format!("sha256:{}", sha256(bytes));
    let found = match kind {
        "blobs" => image.blobs.iter().find(|blob| digest(blob) == name).cloned(),
        "manifests" => image
            .documents
            .iter()
            .find(|document| document.tag.as_deref() == Some(name) || digest(&document.bytes) == name)
            .map(|document| document.bytes.clone()),
        "referrers" => {
            let about = |document: &&image::Document| {
                document.subject.is_some_and(|subject| format!("sha256:{subject}") == name)
            };
            let found = image.documents.iter().filter(about);
            let found: Vec<_> = found.map(|of| image::descriptor(MANIFEST, &of.bytes)).collect();
            let index = json!({"schemaVersion": 2, "mediaType": image::INDEX, "manifests": found});
            Some(index.to_string().into_bytes())
        }
        _ => None,
    };
    found.map_or_else(|| Said::new(404, ""), |body| Said::new(200, body))
}

/// A registry that changes what an honest one says.
fn registry(change: impl Fn(&str, &str, Said) -> Said + Send + Sync + 'static) -> (Image, Server) {
    let image = Image::new(true);
    let same = Image {
        key: muster::attestation::PrivateKey::generate(muster::attestation::key::Algorithm::P256)
            .expect("a key"),
        index: image.index,
        manifest: image.manifest,
        blobs: image.blobs.clone(),
        documents: image
            .documents
            .iter()
            .map(|of| image::Document { bytes: of.bytes.clone(), tag: of.tag.clone(), ..*of })
            .collect(),
    };
    (image, Server::start(move |path, head| change(path, head, honest(&same, path))))
}

#[test]
fn a_registry_with_a_referrers_api() {
    // The tag that stands for the API is not looked at then.
    let (image, server) = registry(|path, _, said| match path.contains("/manifests/sha256-") {
        true if !path.ends_with(".att") && !path.ends_with(".sig") => Said::new(404, ""),
        _ => said,
    });
    let output = Fetch::new(&image).run(server.address, &image.index);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(passing(&json(&output)), 3);
}

#[test]
fn a_registry_that_lies_about_a_digest() {
    // Somebody else's referrer.
    let other = json!({
        "schemaVersion": 2, "config": image::descriptor("c", b"{}"), "layers": [],
        "subject": image::descriptor(MANIFEST, b"another image"),
    });
    let other = other.to_string().into_bytes();
    for (lie, left, why) in [
        ("/blobs/sha256:", 0, "damaged or lies"),
        ("/manifests/sha256:", 0, "damaged or lies"),
        ("/referrers/", 2, "its own subject is not"),
    ] {
        let other = other.clone();
        let (image, server) = registry(move |path, _, mut said| {
            if path.ends_with(&sha256(&other).to_string()) {
                return Said::new(200, other.clone());
            }
            if path.contains(lie) && said.status == 200 {
                match lie {
                    // Other content of the same length.
                    "/blobs/sha256:" => said.body[0] ^= 1,
                    "/manifests/sha256:" => said.body.push(b' '),
                    _ => {
                        let listed = [image::descriptor(MANIFEST, &other)];
                        said.body = json!({"schemaVersion": 2, "manifests": listed}).to_string().into_bytes();
                    }
                }
            }
            said
        });
        let output = Fetch::new(&image).run(server.address, &image.index);
        let said = json(&output);
        assert_eq!(passing(&said), left, "{lie}: {said:#}");
        assert_eq!(output.status.code(), Some(i32::from(left == 0)), "{lie}");
        let unread = said["unread"].to_string();
        assert!(unread.contains(why), "{lie}: {unread}");
    }
}

#[test]
fn redirects_retries_and_limits() {
    // A registry with a password that keeps all elsewhere; there, nobody is told the password.
    let (image, elsewhere) = registry(|_, head, said| match authorization(head) {
        None => said,
        Some(_) => Said::new(400, ""),
    });
    let place = elsewhere.address;
    let front = Server::start(move |path, head| {
        if authorization(head) != Some(basic()) {
            return Said::new(401, "").header("WWW-Authenticate: Basic realm=\"tests\"");
        }
        Said::new(307, "").header(&format!("Location: https://{place}{path}"))
    });
    let fetch = Fetch::new(&image);
    fetch.log_in(front.address, PASSWORD);
    let output = fetch.run(front.address, &image.index);
    assert_eq!(passing(&json(&output)), 3, "{}", text(&output.stderr));

    // There, a challenge is not answered: neither with a password, nor with a token of a token server that it names.
    for challenge in ["Basic realm=\"x\"", "Bearer realm=\"https://HOST/token\",service=\"x\""] {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        let elsewhere = Server::start(move |path, head| {
            if authorization(head).is_some() || path.starts_with("/token") {
                hears.lock().expect("not poisoned").push(head.to_owned());
            }
            let challenge = challenge.replace("HOST", &header(head, "host").expect("HTTP/1.1 has it"));
            Said::new(401, "").header(&format!("WWW-Authenticate: {challenge}"))
        });
        let place = elsewhere.address;
        let front = Server::start(move |path, _| {
            Said::new(307, "").header(&format!("Location: https://{place}{path}"))
        });
        fetch.log_in(front.address, PASSWORD);
        let password = fs::read_to_string(fetch.at("auth.json")).expect("written");
        let identity = json!({"auths": {front.address.to_string(): {"identitytoken": "t"}}}).to_string();
        for credentials in [password, identity] {
            fs::write(fetch.at("auth.json"), &credentials).expect("written");
            let why = text(&fetch.run(front.address, &image.index).stderr);
            assert!(why.contains(&format!("by {place}, where it redirects to")), "{challenge}: {why}");
            assert!(elsewhere.asked() > 0);
            assert_eq!(
                *told.lock().expect("not poisoned"),
                Vec::<String>::new(),
                "{challenge}: {credentials}"
            );
        }
    }

    // In a circle.
    let circle = Server::start(|path, _| Said::new(302, "").header(&format!("Location: {path}")));
    let said = json(&fetch.run(circle.address, &image.index));
    assert!(said["unread"].to_string().contains("more than 5 redirects"), "{said:#}");

    // Without TLS there is no way.
    let plain = Server::start(|_, _| Said::new(302, "").header("Location: http://127.0.0.1/"));
    let said = json(&fetch.run(plain.address, &image.index));
    assert!(said["unread"].to_string().contains("expected https"), "{said:#}");

    // Overloaded for a moment.
    let times = AtomicUsize::new(0);
    let (image, server) = registry(move |_, _, said| match times.fetch_add(1, Ordering::AcqRel) {
        0 | 1 => Said::new(503, "later"),
        _ => said,
    });
    let fetch = Fetch::new(&image);
    assert_eq!(passing(&json(&fetch.run(server.address, &image.index))), 3);

    // Far more than its descriptor says.
    let (image, server) = registry(|path, _, said| match path.contains("/blobs/") {
        true => Said::new(200, vec![b' '; 1 << 20]),
        false => said,
    });
    let said = json(&Fetch::new(&image).run(server.address, &image.index));
    assert!(said["unread"].to_string().contains("refused: more than"), "{said:#}");
    assert_eq!(passing(&said), 0);
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

/// The value of the header, names in any case.
fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

fn authorization(head: &str) -> Option<String> {
    header(head, "authorization")
}

#[test]
fn a_token_server() {
    let (image, server) = registry(|path, head, said| {
        let host = header(head, "host").expect("HTTP/1.1 has it");
        if let Some(asked) = path.strip_prefix("/token?") {
            let right = authorization(head) == Some(basic())
                && asked == "service=tests&scope=repository%3Ateam%2Fweb%3Apull";
            return if right {
                Said::new(200, r#"{"token":"for-some-minutes"}"#)
            } else {
                Said::new(401, "")
            };
        }
        if authorization(head).as_deref() == Some("Bearer for-some-minutes") {
            return said;
        }
        let challenge = format!("WWW-Authenticate: Bearer realm=\"https://{host}/token\",service=\"tests\"");
        Said::new(401, "").header(&challenge)
    });
    let fetch = Fetch::new(&image);
    fetch.log_in(server.address, PASSWORD);
    let output = fetch.run(server.address, &image.index);
    assert_eq!(passing(&json(&output)), 3, "{}", text(&output.stderr));
    fetch.log_in(server.address, "wrong");
    let why = text(&fetch.run(server.address, &image.index).stderr);
    assert!(why.contains("its token server answers 401"), "{why}");
}

#[test]
fn through_a_proxy() {
    let (image, server) = registry(|_, _, said| said);
    let fetch = Fetch::new(&image);
    let (tunnel, used) = tls::tunnel();
    let run = |proxy: &str, spared: &str| {
        let mut command = fetch.command(server.address, &image.index);
        command.env("HTTPS_PROXY", proxy).env("NO_PROXY", spared);
        command.arg("--ca").arg(Authority::get().ca()).arg("--json").output().expect("muster runs")
    };
    let passed = |output: &Output| assert_eq!(passing(&json(output)), 3, "{}", text(&output.stderr));
    passed(&run(&format!("http://{tunnel}"), "127.0.0.1"));
    assert_eq!(used.load(Ordering::Acquire), 0, "it is excepted");
    passed(&run(&format!("http://{tunnel}"), ""));
    assert!(used.load(Ordering::Acquire) > 0, "it goes through the proxy");
    let why = text(&run("socks5://127.0.0.1:1", "").stderr);
    assert!(why.contains("http://HOST:PORT in HTTPS_PROXY"), "{why}");
}

/// Asks as the agent does: with little patience, and remembering what was not there.
fn ask(sources: &Sources, address: SocketAddr, image: &Image) -> (Found, Duration) {
    let reference = format!("{address}/team/web@sha256:{}", image.index).parse().expect("a reference");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let started = Instant::now();
    let found = runtime.block_on(sources.candidates(Some(&reference), &[], Scope::Here));
    (found, started.elapsed())
}

/// For what asks in this process, and so with its environment.
fn asking() -> config::Attestation {
    let is_set = |names: [&str; 4]| names.iter().any(|name| std::env::var_os(name).is_some());
    let proxied = is_set(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]);
    let spared = ["NO_PROXY", "no_proxy"].map(|name| std::env::var(name).unwrap_or_default());
    assert!(
        !proxied || spared.iter().any(|names| names.contains("127.0.0.1")),
        "a proxy is set: run the tests with NO_PROXY=127.0.0.1"
    );
    let registry = config::Registry {
        enabled: true,
        ca_files: vec![Authority::get().ca()],
        timeout_seconds: 1,
        ..config::Registry::default()
    };
    config::Attestation { registry, ..config::Attestation::default() }
}

fn sources() -> Sources {
    Sources::new(&asking()).expect("sources")
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The configuration of a workload that runs the image, of which just these digests are said.
fn workload(image: &Image, from: SocketAddr, digests: &str) -> (tempfile::TempDir, Config) {
    let directory = tempfile::tempdir().expect("a directory");
    let key = directory.path().join("key.pub");
    fs::write(&key, image.key.public_pem()).expect("written");
    let text = format!(
        "[[workload]]\ncgroup = \"/web/**\"\n{digests}\nreference = \"{from}/team/web@sha256:{}\"\n",
        image.index
    );
    fs::write(directory.path().join("muster.toml"), text).expect("written");
    let mut config = Config::load(&directory.path().join("muster.toml")).expect("a configuration");
    let drop_directory = directory.path().join("attestations");
    fs::create_dir(&drop_directory).expect("a directory");
    config.attestation = config::Attestation {
        directory: drop_directory,
        keys: vec![key],
        verified_directory: PathBuf::new(),
        ..asking()
    };
    config.host.directory = PathBuf::new();
    (directory, config)
}

fn manifest_and_index(image: &Image) -> String {
    format!("image = \"sha256:{}\"\nindex = \"sha256:{}\"", image.manifest, image.index)
}

/// The configuration has the image's reference and nothing else, and what is signed is about the index.
#[test]
fn the_digest_of_an_index_is_enough() {
    let image = Image::new(true);
    let registry = Registry::start(false);
    registry.push(&image, "team/web");
    let (_directory, config) =
        workload(&image, registry.address, &format!("image = \"sha256:{}\"", image.index));
    let wrong = image::of_layer("/usr/bin/wrong", Sha256([0x5a; 32]));
    let wrong = image::envelope(&image.key, image.index, &wrong);
    fs::write(config.attestation.directory.join("wrong.json"), wrong).expect("written");
    let digests = config.workloads[0].digests();

    let images = Images::new(&config, Metrics::new()).expect("images");
    images.load_now();
    let state = || images.get(&digests);
    // Nobody knows yet that it is an index.
    assert_eq!(state().binding(), Some(Binding::ImageDigest));
    let watch = images.watch().expect("a watch");
    wait_until("the registry is asked", || state().digests.config.is_some());
    let found = state();
    assert!(matches!(found.state, ImageState::Verified { .. }), "{found:?}");
    assert_eq!(found.digest, image.index, "it is shown as it was named");
    assert_eq!((found.digests.index, found.digests.manifest), (Some(image.index), Some(image.manifest)));
    assert!(found.digests.config.is_some());
    assert_eq!(found.digests.layers, [image::LAYER]);
    let referrer =
        found.documents().iter().find(|of| of.file.contains("referrer")).expect("the referrer counts");
    assert_eq!(referrer.binding, Binding::IndexDigest);
    assert!(found.index().expect("an SBOM").by_path(b"/usr/bin/by-referrer").is_some());
    assert!(found.index().expect("an SBOM").by_path(b"/usr/bin/wrong").is_none());
    let aside = found.aside.iter().find(|of| of.file == "wrong.json").expect("it does not count");
    assert!(aside.reason.contains("layer sha256:5a5a"), "{}", aside.reason);
    drop(watch);
}

#[test]
fn the_agent_asks_for_the_images_of_its_configuration() {
    let (image, server) = registry(|_, _, said| said);
    let (_directory, config) = workload(&image, server.address, &manifest_and_index(&image));
    let digests: Digests = config.workloads[0].digests();

    let images = Images::new(&config, Metrics::new()).expect("images");
    images.load_now();
    assert!(matches!(images.get(&digests).state, ImageState::NoSbom), "nobody was asked yet");
    let watch = images.watch().expect("a watch");
    let is_verified = || matches!(images.get(&digests).state, ImageState::Verified { .. });
    wait_until("the registry is asked", is_verified);
    let image = images.get(&digests);
    let from = &image.documents()[0].file;
    assert!(from.starts_with(&format!("{}/team/web", server.address)), "{from}");
    assert!(
        images.refused().iter().any(|refused| refused.reason.contains("signed by 0 of")),
        "by another key"
    );

    // It ends, and is asked again: what it held still counts.
    drop(server);
    images.reload(&config).expect("a configuration");
    drop(watch);
    let watch = images.watch().expect("a watch");
    wait_until("it is down", || {
        images.refused().iter().any(|refused| refused.reason.contains("cannot be reached"))
    });
    assert!(is_verified());
    assert!(images.refused().iter().all(|refused| !refused.reason.contains("signed by 0 of")));
    drop(watch);
}

#[test]
fn the_end_does_not_wait_for_a_registry() {
    let (image, server) = registry(|_, _, mut said| {
        said.before = Duration::from_secs(60);
        said
    });
    let (_directory, mut config) = workload(&image, server.address, &manifest_and_index(&image));
    config.attestation.registry.timeout_seconds = 60;
    let images = Images::new(&config, Metrics::new()).expect("images");
    let watch = images.watch().expect("a watch");
    wait_until("it is asked", || server.asked() > 0);
    let started = Instant::now();
    drop(watch);
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
}

#[test]
fn a_slow_registry_costs_bounded_time_and_is_not_asked_again_soon() {
    for (stops_after, reason) in
        [(None, "no answer within 1s"), (Some(10), "nothing came for 1s after 10 bytes")]
    {
        let (image, server) = registry(move |_, _, mut said| {
            match stops_after {
                None => said.before = Duration::from_secs(60),
                Some(_) => said.stops_after = stops_after,
            }
            said
        });
        let sources = sources();
        let (found, took) = ask(&sources, server.address, &image);
        let why = found.unreachable.expect("it is as good as not there");
        assert!(why.contains(reason), "{why}");
        // Three attempts of a second, and the pauses between them; ten seconds would be the end in any case.
        assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(11), "took {took:?}");
        let asked = server.asked();
        assert!((1..=3).contains(&asked), "asked {asked} times");
        let (again, took) = ask(&sources, server.address, &image);
        assert_eq!((again.unreachable.as_deref(), server.asked()), (Some(&*why), asked));
        assert!(took < Duration::from_millis(500), "took {took:?}");
    }
}

#[test]
fn that_there_is_nothing_is_remembered_and_what_is_there_is_not() {
    let (image, server) = registry(|_, _, said| said);
    let sources = sources();
    for round in 1..=2 {
        let before = server.asked();
        assert_eq!(ask(&sources, server.address, &image).0.candidates.len(), 5, "round {round}");
        assert!(server.asked() > before, "round {round}");
    }
    let nothing = Server::start(|_, _| Said::new(404, ""));
    assert!(ask(&sources, nothing.address, &image).0.candidates.is_empty());
    let asked = nothing.asked();
    assert!(ask(&sources, nothing.address, &image).0.candidates.is_empty());
    assert!(asked > 0 && nothing.asked() == asked);
}
