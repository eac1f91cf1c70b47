//! `muster attest …`.

#[cfg(test)]
#[path = "attest/tests.rs"]
mod data_tests;
mod fetch;
mod policy;
mod subject;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;

use super::input::read;
use super::output::{complain, note};
use super::save::{save, save_new};
use crate::attestation::key::Algorithm;
use crate::attestation::sign::{self, SignError, detect};
use crate::attestation::{Limits, PredicateType, PrivateKey, Subject};
use crate::finding::Sha256;
use crate::images::read_sbom;
use crate::sbom;
use verify::Verify;

/// Exit status when what a command was given cannot be used, as clap's.
const USAGE: u8 = 2;

/// Subcommands of `muster attest`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Verify a DSSE envelope or a Sigstore bundle, offline. Exit status: 0 verified, 1 refused, 2 wrong usage. Nothing is said of FILE
    /// by 2: it cannot be read, or a key, trust root or artifact that an option names cannot be read or is none. What FILE itself holds
    /// (certificate, log entry, timestamp, document) and is no good is 1.
    Verify(Verify),
    /// Show what a registry or an OCI layout directory holds for an image, and for which platforms the agent would count it. Exit
    /// status: 0 when at least one attestation passes, 1 when none does, 2 wrong usage.
    ///
    /// An attestation passes when it is verified and the agent would count it for at least one platform's image: an SBOM whose
    /// subject is the index counts only where what it says of its image proves the platform.
    Fetch(fetch::Fetch),
    /// Sign an SBOM: writes a DSSE envelope over an in-toto statement that names the image. Exit status: 0 signed, 1 refused (what
    /// the agent would not read is not signed) or not written, 2 wrong usage (unreadable SBOM or key included).
    Sign(Sign),
    /// Print what an attestation about a host must name as its subject.
    Subject(subject::Args),
    /// Make a key pair for `attest sign`. Existing files are never overwritten.
    Keygen(Keygen),
}

/// Arguments of `muster attest sign`.
#[derive(Debug, clap::Args)]
pub struct Sign {
    /// The SBOM: SPDX (JSON, tag-value, JSON-LD), CycloneDX JSON or syft-json.
    sbom: PathBuf,
    /// Private key, PEM PKCS#8 (BEGIN PRIVATE KEY): P-256, P-384 or Ed25519.
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Image that the SBOM is about; may be given more than once.
    #[arg(long = "subject", value_name = "[NAME@]sha256:HEX", required = true, value_parser = parse_subject)]
    subjects: Vec<Subject>,
    /// Predicate type, as `https://spdx.dev/Document/v2.3` [default: what the document is].
    #[arg(long, value_name = "URI", value_parser = predicate_type)]
    predicate_type: Option<String>,
    /// Where the envelope goes, whole or not at all; `-` is standard output [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Arguments of `muster attest keygen`.
#[derive(Debug, clap::Args)]
pub struct Keygen {
    /// Private key to make: PEM PKCS#8, mode 0600.
    #[arg(long, value_name = "FILE")]
    private: PathBuf,
    /// Public key to make: PEM.
    #[arg(long, value_name = "FILE")]
    public: PathBuf,
    /// Kind of key.
    #[arg(long, value_enum, default_value = "p256")]
    algorithm: KeyKind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyKind {
    /// ECDSA over P-256, SHA-256.
    P256,
    /// ECDSA over P-384, SHA-384.
    P384,
    /// Ed25519.
    Ed25519,
}

/// Takes a URI as it is, if it is of a type that is read.
fn predicate_type(uri: &str) -> Result<String, String> {
    uri.parse::<PredicateType>().map(|_| uri.to_owned())
}

fn parse_subject(text: &str) -> Result<Subject, String> {
    // A digest alone is its own name, as `attest verify --subject` takes it.
    let (name, digest) = text.rsplit_once('@').unwrap_or((text, text));
    if !digest.starts_with("sha256:") {
        return Err("expected sha256:HEX or NAME@sha256:HEX".to_owned());
    }
    let digest: Sha256 = digest.parse().map_err(|error| format!("{error}"))?;
    Ok(Subject { name: name.to_owned(), sha256: Some(digest) })
}

impl Command {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// Whatever stopped it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Verify(args) => args.run(),
            Self::Fetch(args) => args.run(),
            Self::Sign(args) => args.run(),
            Self::Subject(args) => args.run(),
            Self::Keygen(args) => args.run(),
        }
    }
}

