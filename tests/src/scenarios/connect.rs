//! Connects over all four transports, by a program that is in no SBOM.

use muster_proto::v1::{Kind::*, Severity, Verdict::*};

use super::{Scenario, Stage, found};
use crate::expect::Expect;

pub(super) fn scenarios() -> Vec<Scenario> {
    let seen = |name, run| Scenario { name, run, may_lose: &[] };
    vec![
        seen("TCP over IPv4", |s| connect(s, "tcp", "tcp", "127.0.0.1:4001")),
        seen("TCP over IPv6", |s| connect(s, "tcp", "tcp", "[::1]:4002")),
        seen("UDP over IPv4", |s| connect(s, "udp", "udp", "127.0.0.1:4003")),
        seen("UDP over IPv6", |s| connect(s, "udp", "udp", "[::1]:4004")),
        seen("datagram from an unconnected socket, IPv4", |s| {
            connect(s, "udp-send", "udp", "127.0.0.1:4005")
        }),
        seen("datagram from an unconnected socket, IPv6", |s| connect(s, "udp-send", "udp", "[::1]:4006")),
    ]
}

fn connect(stage: &mut Stage, how: &str, protocol: &'static str, to: &str) -> anyhow::Result<Vec<Expect>> {
    stage.world.run_tool(&[how, to])?;
    let tool = stage.world.tool.clone();
    Ok(vec![
        found(Exec, Unauthorized, &tool)?,
        found(Connect, Unauthorized, &tool)?
            .severity(Severity::Critical)
            .connect(protocol, to)
            .parent("suite"),
    ])
}
