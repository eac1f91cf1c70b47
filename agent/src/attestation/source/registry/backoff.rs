//! How long to wait before asking again.

use std::time::Duration;

/// How often one thing is asked for.
pub(super) const ATTEMPTS: u32 = 3;
/// The first pause.
const FIRST: Duration = Duration::from_millis(250);
/// The longest pause, also if the registry asks for a longer one.
const LONGEST: Duration = Duration::from_secs(10);

/// The pause after attempt `attempt` (from 0). Half of it is by chance, so that many agents do not come back at the same moment.
/// `asked`: what the registry's `Retry-After` says.
pub(super) fn pause(attempt: u32, asked: Option<Duration>) -> Duration {
    let mut random = [0; 2];
    // Without random numbers the pause is its shortest.
    let chance = aws_lc_rs::rand::fill(&mut random).map_or(0, |()| u32::from(u16::from_le_bytes(random)));
    let full = FIRST.saturating_mul(1 << attempt.min(8));
    let pause = full / 2 + full / 2 * chance / u32::from(u16::MAX);
    asked.map_or(pause, |asked| asked.max(pause)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST, pause};

    #[test]
    fn grows_varies_and_ends() {
        for attempt in 0..3 {
            let full = Duration::from_millis(250 << attempt);
            let pauses: Vec<_> = (0..50).map(|_| pause(attempt, None)).collect();
            assert!(pauses.iter().all(|pause| *pause >= full / 2 && *pause <= full), "{pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "no chance in {pauses:?}");
        }
        assert_eq!(pause(40, None).max(LONGEST), LONGEST);
        assert_eq!(pause(0, Some(Duration::from_secs(2))), Duration::from_secs(2));
        assert_eq!(pause(0, Some(Duration::from_secs(3600))), LONGEST);
    }
}
