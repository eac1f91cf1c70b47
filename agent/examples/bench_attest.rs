//! How long verifying an attestation takes: lines of JSON for `cargo xtask bench`. Documents: real ones of the test data.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster::attestation::{Keys, Limits, Policy, TrustRoot, verify};
use muster::config::{self, Identity};
use nix::time::{ClockId, clock_gettime};

/// Goal: 1,000 attestations in 5 s of one processor.
const MILLISECONDS: f64 = 5.0;
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
