//! `muster attest verify`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::USAGE;
use super::policy::Options;
use crate::attestation::{
    self, AttestationError, Limits, Policy, PredicateType, Provenance, Signed, Signers, Verified,
    VerifiedArtifact, Vex, is_over_artifact, verify, verify_artifact,
};
use crate::cli::input::read;
use crate::cli::output::{complain, note, tell};
use crate::finding::Sha256;
use crate::images::sbom_of;
use crate::mark::without_mark;
use crate::sbom::{self, Origin};

/// An artifact is held in memory, since some keys sign all of it and not its digest.
const MAX_ARTIFACT_BYTES: u64 = 4 << 30;

/// Arguments of `muster attest verify`.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// A DSSE envelope, or a Sigstore bundle (v0.1 to v0.3) of an attestation or of a signature over an artifact; or several, one per line
    /// (JSON lines): then it is verified if each of them is.
    file: PathBuf,
    #[command(flatten)]
    policy: Options,
    /// Digest of the image (or artifact) that it must be about.
    #[arg(long, value_name = "sha256:HEX", conflicts_with = "artifact")]
    subject: Option<Sha256>,
    /// File that it must be about.
    #[arg(long, value_name = "FILE")]
    artifact: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was verified.
pub(super) enum Good {
    Attestation(Box<Verified>, Predicate),
    Artifact(VerifiedArtifact),
}

/// What a predicate says.
pub(super) enum Predicate {
    /// An SBOM, and which image it says that it was made from.
    Sbom(Origin),
    /// What the agent does not read, in a format or version that it does not know, and why. The signature holds all the same.
    Unknown(String),
    Provenance(Provenance),
    Vex(Vex),
}

/// What the file must be about.
enum About {
    Anything,
    Digest(Sha256),
    Bytes(Vec<u8>),
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (policy, about, bytes) = match self.read() {
            Ok(input) => input,
            Err(error) => {
                complain(&error);
                return Ok(ExitCode::from(USAGE));
            }
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return self.answer(&self.file.display(), Err(error.to_string())),
        };
        let file = self.file.display();
        let Some(lines) = lines(&bytes) else { return self.one(&file, &bytes, &about, &policy) };
        let mut status = ExitCode::SUCCESS;
        for (number, line) in lines {
            let one = self.one(&format_args!("{file}:{number}"), line, &about, &policy)?;
            if one != ExitCode::SUCCESS && status != ExitCode::from(USAGE) {
                status = one;
            }
        }
        Ok(status)
    }

    fn one(
        &self,
        file: &dyn fmt::Display,
        bytes: &[u8],
        about: &About,
        policy: &Policy,
    ) -> anyhow::Result<ExitCode> {
        let over_artifact = is_over_artifact(bytes, &Limits::default());
        if let (Ok(true), About::Anything) = (&over_artifact, about) {
            note(format_args!(
                "muster: {file}: a signature over an artifact; name it with --artifact FILE (or --subject sha256:HEX)"
            ));
            return Ok(ExitCode::from(USAGE));
        }
        let good = over_artifact.map_err(|error| error.to_string()).and_then(|over_artifact| {
            if over_artifact { artifact(bytes, about, policy) } else { attestation(bytes, about, policy) }
        });
        self.answer(file, good)
    }

    fn answer(&self, file: &dyn fmt::Display, good: Result<Good, String>) -> anyhow::Result<ExitCode> {
        let status = if good.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        match good {
            Ok(good) if self.json => tell(format!("{:#}\n", good.json()))?,
            Ok(good) => {
                let mut out = Vec::new();
                good.write(format_args!("{file}: verified"), &mut out)?;
                tell(out)?;
            }
            Err(reason) if self.json => {
                tell(format!("{:#}\n", json!({"verified": false, "reason": reason})))?;
            }
            Err(reason) => note(format_args!("muster: {file}: refused: {reason}")),
        }
        Ok(status)
    }

    fn read(&self) -> anyhow::Result<(Policy, About, Result<Vec<u8>, AttestationError>)> {
        let policy = self.policy.policy()?;
        let about = match (&self.subject, &self.artifact) {
            (Some(digest), _) => About::Digest(*digest),
            (None, Some(artifact)) => match read(artifact, MAX_ARTIFACT_BYTES)? {
                Ok(bytes) => About::Bytes(bytes),
                Err(found) => anyhow::bail!(
                    "{}: artifact of {found} bytes, but at most {MAX_ARTIFACT_BYTES} are read; give its digest with --subject",
                    artifact.display()
                ),
            },
            (None, None) => About::Anything,
        };
        let limit = Limits::default().max_envelope_bytes;
        let bytes = read(&self.file, limit)?;
        Ok((policy, about, bytes.map_err(|bytes| AttestationError::EnvelopeTooLarge { bytes, limit })))
    }
}

