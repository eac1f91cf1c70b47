//! What a finding about lost records says.

use std::time::SystemTime;

use crate::event::{Kind, LossCause};

/// Lost records of one kind.
pub(super) struct Loss {
    pub(super) kind: Kind,
    pub(super) cause: LossCause,
    pub(super) count: u64,
    /// It is known whose they were.
    pub(super) of_workload: bool,
    pub(super) since: SystemTime,
    pub(super) until: SystemTime,
}

impl Loss {
    /// One sentence: when, how many, why, and what helps.
    pub(super) fn reason(&self) -> String {
        let Self { kind, cause, count, of_workload, since, until } = *self;
        let one = count == 1;
        let what = match kind {
            // Not even its kind could be read.
            Kind::Lost => String::new(),
            kind => format!("{kind} "),
        };
        let records = if one { "record" } else { "records" };
        let whose = if of_workload { " of this workload" } else { "" };
        let were = if one { "was" } else { "were" };
        let why = match cause {
            LossCause::RingFull => format!(
                "lost in the kernel because the ring buffer was full; a larger sensor.{}_ring_bytes holds longer bursts",
                kind.class().as_str()
            ),
            LossCause::TableFull => {
                "lost in the kernel because more system calls were under way at once than the sensor can keep in mind"
                    .to_owned()
            }
            LossCause::Unconfirmed => {
                "lost in the kernel, at most, because the ends of their calls were not seen: the processor was taken from the kernel \
                 program that sees them, or another security module refused the calls"
                    .to_owned()
            }
            LossCause::Malformed => {
                "refused because the agent's kernel programs do not write such; what was in them is not known"
                    .to_owned()
            }
        };
        format!(
            "between {} and {}, {count} {what}{records}{whose} {were} {why}",
            crate::feed::time_text(since),
            crate::feed::time_text(until)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let reason = |kind, cause, count, of_workload| {
            let (since, until) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
            let text = Loss { kind, cause, count, of_workload, since, until }.reason();
            let (_, what) = text.split_once("Z, ").expect("two times");
            what.to_owned()
        };
        assert_eq!(
            reason(Kind::Library, LossCause::RingFull, 7, true),
            "7 library records of this workload were lost in the kernel because the ring buffer was full; a larger \
             sensor.library_ring_bytes holds longer bursts"
        );
        assert_eq!(
            reason(Kind::File, LossCause::TableFull, 1, false),
            "1 file record was lost in the kernel because more system calls were under way at once than the sensor can \
             keep in mind"
        );
        assert_eq!(
            reason(Kind::Lost, LossCause::Malformed, 2, false),
            "2 records were refused because the agent's kernel programs do not write such; what was in them is not known"
        );
    }
}
