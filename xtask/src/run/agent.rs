//! A running agent and a client that collects its findings.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::Place;
use crate::shell::{self, Background};

/// Longest wait for the agent to be ready, its SBOMs loaded.
const START: Duration = Duration::from_secs(60);

/// A finding, as far as the demonstration looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Finding {
    pub(super) verdict: String,
    pub(super) severity: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) path: String,
    #[serde(default)]
    pub(super) operation: String,
    #[serde(default)]
    pub(super) reason: String,
}

/// The agent, and `muster watch` beside it.
pub(super) struct Agent<'a> {
    place: &'a Place,
    // In this order: the client goes away before the agent that it watches.
    client: Background,
    agent: Background,
    findings: Receiver<anyhow::Result<Finding>>,
}

impl<'a> Agent<'a> {
    /// Starts the agent and waits until it has verified this host's SBOM and shows its findings.
    ///
    /// With `record`, it writes what it sees to that file.
    pub(super) fn start(place: &'a Place, config: &Path, record: Option<&Path>) -> anyhow::Result<Self> {
        let log = place.file("agent.log");
        let out = fs::File::create(&log)?;
        let mut command = place.background(&["agent", "--config"]);
        command.arg(config);
        if let Some(recording) = record {
            command.arg("--record").arg(recording);
        }
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        eprintln!("  $ {}", shell::typed(&command));
        let mut agent = Background::start(&mut command)?;
        let begin = Instant::now();
        loop {
            if let Some(status) = agent.ended()? {
                bail!("the agent ended with {status}; its log:\n{}", fs::read_to_string(&log)?.trim_end());
            }
            let images =
                place.muster(&["images", "--json", "--socket"]).arg(place.file("muster.sock")).output()?;
            if images.status.success() && verified(&images.stdout)? {
                break;
            }
            if begin.elapsed() > START {
                bail!(
                    "no verified SBOM of this host within {START:?}; images: {}{}; the agent's log:\n{}",
                    String::from_utf8_lossy(&images.stdout).trim_end(),
                    String::from_utf8_lossy(&images.stderr).trim_end(),
                    fs::read_to_string(&log)?.trim_end()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut watch = place.background(&["watch", "--json", "--after", "0", "--socket"]);
        watch.arg(place.file("muster.sock")).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut client = Background::start(watch.stderr(fs::File::create(place.file("watch.log"))?))?;
        let lines = client.child().stdout.take().context("the client's output")?;
        let (send, findings) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines() {
                let finding = line.map_err(anyhow::Error::from).and_then(|line| {
                    serde_json::from_str(&line).with_context(|| format!("not a finding: {line}"))
                });
                if send.send(finding).is_err() {
                    break;
                }
            }
        });
        Ok(Self { place, client, agent, findings })
    }

    /// The agent's process id.
    pub(super) fn pid(&mut self) -> u32 {
        self.agent.child().id()
    }

    /// Waits for the next finding; `None` when none came in time.
    pub(super) fn next(&mut self, limit: Duration) -> anyhow::Result<Option<Finding>> {
        match self.findings.recv_timeout(limit) {
            Ok(finding) => finding.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!(
                "`muster watch` ended: {}; the agent's log:\n{}",
                fs::read_to_string(self.place.file("watch.log"))?.trim_end(),
                fs::read_to_string(self.place.file("agent.log"))?.trim_end()
            ),
        }
    }

    /// Shows findings until somebody ends it. The whole foreground gets Ctrl-C, and whatever this task started ends with it.
    pub(super) fn watch(&mut self) -> anyhow::Result<()> {
        self.client.stop(Duration::from_secs(2))?;
        let socket = self.place.file("muster.sock");
        let mut table = Background::start(
            self.place.background(&["watch", "--socket"]).arg(socket).stdin(Stdio::null()),
        )?;
        loop {
            if let Some(status) = self.agent.ended()? {
                let log = fs::read_to_string(self.place.file("agent.log"))?;
                bail!("the agent ended with {status}; its log:\n{}", log.trim_end());
            }
            if let Some(status) = table.wait(Duration::from_millis(500))? {
                bail!("`muster watch` ended with {status}");
            }
        }
    }

    /// Ends client and agent.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.client.stop(Duration::from_secs(2))?;
        if !self.agent.stop(Duration::from_secs(6))? {
            bail!("the agent did not drain within 6 s of SIGTERM and was killed");
        }
        Ok(())
    }
}

fn verified(json: &[u8]) -> anyhow::Result<bool> {
    let text = String::from_utf8_lossy(json);
    let images: Vec<serde_json::Value> =
        serde_json::from_slice(json).with_context(|| format!("not a list of images: {text}"))?;
    Ok(images.iter().any(|image| image["state"] == "verified"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_client() {
        let line = r#"{"sequence":1,"verdict":"unauthorized","severity":"critical","kind":"exec","path":"/x","documents":[],"reason":"r"}"#;
        let finding: Finding = serde_json::from_str(line).unwrap();
        assert_eq!(
            (finding.verdict.as_str(), finding.path.as_str(), finding.operation.as_str()),
            ("unauthorized", "/x", "")
        );
    }

    #[test]
    fn only_verified_counts() {
        assert!(verified(br#"[{"state":"no_sbom"},{"state":"verified"}]"#).unwrap());
        assert!(!verified(br#"[{"state":"unverified"}]"#).unwrap());
        verified(b"{}").unwrap_err();
    }
}