/// The lines of a file of several attestations, each with its number from 1; `None` for a file that is one.
fn lines(bytes: &[u8]) -> Option<impl Iterator<Item = (usize, &[u8])>> {
    let lines = (1..).zip(bytes.split(|byte| *byte == b'\n'));
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    // One that is written for people ends its first line elsewhere.
    let (_, first) = lines.clone().next()?;
    let is_whole = serde_json::from_slice::<IgnoredAny>(without_mark(first)).is_ok();
    (is_whole && lines.clone().nth(1).is_some()).then_some(lines)
}

fn artifact(bytes: &[u8], about: &About, policy: &Policy) -> Result<Good, String> {
    let signed = match about {
        About::Anything => return Err(AttestationError::NotAnAttestation.to_string()),
        About::Digest(digest) => Signed::Digest(*digest),
        About::Bytes(bytes) => Signed::Bytes(bytes),
    };
    let verified = verify_artifact(bytes, signed, policy, &Limits::default());
    verified.map(Good::Artifact).map_err(|error| error.to_string())
}

fn attestation(bytes: &[u8], about: &About, policy: &Policy) -> Result<Good, String> {
    let limits = Limits::default();
    let verified = verify(bytes, policy, &limits).map_err(|error| error.to_string())?;
    let wanted = match about {
        About::Anything => None,
        About::Digest(digest) => Some(*digest),
        About::Bytes(bytes) => Some(attestation::sha256(bytes)),
    };
    if let Some(wanted) = wanted.filter(|wanted| !verified.statement.names(wanted)) {
        let found: Vec<_> = subjects(&verified).map(|digest| format!("sha256:{digest}")).collect();
        return Err(format!("the statement is about {}, not about sha256:{wanted}", found.join(", ")));
    }
    Good::attestation(verified, &limits)
}

/// What it is about.
pub(super) fn subjects(verified: &Verified) -> impl Iterator<Item = Sha256> + '_ {
    verified.statement.subjects.iter().filter_map(|subject| subject.sha256)
}

fn rfc3339(time: Option<SystemTime>) -> Option<String> {
    time.and_then(|time| OffsetDateTime::from(time).format(&Rfc3339).ok())
}

impl Good {
    /// A verified attestation whose predicate can be read.
    pub(super) fn attestation(verified: Verified, limits: &Limits) -> Result<Self, String> {
        let document = verified.statement.predicate();
        let predicate = match verified.statement.predicate_type {
            PredicateType::SlsaProvenance => {
                Provenance::parse(document, limits).map(Predicate::Provenance).map_err(|e| e.to_string())
            }
            PredicateType::OpenVex => {
                Vex::parse(document, limits).map(Predicate::Vex).map_err(|e| e.to_string())
            }
            // As the agent reads it: what it would refuse is not good.
            _ => match sbom_of(&verified.statement, &sbom::Limits::default()) {
                Ok(index) => Ok(Predicate::Sbom(index.origin().clone())),
                Err(reason) if is_unknown(document) => Ok(Predicate::Unknown(reason)),
                Err(reason) => Err(reason),
            },
        };
        let predicate = predicate.map_err(|reason| format!("its signature is good, but {reason}"))?;
        Ok(Self::Attestation(Box::new(verified), predicate))
    }

