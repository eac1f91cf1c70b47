//! `muster explain`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use muster_proto::v1::ExplainRequest;
use muster_proto::v1::explain_request::What;

use super::client::{Agent, gone, print};
use crate::event::FilePath;
use crate::feed::status_text;
use crate::finding::Sha256;

/// Arguments of `muster explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    agent: Agent,
    /// Absolute path in the image, or SHA-256.
    #[arg(value_name = "PATH|DIGEST", value_parser = OsStringValueParser::new().try_map(|given| Asked::parse(&given)))]
    what: Asked,
    /// Only this image.
    #[arg(long, value_name = "DIGEST")]
    image: Option<Sha256>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What is asked about.
#[derive(Clone, Debug)]
struct Asked {
    as_given: String,
    what: What,
}

impl Asked {
    fn parse(given: &OsStr) -> Result<Self, &'static str> {
        let as_given = FilePath::from(given.as_bytes()).to_string();
        let what = match as_given.parse::<Sha256>() {
            Ok(digest) => What::Sha256(digest.to_string()),
            Err(_) if given.as_bytes().starts_with(b"/") => What::Path(as_given.clone()),
            Err(_) => return Err("expected an absolute path or a SHA-256 (64 hexadecimal digits)"),
        };
        Ok(Self { as_given, what })
    }
}

impl Args {
    /// Runs `muster explain`. The exit status is 1 when no verified SBOM has it.
    ///
    /// # Errors
    /// No agent answers.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { agent, what: Asked { as_given: asked, what }, image, json } = self;
        let image_digest = image.map_or_else(String::new, |image| image.to_string());
        agent.run(async |mut client| {
            let request = ExplainRequest { what: Some(what), image_digest };
            let answer = client.explain(request).await.map_err(|status| gone(&status))?;
            let explanations = answer.into_inner().explanations;
            if json {
                print(format!("{:#}\n", status_text::explanations_json(&explanations)))?;
            } else if explanations.is_empty() {
                print(format!("{asked}: there is no verified SBOM to ask; `muster images` shows why\n"))?;
            } else {
                print(status_text::explanations(&asked, &explanations))?;
            }
            let known = status_text::is_known(&explanations);
            Ok(if known { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}
