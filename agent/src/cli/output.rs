//! What commands say: none of them panics where nobody can read it.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

use super::client::print;

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
    note(format_args!("muster: {}", with_causes(error)));
}

/// A cause that the text before it already has is not said again.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| {
        if text.contains(&cause) {
            text
        } else if text.is_empty() {
            cause
        } else {
            text + ": " + &cause
        }
    })
}

/// Writes a line to standard error. Where that fails there is nobody to tell.
pub fn note(line: impl Display) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::with_causes;
    use crate::sbom::generate::GenerateError;

    #[test]
    fn each_cause_is_said_once() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let once = anyhow::Error::from(GenerateError::Write(full()));
        assert_eq!(with_causes(&once), "the SBOM could not be written: no storage space");
        let outer = Err::<(), _>(full()).context("web.json").context("cannot sign").unwrap_err();
        assert_eq!(with_causes(&outer), "cannot sign: web.json: no storage space");
        assert_eq!(with_causes(&anyhow::Error::from(full())), "no storage space");
    }
}
