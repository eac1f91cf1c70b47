//! `muster explain`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use anyhow::bail;
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
    #[arg(value_name = "PATH|DIGEST")]
    what: OsString,
    /// Only this image.
    #[arg(long, value_name = "DIGEST")]
    image: Option<Sha256>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs `muster explain`. The exit status is 1 when no verified SBOM has it.
    ///
    /// # Errors
    /// Neither a path nor a digest was given, or no agent answers.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { agent, what, image, json } = self;
        let asked = FilePath::from(what.as_bytes()).to_string();
        let digest = what.to_str().and_then(|text| text.parse::<Sha256>().ok());
        let what = match digest {
            Some(digest) => What::Sha256(digest.to_string()),
            None if what.as_bytes().starts_with(b"/") => {
                What::Path(FilePath::from(what.as_bytes()).to_string())
            }
            None => bail!(
                "expected an absolute path or a SHA-256 (64 hexadecimal digits), found {:?}",
                what.display().to_string()
            ),
        };
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