    pub(super) fn json(&self) -> Value {
        let (sha256, signers, time) = match self {
            Self::Attestation(verified, _) => (verified.sha256, &verified.signers, verified.time),
            Self::Artifact(verified) => (verified.sha256, &verified.signers, verified.time),
        };
        let mut out = json!({
            "verified": true,
            "envelope_sha256": sha256.to_string(),
            "keys": signers.keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "identity": signers.identity.as_ref().map(|signer| &signer.identity),
            "issuer": signers.identity.as_ref().map(|signer| &signer.issuer),
            "signed_at": rfc3339(time),
        });
        let Self::Attestation(verified, predicate) = self else { return out };
        let statement = &verified.statement;
        let subjects = statement.subjects.iter().map(|subject| {
            json!({"name": subject.name, "sha256": subject.sha256.map(|digest| digest.to_string())})
        });
        out["subjects"] = subjects.collect();
        out["predicate_type"] = json!(statement.predicate_uri);
        out["document_sha256"] = json!(attestation::sha256(statement.predicate()).to_string());
        out["document_bytes"] = json!(statement.predicate().len());
        match predicate {
            Predicate::Sbom(_) => {}
            Predicate::Unknown(reason) => out["not_read"] = json!(reason),
            Predicate::Provenance(Provenance { builder, source, commit }) => {
                out["provenance"] = json!({"builder": builder, "source": source, "commit": commit});
            }
            Predicate::Vex(vex) => out["vex_packages"] = json!(vex.packages().count()),
        }
        out
    }

    /// For a person, below a heading.
    pub(super) fn write(&self, heading: impl fmt::Display, out: &mut impl io::Write) -> io::Result<()> {
        writeln!(out, "{heading}")?;
        match self {
            Self::Artifact(verified) => write_signers(&verified.signers, verified.time, out),
            Self::Attestation(verified, predicate) => {
                write_signers(&verified.signers, verified.time, out)?;
                let statement = &verified.statement;
                for subject in &statement.subjects {
                    let digest = subject
                        .sha256
                        .map_or_else(|| "no sha256".into(), |digest| format!("sha256:{digest}"));
                    writeln!(out, "  subject     {digest}  {:?}", subject.name)?;
                }
                writeln!(out, "  type        {}", statement.predicate_uri)?;
                let document = attestation::sha256(statement.predicate());
                writeln!(out, "  document    sha256:{document}  {} bytes", statement.predicate().len())?;
                predicate.write(out)
            }
        }
    }
}

/// What says of which format and version a JSON document is.
#[derive(Deserialize, Serialize)]
struct Head {
    #[serde(rename = "spdxVersion", skip_serializing_if = "Option::is_none")]
    spdx: Option<String>,
    #[serde(rename = "bomFormat", skip_serializing_if = "Option::is_none")]
    cyclonedx: Option<String>,
    #[serde(rename = "specVersion", skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<Schema>,
    /// SPDX 3 says its version in here.
    #[serde(rename = "@context", skip_serializing)]
    context: Option<IgnoredAny>,
}

#[derive(Deserialize, Serialize)]
struct Schema {
    version: String,
}

/// A document of no format, or of a version, that is read: one without any content would be refused, too.
fn is_unknown(document: &[u8]) -> bool {
    let Ok(head) = serde_json::from_slice::<Head>(document) else { return false };
    if head.context.is_some() {
        return false;
    }
    let mut empty = json!(head);
    if head.schema.is_some() {
        empty["artifacts"] = json!([]);
    }
    sbom::parse(empty.to_string().as_bytes(), &sbom::Limits::default()).is_err()
}

impl Predicate {
    fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        match self {
            Self::Sbom(_) => Ok(()),
            Self::Unknown(reason) => writeln!(out, "  not read    the agent will refuse it: {reason}"),
            Self::Provenance(Provenance { builder, source, commit }) => {
                for (name, said) in [("builder", builder), ("source", source), ("commit", commit)] {
                    match said {
                        Some(said) => writeln!(out, "  {name:<11} {said:?}")?,
                        None => writeln!(out, "  {name:<11} not stated")?,
                    }
                }
                Ok(())
            }
            Self::Vex(vex) => writeln!(
                out,
                "  packages    {} ({} products have no package URL)",
                vex.packages().count(),
                vex.without_purl
            ),
        }
    }
}

fn write_signers(signers: &Signers, time: Option<SystemTime>, out: &mut impl io::Write) -> io::Result<()> {
    for key in &signers.keys {
        writeln!(out, "  signed by   key {key}")?;
    }
    if let Some(signer) = &signers.identity {
        writeln!(out, "  signed by   {:?}", signer.identity)?;
        writeln!(out, "  issuer      {:?}", signer.issuer)?;
    }
    match rfc3339(time) {
        Some(time) => writeln!(out, "  signed at   {time}"),
        None => Ok(()),
    }
}
