//! `muster attest subject`: what an attestation about a host must name.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::output::{note, tell};
use crate::workload::Host;

/// Arguments of `muster attest subject`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// This host, as it runs: its dm-verity root hashes, and IMAGE_ID and IMAGE_VERSION of its os-release.
    #[arg(long, required_unless_present = "root")]
    host: bool,
    /// The root directory of an image that is being made: only IMAGE_ID and IMAGE_VERSION of its os-release.
    #[arg(long, value_name = "DIR", conflicts_with = "host")]
    root: Option<PathBuf>,
}

impl Args {
    /// Runs `muster attest subject`: one subject per line, strongest first, as `muster attest sign --subject` takes them.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let host = match &self.root {
            Some(root) => Host::of_root(root),
            None => Host::read(),
        };
        let lines: String =
            host.subjects().map(|(name, digest)| format!("{name}@sha256:{digest}\n")).collect();
        if lines.is_empty() {
            note(
                "muster: nothing names this image: no dm-verity root hash, and no IMAGE_ID with an IMAGE_VERSION in os-release; \
                 name it by a digest of your own and set host.image to it",
            );
            return Ok(ExitCode::FAILURE);
        }
        tell(lines)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use clap::Parser as _;

    use crate::cli::Cli;

    #[test]
    fn of_a_root_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().to_str().unwrap();
        let run =
            || Cli::try_parse_from(["muster", "attest", "subject", "--root", path]).unwrap().run().unwrap();
        assert_eq!(run(), ExitCode::FAILURE);
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/os-release"), "IMAGE_ID=edge\nIMAGE_VERSION=33\n").unwrap();
        assert_eq!(run(), ExitCode::SUCCESS);
        for args in [&[][..], &["--host", "--root", path]] {
            let args = [&["muster", "attest", "subject"], args].concat();
            assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2);
        }
    }
}
