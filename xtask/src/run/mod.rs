//! `cargo xtask run`: the main job on this host. An SBOM of the host, signed with a key made here; the agent with the kernel
//! programs attached; findings by the gRPC client; and a short demonstration of harmless misbehaviour.

mod agent;
mod demo;
mod host;
mod measure;

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::{build, paths, shell};

pub(crate) use measure::{measure, record};

/// Arguments of `cargo xtask run`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// End after the demonstration; exit status 0 only if each finding came exactly as expected.
    #[arg(long)]
    pub(crate) once: bool,
}

impl Args {
    /// Runs it.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        if !nix::unistd::geteuid().is_root() {
            bail!(
                "attaching kernel programs takes root, found user {}; run: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask run",
                nix::unistd::geteuid()
            );
        }
        build::release(&["muster", "tool"])?;
        let place = Place::make()?;
        let image = host::attest(&place).context("attesting this host")?;
        let demo = demo::Demo::prepare(&place, &image).context("preparing the demonstration")?;
        let config = configure(&place, &image)?;
        let mut agent = agent::Agent::start(&place, &config, None)?;
        let passed = demo.play(&mut agent)?;
        if self.once {
            agent.stop()?;
            return Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        println!(
            "\nwatching this host; Ctrl-C ends it. The agent's log: {}",
            place.file("agent.log").display()
        );
        agent.watch()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The private directory of these runs.
struct Place {
    directory: PathBuf,
}

impl Place {
    fn make() -> anyhow::Result<Self> {
        let directory = paths::target().join("run");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        let place = Self { directory: fs::canonicalize(directory)? };
        fs::create_dir_all(place.attestations())?;
        let (private, public) = (place.file("key.pem"), place.file("key.pub"));
        if !private.exists() || !public.exists() {
            for half in [&private, &public] {
                if half.exists() {
                    fs::remove_file(half)?;
                }
            }
            let mut keygen = place.muster(&["attest", "keygen"]);
            shell::run(keygen.arg("--private").arg(&private).arg("--public").arg(&public))?;
        }
        Ok(place)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn attestations(&self) -> PathBuf {
        self.file("attestations")
    }

    fn muster(&self, args: &[&str]) -> std::process::Command {
        shell::command(paths::release("muster"), args)
    }

    fn background(&self, args: &[&str]) -> std::process::Command {
        shell::background(paths::release("muster"), args)
    }

    /// Signs an SBOM for this image, into the drop directory.
    fn sign(&self, sbom: &Path, image: &str, name: &str) -> anyhow::Result<()> {
        let mut sign = self.muster(&["attest", "sign"]);
        sign.arg(sbom).arg("--key").arg(self.file("key.pem"));
        sign.arg("--subject").arg(format!("host@{image}"));
        shell::run(sign.arg("--output").arg(self.attestations().join(name)))
    }
}

fn configure(place: &Place, image: &str) -> anyhow::Result<PathBuf> {
    let config = place.file("muster.toml");
    let text = |path: PathBuf| toml_text(&path.to_string_lossy());
    fs::write(
        &config,
        format!(
            "[host]\nimage = \"{image}\"\n\n\
             [attestation]\ndirectory = {}\nkeys = [{}]\nverified_directory = \"\"\n\n\
             [feed]\nsocket = {}\n\n\
             [metrics]\nlisten = \"\"\n",
            text(place.attestations()),
            text(place.file("key.pub")),
            text(place.file("muster.sock")),
        ),
    )?;
    Ok(config)
}

/// A basic string of TOML.
fn toml_text(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_in_toml() {
        assert_eq!(super::toml_text(r#"/a "b"\c"#), r#""/a \"b\"\\c""#);
        assert_eq!(super::toml_text("\n"), r#""\u000A""#);
    }
}
