//! Watching that does not end: a watcher that the kernel fails is made anew, later and later, and that it is not there is told.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long it is waited before a watcher is made anew, at first and at most.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Does one `step` after the other until one says that it was the last (`false`). After an error it waits, and begins with a new
/// watcher; `tell` is given what is wrong, and `None` when a step was done again. Ends also when the other end of `stop` is closed.
pub(super) fn follow<W>(
    first: W,
    make: impl Fn() -> io::Result<W>,
    mut step: impl FnMut(&mut W) -> io::Result<bool>,
    stop: &UnixStream,
    (shortest, longest): (Duration, Duration),
    tell: impl Fn(Option<String>),
) {
    let (mut watcher, mut pause) = (io::Result::Ok(first), shortest);
    loop {
        let error = match &mut watcher {
            Err(error) => error.to_string(),
            Ok(watcher) => match step(watcher) {
                Ok(false) => return,
                Ok(true) => {
                    if pause != shortest {
                        pause = shortest;
                        tell(None);
                    }
                    continue;
                }
                Err(error) => error.to_string(),
            },
        };
        tell(Some(format!("{error}; tried again in {} s", pause.as_secs())));
        if stops_within(stop, pause) {
            return;
        }
        // Never the shortest one again, so that the next step that is done is told.
        pause = (pause * 2).clamp(shortest + Duration::from_millis(1), longest.max(shortest * 2));
        watcher = make();
    }
}

/// The other end is closed, or was within that time.
pub(super) fn stops_within(stop: &UnixStream, time: Duration) -> bool {
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(stop.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(0) | Err(Errno::EINTR) => false,
        Ok(_) => true,
        Err(error) => {
            tracing::error!(%error, "the kernel does not say whether to stop");
            std::thread::sleep(time);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_watcher_that_fails_is_made_anew_and_that_is_told() {
        let (_stop, theirs) = UnixStream::pair().unwrap();
        let told = RefCell::new(Vec::new());
        let made = RefCell::new(0);
        let mut steps = [Ok(true), Err("gone"), Err("still gone"), Ok(true), Ok(true), Ok(false)].into_iter();
        let make = || {
            *made.borrow_mut() += 1;
            if *made.borrow() == 2 { Err(io::Error::other("no instance")) } else { Ok(()) }
        };
        let step = |(): &mut ()| steps.next().unwrap().map_err(io::Error::other);
        let pauses = (Duration::from_millis(1), Duration::from_millis(2));
        follow((), make, step, &theirs, pauses, |what| told.borrow_mut().push(what));
        assert_eq!(*made.borrow(), 3);
        let told: Vec<_> = told
            .take()
            .into_iter()
            .map(|what| what.map(|what| what.split(';').next().unwrap().to_owned()))
            .collect();
        assert_eq!(
            told,
            [Some("gone".to_owned()), Some("still gone".into()), Some("no instance".into()), None]
        );
    }

    #[test]
    fn it_ends_while_it_waits() {
        let (stop, theirs) = UnixStream::pair().unwrap();
        drop(stop);
        let step = |(): &mut ()| Err(io::Error::other("gone"));
        follow((), || Ok(()), step, &theirs, (Duration::from_secs(600), Duration::from_secs(600)), |_| {});
    }
}
