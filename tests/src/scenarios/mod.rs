//! The scenarios, and the stage that they run on.

pub mod attestation;
mod connect;
mod content;
mod exec;
mod file;
mod hour;
pub(crate) mod identity;
mod load;
mod names;
mod network;
mod rings;
mod socket;
mod update;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use muster_proto::v1::{self, Kind, Verdict};

use crate::agent::{Agent, PATIENCE};
use crate::expect::{Difference, Expect, describe};
use crate::losses::Losses;
use crate::world::{self, World};

/// What a scenario may use.
pub struct Stage {
    /// The machine.
    pub world: World,
    /// The agent under test.
    pub agent: Agent,
    marks: u64,
    /// Records that findings told as lost.
    told: Losses,
}

/// One scenario.
#[derive(Clone)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Does it, and says what must be found.
    pub run: fn(&mut Stage) -> anyhow::Result<Vec<Expect>>,
    /// Kinds of which records may be lost: those of the ring that the scenario fills. Each loss must be told.
    pub may_lose: &'static [Kind],
}

/// Where a scenario can come out differently. Each of these includes the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Differs {
    /// On no kernel: it is about what the agent does with what it is told.
    #[default]
    Nowhere,
    /// With each flavour.
    Flavour,
    /// On each kernel.
    Kernel,
}

/// All scenarios, in the order in which they run.
pub fn all() -> Vec<(Differs, Scenario)> {
    let of = |differs, scenarios: Vec<Scenario>| scenarios.into_iter().map(move |s| (differs, s));
    let mut all: Vec<_> = [exec::scenarios(), file::scenarios(), names::scenarios(), connect::scenarios()]
        .into_iter()
        .chain([content::scenarios(), network::scenarios(), identity::scenarios(), socket::scenarios()])
        .flat_map(|scenarios| of(Differs::Kernel, scenarios))
        .collect();
    let of_flavours = [update::scenarios(), hour::scenarios(), rings::scenarios(), load::scenarios()];
    all.extend(of_flavours.into_iter().flat_map(|scenarios| of(Differs::Flavour, scenarios)));
    all.extend(of(Differs::Nowhere, attestation::scenarios()));
    all.extend(of(Differs::Nowhere, load::of_the_agent()));
    // It looks at what all of them left in memory.
    all.extend(of(Differs::Kernel, vec![load::memory()]));
    all
}

impl Stage {
    /// A stage on which nothing happened yet.
    pub fn new(world: World, agent: Agent) -> Self {
        Self { world, agent, marks: 0, told: Losses::default() }
    }

    /// What the agent found to run already when it started must be just the suite's own program.
    ///
    /// # Errors
    /// It is something else, or was not judged.
    pub fn begins(&mut self) -> anyhow::Result<()> {
        crate::older::wait_until_judged(std::path::Path::new(world::AGENT_LOG))?;
        let difference = Difference::of(&[crate::older::suite()], &self.settle()?);
        ensure!(difference.is_empty(), "what ran before the agent:{difference}");
        Ok(())
    }

    /// Compares what came so far, for a scenario that takes something away afterwards.
    ///
    /// # Errors
    /// The findings differ.
    pub fn must_tell(&mut self, expected: &[Expect]) -> anyhow::Result<()> {
        let difference = Difference::of(expected, &self.settle()?);
        ensure!(difference.is_empty(), "the findings differ:{difference}");
        Ok(())
    }

    /// Runs one scenario and compares findings and losses.
    ///
    /// # Errors
    /// The scenario could not be done, gave other findings than it must, or lost records; the message lists them.
    pub fn play(
        &mut self,
        scenario: &Scenario,
        flavour: v1::Flavour,
        blind_spots: &[String],
    ) -> anyhow::Result<()> {
        self.settle().context("before the scenario")?;
        let (before, told) = (self.agent.status()?, self.told.clone());
        let mut expected = (scenario.run)(self)?;
        if flavour == v1::Flavour::Tracepoint {
            for words in expected.iter().filter_map(Expect::blind_spot) {
                ensure!(
                    blind_spots.iter().any(|b| b.contains(words)),
                    "the agent does not name the blind spot {words:?}; it names {blind_spots:?}"
                );
            }
            expected.retain(|e| e.blind_spot().is_none());
        }
        let mut came = self.settle()?;
        self.account(scenario, &before, &told, &mut came)?;
        let difference = Difference::of(&expected, &came);
        ensure!(difference.is_empty(), "the findings differ:{difference}");
        Ok(())
    }

    /// No record refused, none lost but those that may be, and of those each told. `told`: before the scenario.
    fn account(
        &mut self,
        scenario: &Scenario,
        before: &v1::Status,
        told: &Losses,
        came: &mut Vec<v1::Finding>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let after = self.agent.status()?;
            let refused = Losses::refused(&after).since(&Losses::refused(before));
            ensure!(refused.is_empty(), "records were refused: {refused}");
            let lost = Losses::counted(&after).since(&Losses::counted(before));
            let unexpected = lost.without(scenario.may_lose);
            ensure!(unexpected.is_empty(), "records were lost: {unexpected}");
            let told = self.told.since(told);
            if told == lost {
                if !lost.is_empty() {
                    eprintln!("{}: lost and told: {lost}", scenario.name);
                }
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "lost: {lost}; told by findings: {told}");
            // A loss is told when its counter is read, which may be after the mark.
            came.extend(self.settle()?);
        }
    }

    /// Waits until the agent has received all that the kernel programs submitted by now.
    ///
    /// # Errors
    /// It did not within [`PATIENCE`].
    fn settle_records(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.agent.status()?;
            if status.kinds.iter().all(|k| k.received + k.malformed >= k.submitted) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the agent does not receive what was submitted: {:?}",
                status.kinds
            );
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// Runs a fresh unknown program as a mark and returns every finding that came before its own, but for losses, which
    /// [`Self::play`] accounts for. Events keep their order within
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
        let (losses, came): (Vec<_>, Vec<_>) = came.into_iter().partition(|f| f.kind() == Kind::Lost);
        losses.iter().try_for_each(|f| self.told.tell(f))?;
        // What is said of an image is of no process.
        let of_file = |f: &&v1::Finding| f.process.is_some() && f.kind() != Kind::Connect;
        let nowhere = came.iter().filter(of_file).find(|f| f.path.is_empty());
        ensure!(nowhere.is_none(), "a finding without a path: {}", nowhere.map(describe).unwrap_or_default());
        Ok(came)
    }
}

fn found(kind: Kind, verdict: Verdict, file: &std::path::Path) -> anyhow::Result<Expect> {
    Ok(Expect::new(kind, verdict, file.display().to_string()).sha256(world::sha256(file)?))
}

fn in_usr_bin(name: &str) -> PathBuf {
    PathBuf::from("/usr/bin").join(name)
}
