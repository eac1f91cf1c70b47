//! What commands say: none of them panics where nobody can read it.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

use super::client::print;
use crate::causes::causes;

/// Writes all that a command has to say to standard output. A reader that went away wants no more of it, which is no error.
///
/// # Errors
/// It cannot be written: the disk is full.
pub(super) fn tell(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    match print(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// Says why a command has failed, with the causes.
pub fn complain(error: &anyhow::Error) {
    note(format_args!("muster: {}", causes(&**error)));
}

/// Writes a line to standard error. Where that fails there is nobody to tell.
pub fn note(line: impl Display) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}