impl Sign {
    fn run(self) -> anyhow::Result<ExitCode> {
        let limits = Limits::default();
        let inputs = PrivateKey::load(&self.key).map_err(anyhow::Error::from);
        let inputs = inputs.and_then(|key| Ok((key, read(&self.sbom, limits.max_sbom_bytes)?)));
        let (key, sbom) = match inputs {
            Ok(inputs) => inputs,
            Err(error) => {
                complain(&error);
                return Ok(ExitCode::from(USAGE));
            }
        };
        let name = self.sbom.display();
        let too_large = |found| SignError::TooLarge { found, limit: limits.max_sbom_bytes };
        let sbom = sbom.map_err(too_large).with_context(|| name.to_string())?;
        let of = detect(&sbom).with_context(|| name.to_string())?;
        // What the agent would refuse is not signed.
        read_sbom(&sbom, (of, of.uri()), &sbom::Limits::default())
            .map_err(|reason| anyhow::anyhow!("{name}: {reason}"))?;
        // The drop directory is watched: the envelope appears there whole or not at all.
        let signed = save(self.output.as_deref(), |out| {
            Ok(sign::sign(&sbom, &self.subjects, self.predicate_type.as_deref(), &key, &limits, out)?)
        })
        .with_context(|| name.to_string())?;
        note(format_args!("signed {name}: document sha256:{}, key {}", signed.document, signed.key));
        Ok(ExitCode::SUCCESS)
    }
}

impl Keygen {
    fn run(self) -> anyhow::Result<ExitCode> {
        let key = PrivateKey::generate(match self.algorithm {
            KeyKind::P256 => Algorithm::P256,
            KeyKind::P384 => Algorithm::P384,
            KeyKind::Ed25519 => Algorithm::Ed25519,
        })
        .map_err(|_| anyhow::anyhow!("the cryptographic provider made no key: no random numbers"))?;
        let private =
            key.to_pem().map_err(|_| anyhow::anyhow!("the cryptographic provider did not write the key"))?;
        save_new(&self.private, 0o600, private.as_bytes())?;
        if let Err(error) = save_new(&self.public, 0o644, key.public_pem().as_bytes()) {
            std::fs::remove_file(&self.private)
                .with_context(|| format!("{}: cannot remove the half of a pair", self.private.display()))?;
            return Err(error);
        }
        note(format_args!(
            "made key {}: {} (keep it secret) and {}",
            key.id(),
            self.private.display(),
            self.public.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::ExitCode;

    use clap::Parser as _;

    use crate::cli::Cli;

    const IMAGE: &str = "sha256:5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

    fn attest(args: &[&str]) -> anyhow::Result<ExitCode> {
        Cli::try_parse_from(["muster", "attest"].iter().chain(args)).expect("the arguments are right").run()
    }

    #[test]
    fn keygen_sign_verify() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_str().expect("the path is UTF-8").to_owned();
        let [key, public, other, other_public] = ["k.pem", "k.pub", "o.pem", "o.pub"].map(at);
        let [sbom, envelope] = ["sbom.json", "sbom.att.json"].map(at);
        for (private, public, kind) in [(&key, &public, "p256"), (&other, &other_public, "ed25519")] {
            let made = attest(&["keygen", "--private", private, "--public", public, "--algorithm", kind]);
            assert_eq!(made.unwrap(), ExitCode::SUCCESS);
            let mode = std::fs::metadata(private).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let before = std::fs::read(&key).unwrap();
        let new = at("new.pem");
        let text = format!("{:#}", attest(&["keygen", "--private", &new, "--public", &public]).unwrap_err());
        assert!(text.contains("not overwritten"), "{text}");
        assert!(!std::fs::exists(&new).unwrap(), "no half of a pair is left");
        attest(&["keygen", "--private", &key, "--public", &at("new.pub")])
            .expect_err("the private key is there");
        assert_eq!(std::fs::read(&key).unwrap(), before);

        std::fs::write(&sbom, "{\"spdxVersion\":\"SPDX-2.3\",\"files\":[],\"packages\":[]}\n").unwrap();
        let subject = format!("host@{IMAGE}");
        let signed = attest(&["sign", &sbom, "--key", &key, "--subject", &subject, "--output", &envelope]);
        assert_eq!(signed.unwrap(), ExitCode::SUCCESS);
        let left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".partial")), "{left:?}");

        let another = IMAGE.replace("5a", "6a");
        let (refused, usage) = (ExitCode::FAILURE, ExitCode::from(2));
        for (args, expected) in [
            (&["--key", &public][..], ExitCode::SUCCESS),
            (&["--key", &public, "--json"], ExitCode::SUCCESS),
            (&["--key", &public, "--subject", IMAGE], ExitCode::SUCCESS),
            (&["--key", &other_public, "--key", &public], ExitCode::SUCCESS),
            (&["--key", &public, "--subject", &another], refused),
            (&["--key", &other_public], refused),
            (&["--key", &other_public, "--json"], refused),
            (&["--key", &other_public, "--key", &public, "--threshold", "2"], refused),
            (&["--key", &public, "--key", &public, "--threshold", "2"], usage),
            (&["--key", &public, "--threshold", "0"], usage),
            (&["--key", &key], usage),
            (&["--key", &at("none.pub")], usage),
        ] {
            let args = [&["verify", &envelope], args].concat();
            assert_eq!(attest(&args).unwrap(), expected, "{args:?}");
        }
        assert_eq!(attest(&["verify", &at("none.json"), "--key", &public]).unwrap(), usage);
        assert_eq!(attest(&["verify", &sbom, "--key", &public]).unwrap(), refused);
        for bad in ["host", &IMAGE["sha256:".len()..], "host@sha256:00", "sha256:00"] {
            let args = ["muster", "attest", "sign", &sbom, "--key", &key, "--subject", bad];
            assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2, "{bad}");
        }
        assert_eq!(
            Cli::try_parse_from(["muster", "attest", "verify", &envelope]).unwrap_err().exit_code(),
            2
        );

