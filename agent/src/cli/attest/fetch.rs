//! `muster attest fetch`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::USAGE;
use super::policy::Options;
use super::verify::{Good, subjects};
use crate::attestation::source::{Candidate, Found, Left, Reference, Scope, Sources};
use crate::attestation::{Limits, Policy};
use crate::config;
use crate::finding::Sha256;

/// Arguments of `muster attest fetch`.
#[derive(Debug, clap::Args)]
pub struct Fetch {
    /// The image, by digest: HOST/REPOSITORY@sha256:HEX, or oci:DIRECTORY@sha256:HEX for a directory in the OCI image layout.
    image: Place,
    #[command(flatten)]
    policy: Options,
    /// CA certificates of the registry, PEM, in addition to the system's; may be given more than once.
    #[arg(long = "ca", value_name = "FILE")]
    ca_files: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where an image is, and which one it is.
#[derive(Clone, Debug)]
enum Place {
    Registry(Reference),
    Layout(PathBuf, Sha256),
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(layout) = text.strip_prefix("oci:") else {
            return text.parse().map(Self::Registry).map_err(|error| format!("{error}"));
        };
        let expected = || format!("expected oci:DIRECTORY@sha256:HEX, found {text:?}");
        let (directory, digest) = layout.rsplit_once('@').ok_or_else(expected)?;
        let digest =
            digest.starts_with("sha256:").then(|| digest.parse().ok()).flatten().ok_or_else(expected)?;
        Ok(Self::Layout(directory.into(), digest))
    }
}

/// One candidate, and what became of it.
struct Judged<'f> {
    candidate: &'f Candidate,
    result: Result<Good, String>,
}

impl Fetch {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (policy, sources, runtime) = match self.prepare() {
            Ok(prepared) => prepared,
            Err(error) => {
                eprintln!("muster: {error:#}");
                return Ok(ExitCode::from(USAGE));
            }
        };
        let (reference, digest) = match &self.image {
            Place::Registry(reference) => (Some(reference), reference.digest()),
            Place::Layout(_, digest) => (None, *digest),
        };
        let found = runtime.block_on(sources.candidates(reference, &[digest], Scope::All));
        let (mut judged, mut others) = (Vec::new(), Vec::new());
        for candidate in &found.candidates {
            match judge(&found, candidate, &digest, &policy) {
                Some(result) => judged.push(Judged { candidate, result }),
                None => others.push(Left {
                    from: candidate.from.clone(),
                    reason: format!("{}: says only that the image is signed", candidate.form.as_str()),
                }),
            }
        }
        others.extend(found.others.iter().cloned());
        let passes = judged.iter().filter(|of| of.result.is_ok()).count();
        if self.json {
            println!("{}", report(&found, &judged, &others));
        } else {
            print(&found, &judged, &others);
            println!("{passes} of {} attestations pass", judged.len());
        }
        if let Some(reason) = &found.unreachable {
            eprintln!("muster: {reason}");
        }
        Ok(if passes > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn prepare(&self) -> anyhow::Result<(Policy, Sources, tokio::runtime::Runtime)> {
        let policy = self.policy.policy()?;
        let mut config = config::Attestation::default();
        match &self.image {
            Place::Layout(directory, _) => config.layouts.push(directory.clone()),
            Place::Registry(_) => {
                config.registry.enabled = true;
                config.registry.ca_files.clone_from(&self.ca_files);
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok((policy, Sources::new(&config)?, runtime.context("the system gives no thread")?))
    }
}

/// `None`: it is only a signature over the image.
fn judge(
    found: &Found,
    candidate: &Candidate,
    image: &Sha256,
    policy: &Policy,
) -> Option<Result<Good, String>> {
    let limits = Limits::default();
    let verified = match found.verify(candidate, policy, &limits)? {
        Ok(verified) => verified,
        Err(error) => return Some(Err(error.to_string())),
    };
    // Nobody but the digests in the statement ties it to the image: it may lie anywhere.
    if !subjects(&verified).any(|digest| digest == *image || found.digests.has(&digest)) {
        let about: Vec<_> = subjects(&verified).map(|digest| format!("sha256:{digest}")).collect();
        return Some(Err(format!("the statement is about {}, not about this image", about.join(", "))));
    }
    Some(Good::attestation(verified, &limits))
}

fn print(found: &Found, judged: &[Judged<'_>], others: &[Left]) {
    if let Some(index) = &found.digests.index {
        println!("index       sha256:{index}");
    }
    for of in &found.digests.platforms {
        let platform = of.platform.to_string();
        println!("{platform:<11} sha256:{}  config sha256:{}", of.manifest, of.config);
    }
    for Judged { candidate, result } in judged {
        match result {
            Ok(good) => good.print(&candidate.from),
            Err(reason) => println!("{}: refused: {reason}", candidate.from),
        }
    }
    for Left { from, reason } in &found.refused {
        println!("{from}: {reason}");
    }
    for Left { from, reason } in others {
        println!("{from}: not counted: {reason}");
    }
}

fn report(found: &Found, judged: &[Judged<'_>], others: &[Left]) -> Value {
    let sha256 = |digest: &Sha256| format!("sha256:{digest}");
    let left = |left: &Left| json!({"from": left.from, "reason": left.reason});
    let attestations = judged.iter().map(|Judged { candidate, result }| {
        let mut out = match result {
            Ok(good) => good.json(),
            Err(reason) => json!({"verified": false, "reason": reason}),
        };
        out["from"] = json!(candidate.from);
        out["form"] = json!(candidate.form.as_str());
        out
    });
    let platforms = found.digests.platforms.iter().map(|of| {
        json!({
            "platform": of.platform.to_string(), "manifest": sha256(&of.manifest), "config": sha256(&of.config),
            "layers": of.layers.iter().map(sha256).collect::<Vec<_>>(),
        })
    });
    json!({
        "index": found.digests.index.as_ref().map(sha256),
        "platforms": platforms.collect::<Vec<_>>(),
        "attestations": attestations.collect::<Vec<_>>(),
        "unread": found.refused.iter().map(left).collect::<Vec<_>>(),
        "not_counted": others.iter().map(left).collect::<Vec<_>>(),
        "unreachable": found.unreachable,
    })
}
