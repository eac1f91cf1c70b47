//! The service manager's watchdog.

/// What the judge has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Events judged. A batch of a thousand may take long, and the agent works all the same.
    pub(super) events: u64,
    /// Bytes of files read: one event may have large files on a slow disk.
    pub(super) bytes: u64,
}

/// Keeps the service manager's watchdog quiet as long as the judge makes progress.
pub(super) struct Watchdog {
    timer: Option<tokio::time::Interval>,
    last: Progress,
}

impl Watchdog {
    pub(super) fn new() -> Self {
        let timer = sd_notify::watchdog_enabled().map(|limit| tokio::time::interval(limit / 2));
        Self { timer, last: Progress::default() }
    }

    pub(super) async fn due(&mut self) {
        match &mut self.timer {
            Some(timer) => {
                timer.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Something was done since this was last asked, or there is nothing to do.
    pub(super) fn is_well(&mut self, now: Progress, behind: bool) -> bool {
        std::mem::replace(&mut self.last, now) != now || !behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_well_and_stuck_is_not() {
        let mut watchdog = Watchdog { timer: None, last: Progress::default() };
        for (what, events, bytes, behind, expected) in [
            ("nothing to do", 0, 0, false, true),
            ("nothing done of what waits", 0, 0, true, false),
            ("within a batch", 7, 0, true, true),
            ("within an event", 7, 1 << 20, true, true),
            ("stuck", 7, 1 << 20, true, false),
            ("nothing waits any more", 7, 1 << 20, false, true),
        ] {
            assert_eq!(watchdog.is_well(Progress { events, bytes }, behind), expected, "{what}");
        }
    }
}
