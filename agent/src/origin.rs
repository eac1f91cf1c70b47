//! Which run of which agent a finding is of.

use std::sync::Arc;
use std::time::SystemTime;

use crate::event::FilePath;

/// A run of the agent on a node. With its sequence it names a finding among all that there ever were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// 32 hexadecimal digits, others with each start.
    pub run: String,
    /// The host's name, escaped as paths are; empty when it has none.
    pub node: String,
}

impl Origin {
    /// A new run on this host.
    pub fn new() -> Arc<Self> {
        let mut random = [0; 16];
        // A generator that fails is no reason not to watch; two runs do not start in the same nanosecond.
        let since_1970 = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let run = aws_lc_rs::rand::fill(&mut random)
            .map_or_else(|_| since_1970().as_nanos(), |()| u128::from_be_bytes(random));
        let name = nix::unistd::gethostname().unwrap_or_default();
        Arc::new(Self {
            run: format!("{run:032x}"),
            node: FilePath::from(name.as_encoded_bytes()).to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn each_run_has_a_name_of_its_own() {
        let (first, second) = (Origin::new(), Origin::new());
        assert_ne!(first.run, second.run);
        for run in [&first.run, &second.run] {
            assert!(run.len() == 32 && run.bytes().all(|b| b.is_ascii_hexdigit()), "{run}");
        }
        assert_eq!(first.node, second.node);
    }
}
