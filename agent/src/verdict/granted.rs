//! Rights that a file gives to whoever runs it. An SBOM says nothing of them, so no signature covers a change.

use crate::event::{Action, FileOp, Observation};

/// Set-user-id and set-group-id (`S_ISUID | S_ISGID`).
const SET_ID: u32 = 0o6000;

/// What was done that gives rights, if anything was.
pub(super) fn granted(observation: &Observation) -> Option<String> {
    let mode = observation.file.mode;
    match observation.action {
        Action::Change(FileOp::Capability) => Some("was given capabilities".to_owned()),
        Action::Change(_) if mode & SET_ID != 0 => {
            Some(format!("was made set-user-id or set-group-id (mode {:04o})", mode & 0o7777))
        }
        _ => None,
    }
}
