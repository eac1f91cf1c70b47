//! The scenarios, and the stage that they run on.

mod connect;
mod exec;
mod file;
mod load;

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use muster_proto::v1::{self, Kind, Verdict};

use crate::agent::Agent;
use crate::expect::{Difference, Expect};
use crate::world::{self, World};

/// What a scenario may use.
pub struct Stage {
    /// The machine.
    pub world: World,
    /// The agent under test.
    pub agent: Agent,
    marks: u64,
}

/// One scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Does it, and says what must be found.
    pub run: fn(&mut Stage) -> anyhow::Result<Vec<Expect>>,
}

/// Every scenario, in the order in which they run.
pub fn all() -> Vec<Scenario> {
    [exec::scenarios(), file::scenarios(), connect::scenarios(), load::scenarios()]
        .into_iter()
        .flatten()
        .collect()
}

impl Stage {
    /// A stage on which nothing happened yet.
    pub fn new(world: World, agent: Agent) -> Self {
        Self { world, agent, marks: 0 }
    }

    /// Runs one scenario and compares.
    ///
    /// # Errors
    /// The scenario could not be done, or gave other findings than it must; the message lists them.
    pub fn play(
        &mut self,
        scenario: &Scenario,
        flavour: v1::Flavour,
        blind_spots: &[String],
    ) -> anyhow::Result<()> {
        self.settle().context("before the scenario")?;
        let mut expected = (scenario.run)(self)?;
        if flavour == v1::Flavour::Tracepoint {
            for words in expected.iter().filter_map(Expect::blind_spot) {
                anyhow::ensure!(
                    blind_spots.iter().any(|b| b.contains(words)),
                    "the agent does not name the blind spot {words:?}; it names {blind_spots:?}"
                );
            }
            expected.retain(|e| e.blind_spot().is_none());
        }
        let came = self.settle()?;
        let difference = Difference::of(&expected, &came);
        anyhow::ensure!(difference.is_empty(), "the findings differ:{difference}");
        Ok(())
    }

    /// Runs a fresh unknown program as a mark and returns every finding that came before its own. Events keep their order within
    /// a workload, so nothing of the host can be outstanding after it.
    ///
    /// # Errors
    /// The mark did not come.
    pub fn settle(&mut self) -> anyhow::Result<Vec<v1::Finding>> {
        self.marks += 1;
        let mark = self.world.tmpfs.join(format!("mark-{}", self.marks));
        world::copy(&self.world.tool, &mark)?;
        world::run(Command::new(&mark).arg("exit"))?;
        let path = mark.display().to_string();
        let mut came = self.agent.findings_until(|f| f.kind() == Kind::Exec && f.path == path)?;
        // The mark's own file was dropped before it ran: that is a finding, too, and not the scenario's.
        came.retain(|f| f.path != path);
        std::fs::remove_file(&mark)?;
        Ok(came)
    }
}

fn found(kind: Kind, verdict: Verdict, file: &std::path::Path) -> anyhow::Result<Expect> {
    Ok(Expect::new(kind, verdict, file.display().to_string()).sha256(world::sha256(file)?))
}

fn in_usr_bin(name: &str) -> PathBuf {
    PathBuf::from("/usr/bin").join(name)
}
