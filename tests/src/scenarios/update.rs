//! Patch day: what the host's package manager writes is `updated`, and so is what runs of it; what others write is not.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use muster_proto::v1::{Kind::*, Severity, Verdict::*};

use super::{Scenario, Stage, found};
use crate::expect::{Difference, Expect};
use crate::world::{self, PACKAGED, run};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario { name: "a package installed by dpkg", run: installed, may_lose: &[] }]
}

fn installed(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let program = Path::new(PACKAGED);
    run(Command::new("dpkg").args(["--force-overwrite", "--install"]).arg(stage.world.package()))?;
    // All is held until dpkg has ended, and a little longer. The new status is the last that it writes.
    let mut came = stage.agent.findings_until(|f| f.kind() == File && f.path == "/var/lib/dpkg/status")?;
    for _ in 0..2 {
        run(Command::new(program).arg("exit"))?;
    }
    came.extend(stage.settle()?);
    let script = Path::new("/var/lib/dpkg/info/muster-packaged.postinst");
    let lock = |name| Expect::new(File, PathOnly, format!("/var/lib/dpkg/{name}")).operation("close_write");
    let expected = [
        found(File, Updated, program)?.operation("rename"),
        found(File, Updated, script)?.operation("rename"),
        found(Exec, Updated, script)?.parent("dpkg"),
        // The SBOM has it, for it is of all files.
        found(File, Updated, Path::new("/var/lib/dpkg/status-old"))?.operation("link"),
        found(File, Updated, Path::new("/var/log/dpkg.log"))?.operation("close_write"),
        // Of empty files syft gives no digest.
        lock("lock-frontend"),
        lock("lock"),
        lock("triggers/Lock"),
        // Once for its content.
        found(Exec, Updated, program)?,
    ];
    let expected = expected.map(|expect| expect.severity(Severity::Info));
    let difference = Difference::of(&expected, &came);
    ensure!(difference.is_empty(), "the findings differ:{difference}");

    // What is changed by hand is drift, whoever wrote it before.
    world::append(program)?;
    Ok(vec![found(File, Unauthorized, program)?.operation("close_write")])
}
