//! How long verifying an attestation takes, and how long after it is dropped it counts: lines of JSON for `cargo xtask bench`.
//! Documents: real ones of the test data.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster::attestation::key::Algorithm;
use muster::attestation::sign::sign;
use muster::attestation::{Keys, Limits, Policy, PrivateKey, Subject, TrustRoot, verify};
use muster::config::{self, Config, Identity};
use muster::finding::Sha256;
use muster::identity::Digests;
use muster::images::Images;
use muster::metrics::Metrics;
use nix::time::{ClockId, clock_gettime};

/// Goal: 1,000 attestations in 5 s of one processor.
const MILLISECONDS: f64 = 5.0;
/// Attestations that are dropped, one after the other.
const DROPPED: u8 = 15;
const WORKFLOW: &str = "https://github.com/sigstore-conformance/**";
const ISSUER: &str = "https://token.actions.githubusercontent.com";

fn main() -> anyhow::Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/attestation");
    let case = |name: &str, file: &str| data.join("sigstore-conformance").join(name).join(file);
    let identity = || vec![Identity { identity: WORKFLOW.into(), issuer: ISSUER.into() }];
    let root = |from: config::TrustRoot| TrustRoot::load(&from).context("the trust root");
    let path = config::TrustRoot::Path;
    let keys = Keys::load(&[data.join("key-signed/cosign.pub")])?;
    measure(
        "DSSE, P-256, 80 kB",
        &data.join("key-signed/alpine.att.json"),
        &Policy::new(keys, 1, Vec::new(), root(config::TrustRoot::Embedded)?)?,
    )?;
    measure(
        "bundle, Rekor v1",
        &case("happy-path-intoto-in-dsse-v3", "bundle.sigstore.json"),
        &Policy::new(Keys::default(), 1, identity(), root(config::TrustRoot::Embedded)?)?,
    )?;
    measure(
        "bundle, Rekor v2",
        &case("rekor2-dsse-happy-path", "bundle.sigstore.json"),
        &Policy::new(
            Keys::default(),
            1,
            identity(),
            root(path(case("rekor2-dsse-happy-path", "trusted_root.json")))?,
        )?,
    )?;
    let took = median(|| TrustRoot::load(&config::TrustRoot::Embedded).map(drop).context("the trust root"))?;
    line("trust root", took);
    dropped(&data.join("../sbom/web.spdx.json"))
}

/// From the moment at which an attestation has its name in the drop directory, to that at which its image is judged by it; each
/// time another image's.
fn dropped(sbom: &Path) -> anyhow::Result<()> {
    let sbom = std::fs::read(sbom).with_context(|| format!("{}", sbom.display()))?;
    let directory = tempfile::tempdir()?;
    let key = PrivateKey::generate(Algorithm::P256)?;
    let public = directory.path().join("key.pub");
    std::fs::write(&public, key.public_pem())?;
    let attestation = config::Attestation {
        directory: directory.path().to_owned(),
        keys: vec![public],
        verified_directory: PathBuf::new(),
        ..config::Attestation::default()
    };
    let host =
        config::Host { directory: PathBuf::new(), image: None, signers: None, package_managers: Vec::new() };
    let images = Images::new(&Config { attestation, host, ..Config::default() }, Metrics::new())?;
    images.load_now();
    let _watch = images.watch()?;
    let mut times = Vec::new();
    for number in 1..=DROPPED {
        let image = Sha256([number; 32]);
        let subject = Subject { name: "web".into(), sha256: Some(image) };
        let mut envelope = Vec::new();
        sign(&sbom, &[subject], None, &key, &Limits::default(), &mut envelope)?;
        let hidden = directory.path().join(".new");
        std::fs::write(&hidden, &envelope)?;
        let begin = Instant::now();
        std::fs::rename(&hidden, directory.path().join(format!("{number}.json")))?;
        while images.get(&Digests::named(image)).index().is_none() {
            anyhow::ensure!(begin.elapsed() < Duration::from_secs(10), "refused: {:?}", images.refused());
            std::thread::sleep(Duration::from_micros(100));
        }
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    let line = serde_json::json!({
        "name": "an attestation dropped to applied, web.spdx.json, p50",
        "value": times[times.len() / 2].as_secs_f64() * 1e3, "unit": "ms",
    });
    println!("{line}");
    Ok(())
}

fn measure(name: &str, file: &PathBuf, policy: &Policy) -> anyhow::Result<()> {
    let bytes = std::fs::read(file)
        .with_context(|| format!("{}: the test data belongs beside the source tree", file.display()))?;
    let took = median(|| verify(&bytes, policy, &Limits::default()).map(drop).context("it is good"))?;
    line(name, took);
    Ok(())
}

fn line(name: &str, took: Duration) {
    let value = took.as_secs_f64() * 1e3;
    let line = serde_json::json!({
        "name": format!("verify, {name}"), "value": value, "unit": "ms", "at_most": MILLISECONDS,
    });
    println!("{line}");
}

fn median(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let (mut times, begin) = (Vec::new(), Instant::now());
    while times.len() < 5 || begin.elapsed().as_secs() < 1 {
        let start = processor_time()?;
        work()?;
        times.push(processor_time()? - start);
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Time that this process has computed: what the machine does beside it is not its cost.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}
