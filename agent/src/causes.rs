//! An error with what caused it, in one line.

use std::error::Error;

/// An error with the errors that caused it, each said once: many name their cause in their own text.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use anyhow::Context as _;

    use super::*;
    use crate::config::Config;
    use crate::sbom::generate::GenerateError;

    #[test]
    fn each_cause_is_said_once() {
        let io = || io::Error::from(io::ErrorKind::NotFound);
        let in_its_text = Config::load(Path::new("/nonexistent/x")).expect_err("no such file");
        let text = causes(&in_its_text);
        assert_eq!(text.matches("No such file").count(), 1, "{text}");
        let beside: anyhow::Result<()> = Err(io()).context("reading it").context("trying");
        assert_eq!(causes(&*beside.expect_err("an error")), "trying: reading it: entity not found");
        assert_eq!(causes(&io()), "entity not found");
        let full = GenerateError::Write(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(causes(&full), "the SBOM could not be written: no storage space");
    }
}
