//! Ways to connect that look unlike one: each is one finding.

use muster_proto::v1::{Kind::*, Severity, Verdict::*};

use super::{Scenario, Stage, found};
use crate::expect::Expect;

pub(super) fn scenarios() -> Vec<Scenario> {
    let seen = |name, run| Scenario { name, run, may_lose: &[] };
    vec![
        seen("TCP connect without waiting, asked twice", |s| one(s, "tcp-twice", "tcp", "127.0.0.1:4020")),
        seen("datagram to an address without a family", |s| {
            one(s, "udp-unspecified", "udp", "127.0.0.1:4021")
        }),
        seen("TCP by way of SMC", |s| one(s, "smc", "tcp", "127.0.0.1:4022")),
    ]
}

fn one(stage: &mut Stage, how: &str, protocol: &'static str, to: &str) -> anyhow::Result<Vec<Expect>> {
    let said = stage.world.run_tool(&[how, to])?;
    let tool = stage.world.tool.clone();
    let mut expected = vec![found(Exec, Unauthorized, &tool)?];
    if said.stdout.is_empty() {
        expected.push(
            found(Connect, Unauthorized, &tool)?
                .severity(Severity::Critical)
                .connect(protocol, to)
                .parent("suite"),
        );
    }
    Ok(expected)
}
