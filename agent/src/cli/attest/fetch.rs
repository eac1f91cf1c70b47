//! `muster attest fetch`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::USAGE;
use super::policy::Options;
use super::verify::{Good, Predicate, subjects};
use crate::attestation::source::{Candidate, Found, Left, PlatformDigests, Reference, Scope, Sources};
use crate::attestation::{Limits, Policy};
use crate::cli::output::{complain, note, tell};
use crate::config;
use crate::finding::{Binding, Sha256};
use crate::images::{Bound, Digests, bind};

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

/// One candidate, and what became of it: what it says, and what it is for each platform's image.
struct Judged<'f> {
    candidate: &'f Candidate,
    result: Result<(Good, Vec<Tie>), String>,
}

/// What a verified attestation is for one image that it is about.
struct Tie {
    /// The platform.
    of: String,
    /// What binds an SBOM; `None`: provenance and VEX count for every image that they name. An error: the agent will not count it.
    bound: Result<Option<Binding>, String>,
}

impl Judged<'_> {
    /// The agent would count it for one platform at least.
    fn counts(&self) -> bool {
        self.result.as_ref().is_ok_and(|(_, ties)| ties.iter().any(|tie| tie.bound.is_ok()))
    }
}

impl Fetch {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (policy, sources, runtime) = match self.prepare() {
            Ok(prepared) => prepared,
            Err(error) => {
                complain(&error);
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
        let passes = judged.iter().filter(|of| of.counts()).count();
        if let Some(reason) = &found.unreachable {
            note(format_args!("muster: {reason}"));
        }
        if self.json {
            tell(format!("{:#}\n", report(&found, &judged, &others)))?;
        } else {
            let mut out = Vec::new();
            write(&found, &judged, &others, &mut out)?;
            // What was not reached has none, and that is said already.
            if found.unreachable.is_none() || !judged.is_empty() {
                writeln!(out, "{passes} of {} attestations pass", judged.len())?;
            }
            tell(out)?;
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
) -> Option<Result<(Good, Vec<Tie>), String>> {
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
    Some(Good::attestation(verified, &limits).map(|good| {
        let ties = ties(&good, &images(found, image));
        (good, ties)
    }))
}

/// What the agent would know of each platform's image, were it configured with the digests that were found.
fn images(found: &Found, asked: &Sha256) -> Vec<(String, Digests)> {
    let index = found.digests.listed.iter().any(|of| of.index == *asked).then_some(*asked);
    let of_platform = |of: &PlatformDigests| {
        let said = Digests { index, manifest: Some(of.manifest), ..Digests::default() };
        let complete = found.digests.complete(&said).digests;
        (of.platform.to_string(), complete.unwrap_or(said))
    };
    match found.digests.platforms.as_slice() {
        // The image is not there, or cannot be read.
        [] => vec![("the image".to_owned(), Digests { index, ..Digests::named(*asked) })],
        platforms => platforms.iter().map(of_platform).collect(),
    }
}

/// For which images it counts, and for which it does not although it may be about them.
fn ties(good: &Good, images: &[(String, Digests)]) -> Vec<Tie> {
    let Good::Attestation(verified, predicate) = good else { return Vec::new() };
    let subjects: Vec<_> = subjects(verified).collect();
    let tie = |(of, digests): &(String, Digests)| {
        let bound = match predicate {
            Predicate::Unknown(_) => return None,
            Predicate::Sbom(origin) => match bind(digests, &subjects, origin)? {
                Bound::To(binding) => Ok(Some(binding)),
                Bound::Unproven(why) => Err(why),
            },
            Predicate::Provenance(_) | Predicate::Vex(_) => {
                let is_named = digests.subjects().any(|digest| subjects.contains(&digest));
                is_named.then_some(Ok(None))?
            }
        };
        Some(Tie { of: of.clone(), bound })
    };
    images.iter().filter_map(tie).collect()
}

fn write(found: &Found, judged: &[Judged<'_>], others: &[Left], out: &mut impl io::Write) -> io::Result<()> {
    if let Some(index) = &found.digests.index {
        writeln!(out, "index       sha256:{index}")?;
    }
    for of in &found.digests.platforms {
        let platform = of.platform.to_string();
        writeln!(out, "{platform:<11} sha256:{}  config sha256:{}", of.manifest, of.config)?;
    }
    for of in judged {
        let from = &of.candidate.from;
        match &of.result {
            Err(reason) => writeln!(out, "{from}: refused: {reason}")?,
            Ok((good, ties)) => {
                let but = if of.counts() { "" } else { ", but does not count" };
                good.write(format_args!("{from}: verified{but}"), out)?;
                for Tie { of, bound } in ties {
                    match bound {
                        Ok(Some(binding)) => {
                            writeln!(out, "  counts for  {of}, bound by {}", binding.as_str())?;
                        }
                        Ok(None) => writeln!(out, "  counts for  {of}")?,
                        Err(why) => writeln!(out, "  unproven    for {of}: {why}")?,
                    }
                }
            }
        }
    }
    for Left { from, reason } in &found.refused {
        writeln!(out, "{from}: {reason}")?;
    }
    for Left { from, reason } in others {
        writeln!(out, "{from}: not counted: {reason}")?;
    }
    Ok(())
}

fn report(found: &Found, judged: &[Judged<'_>], others: &[Left]) -> Value {
    let sha256 = |digest: &Sha256| format!("sha256:{digest}");
    let left = |left: &Left| json!({"from": left.from, "reason": left.reason});
    let tie = |Tie { of, bound }: &Tie| match bound {
        Ok(binding) => json!({"platform": of, "counts": true, "binding": binding.map(Binding::as_str)}),
        Err(why) => {
            json!({"platform": of, "counts": false, "binding": Binding::Unproven.as_str(), "reason": why})
        }
    };
    let attestations = judged.iter().map(|of| {
        let mut out = match &of.result {
            Ok((good, ties)) => {
                let mut out = good.json();
                out["platforms"] = ties.iter().map(tie).collect();
                out
            }
            Err(reason) => json!({"verified": false, "reason": reason}),
        };
        out["counts"] = json!(of.counts());
        out["from"] = json!(of.candidate.from);
        out["form"] = json!(of.candidate.form.as_str());
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