        // One per line, as `gh attestation download` and `cosign verify-attestation` write them; and with a byte order mark.
        let one = std::fs::read_to_string(&envelope).unwrap();
        let lines = at("two");
        for (text, expected) in [
            (format!("{one}\n{one}\n"), ExitCode::SUCCESS),
            (format!("\n{one}\r\n\r\n{one}"), ExitCode::SUCCESS),
            (format!("{one}\n{{}}\n"), refused),
            (format!("{{}}\n{one}\n"), refused),
            (format!("{one}\nx"), refused),
            (format!("\u{feff}{one}"), ExitCode::SUCCESS),
            (format!("\u{feff}{one}\n{one}"), ExitCode::SUCCESS),
            (one.replace(',', ",\n"), ExitCode::SUCCESS),
        ] {
            std::fs::write(&lines, &text).unwrap();
            for json in [&[][..], &["--json"]] {
                let args = [&["verify", &lines, "--key", &public], json].concat();
                assert_eq!(attest(&args).unwrap(), expected, "{text}");
            }
        }
        // What is signed is the document without the mark.
        std::fs::write(&sbom, "\u{feff}{\"spdxVersion\":\"SPDX-2.3\"}").unwrap();
        let marked = at("marked.json");
        attest(&["sign", &sbom, "--key", &key, "--subject", &subject, "--output", &marked]).unwrap();
        assert_eq!(attest(&["verify", &marked, "--key", &public]).unwrap(), ExitCode::SUCCESS);

        std::fs::write(&sbom, "{\"bom\":\"CycloneDX\"}").unwrap();
        let text = attest(&["sign", &sbom, "--key", &key, "--subject", &subject, "--output", &at("c.json")]);
        assert!(format!("{:#}", text.unwrap_err()).contains("JSON of an unknown form"));
        assert!(!std::fs::exists(at("c.json")).unwrap());
    }
}
