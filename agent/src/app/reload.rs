//! SIGHUP: takes what changed in the configuration file.
//!
//! With other keys every document is verified and read anew, which may take minutes: that is done beside the loop that answers signals
//! and the service manager's watchdog.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::check;
use crate::config::{Config, ConfigError, DEFAULT_FILE};
use crate::exceptions::Exceptions;
use crate::images::{Images, Watch};
use crate::judge::Handover;

/// The configuration, and who is told of a new one.
pub(super) struct Settings {
    /// Where it was read from; `None`: there was no file where it is by default.
    pub(super) file: Option<PathBuf>,
    pub(super) config: Config,
    pub(super) images: Arc<Images>,
    pub(super) exceptions: Arc<Exceptions>,
    /// Keeps the directories watched.
    pub(super) watch: Watch,
    pub(super) judge: Handover,
}

impl Settings {
    /// Takes what changed in the configuration file; if it is bad, the old one stays.
    pub(super) fn reload(&mut self) {
        let new = match load(self.file.clone(), Path::new(DEFAULT_FILE)) {
            Ok((file, new)) => {
                self.file = file;
                new
            }
            Err(error) => {
                tracing::error!(%error, "the old configuration stays");
                return;
            }
        };
        if let Err(error) = check(&new) {
            tracing::error!(%error, "the old configuration stays");
            return;
        }
        let config = &self.config;
        let restart = [
            (new.sensor != config.sensor, "sensor"),
            (new.feed != config.feed, "feed"),
            (new.metrics != config.metrics, "metrics"),
        ];
        for (_, section) in restart.iter().filter(|(changed, _)| *changed) {
            tracing::warn!(
                section,
                "this section has changed; the change needs a restart and is left out until then"
            );
        }
        // Asked before anything is taken: new keys must not judge old workloads. Nobody else hands over.
        if !self.judge.is_free() {
            tracing::error!("the judge has not taken the configuration before this one; send SIGHUP again");
            return;
        }
        if let Err(error) = self.images.reload(&new) {
            tracing::error!(%error, "the old configuration stays");
            return;
        }
        match self.images.watch() {
            Ok(watch) => self.watch = watch,
            Err(error) => tracing::error!(%error, "the drop directory is read now, but not watched"),
        }
        if !self.judge.give(new.clone()) {
            tracing::error!("the judge has ended; the new configuration judges nothing");
            return;
        }
        self.exceptions.replace(&new.exceptions);
        self.config = Config {
            sensor: config.sensor.clone(),
            feed: config.feed.clone(),
            metrics: config.metrics.clone(),
            ..new
        };
        tracing::info!("the new configuration is in use");
    }
}

/// The configuration from its file; without one from where it is by default, or the defaults if there is none. Gives back where it
/// was read from: what was there once must be there the next time, or its keys and workloads would be gone without a word.
///
/// # Errors
/// As [`Config::load`].
pub fn load(file: Option<PathBuf>, default: &Path) -> Result<(Option<PathBuf>, Config), ConfigError> {
    if let Some(file) = file {
        let config = Config::load(&file)?;
        return Ok((Some(file), config));
    }
    Ok(match Config::load_if_there(default)? {
        Some(config) => (Some(default.to_owned()), config),
        None => (None, Config::default()),
    })
}

/// Work that is done on a thread of its own, beside a loop, one at a time.
pub(super) struct Beside<T> {
    work: fn(&mut T),
    rests: Option<T>,
    runs: Option<JoinHandle<T>>,
    waits: bool,
}

impl<T: Send + 'static> Beside<T> {
    pub(super) fn new(on: T, work: fn(&mut T)) -> Self {
        Self { work, rests: Some(on), runs: None, waits: false }
    }

    /// Begins it. While it runs, this waits for the next [`ended`](Self::ended): `false`.
    pub(super) fn begin(&mut self) -> bool {
        let Some(mut on) = self.rests.take() else {
            self.waits = true;
            return false;
        };
        let work = self.work;
        self.waits = false;
        self.runs = Some(tokio::task::spawn_blocking(move || {
            work(&mut on);
            on
        }));
        true
    }

    /// Waits until it has ended, or for ever. `true`: it should be begun again. May be given up and called again.
    pub(super) async fn ended(&mut self) -> bool {
        let Some(runs) = &mut self.runs else { return std::future::pending().await };
        let ended = runs.await;
        self.runs = None;
        match ended.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(on) => self.rests = Some(on),
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is ending.
            Err(Err(_)) => {}
        }
        self.waits
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::{Beside, load};
    use crate::config::Config;

    #[test]
    fn a_file_that_was_there_must_be_there_again() {
        let dir = tempfile::tempdir().expect("a private directory");
        let default = dir.path().join("muster.toml");
        assert_eq!(load(None, &default).expect("none is needed"), (None, Config::default()));
        std::fs::write(&default, "[feed]\nhistory = 3\n").expect("a private directory");
        let (file, config) = load(None, &default).expect("a good one");
        assert_eq!((file.as_deref(), config.feed.history), (Some(&*default), 3));
        assert_eq!(load(file.clone(), &default).expect("the same"), (file.clone(), config));
        std::fs::remove_file(&default).expect("it is there");
        let error = load(file, &default).expect_err("it is gone").to_string();
        assert!(error.contains("muster.toml"), "{error}");
    }

    struct Slow {
        begun: Sender<()>,
        may_end: Receiver<()>,
    }

    fn work(on: &mut Slow) {
        on.begun.send(()).expect("the test waits");
        on.may_end.recv().expect("the test says when");
    }

    #[tokio::test]
    async fn a_loop_goes_on_beside_it() {
        let (begun, has_begun) = channel();
        let (end, may_end) = channel();
        let mut beside = Beside::new(Slow { begun, may_end }, work);
        assert!(beside.begin());
        let mut ticks = 0;
        let mut timer = tokio::time::interval(Duration::from_millis(1));
        let mut ended = 0;
        while ended < 2 {
            tokio::select! {
                again = beside.ended() => {
                    ended += 1;
                    assert_eq!(again, ended == 1);
                    if again {
                        assert!(beside.begin());
                        end.send(()).expect("it waits");
                    }
                }
                _ = timer.tick() => {
                    ticks += 1;
                    match ticks {
                        // Those that come while one runs are one.
                        10 => assert!(!beside.begin() && !beside.begin()),
                        20 => {
                            assert_eq!(has_begun.try_iter().count(), 1);
                            end.send(()).expect("it waits");
                        }
                        _ => {}
                    }
                }
            }
        }
        assert!(ticks >= 20);
        assert_eq!(has_begun.try_iter().count(), 1);
        assert!(tokio::time::timeout(Duration::from_millis(5), beside.ended()).await.is_err(), "it rests");
    }

    #[test]
    fn an_end_does_not_wait_for_it() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (begun, has_begun) = channel();
        let (end, may_end) = channel();
        runtime.block_on(async {
            let mut beside = Beside::new(Slow { begun, may_end }, work);
            assert!(beside.begin());
            has_begun.recv().expect("it begins");
        });
        let started = std::time::Instant::now();
        runtime.shutdown_timeout(Duration::from_millis(10));
        assert!(started.elapsed() < Duration::from_secs(5));
        end.send(()).expect("it still runs");
    }
}
