//! What is known of the image of a workload, and what is said of that: its state, once, and again when it has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::{About, Facts, Judge, Now};
use crate::event::Observation;
use crate::finding::{Binding, Coverage, Finding, Severity, Sha256, Verdict, WorkloadInfo};
use crate::images::{Document, Image, ImageState};
use crate::sbom::ImageIndex;
use crate::verdict::{self, Judgement};
use crate::workload::Workload;

/// Images and workloads whose state is remembered as reported.
pub(super) const STATES: usize = 65_536;

/// How often it is said that an image is judged by what is lost, nanoseconds.
pub(super) const REPEATED_NS: u64 = 600_000_000_000;
/// Images of which that is remembered; more than a node runs. Of others it is said at each change.
const LOSSES: usize = 4096;

/// How a host comes to an SBOM.
const HOST_SBOM: &str = "put an attestation about one of the subjects that `muster attest subject --host` prints into \
                         host.directory or the drop directory, or set host.image to the digest that it is about";

/// An image with an SBOM, as the judge needs it.
pub(super) struct Known {
    /// Counts the images, for short keys.
    pub(super) number: u32,
    pub(super) image: Arc<Image>,
    pub(super) binding: Option<Binding>,
    pub(super) index: Arc<ImageIndex>,
    pub(super) documents: Arc<[Sha256]>,
    pub(super) coverage: Coverage,
    pub(super) created: Option<SystemTime>,
}

impl Known {
    /// What its SBOM says of a file.
    pub(super) fn judge(&self, observation: &Observation) -> Judgement {
        self.tempered(verdict::verdict(observation, &self.index))
    }

    /// An SBOM of what may be another platform is for information.
    pub(super) fn tempered(&self, judgement: Judgement) -> Judgement {
        if self.binding == Some(Binding::Unproven) { verdict::of_unproven(judgement) } else { judgement }
    }
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// The workload's image if it has a verified SBOM. Reports, once, why it has none; and again and again, that it is judged by what
    /// is lost.
    pub(super) fn image_of(&self, now: Now<'_, F::Case>, workload: &Workload) -> Option<Arc<Known>> {
        let Some(digests) = &workload.image else {
            self.without_image(now, workload);
            return None;
        };
        if let Some(known) = self.images.with(|images| images.get(&**digests).cloned()) {
            if let Some(known) = known.as_ref().filter(|known| known.image.lost.is_some()) {
                self.uses_lost(now, workload, known);
            }
            return known;
        }
        let image = (self.source)(digests);
        let number = self.numbers.with(|numbers| {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            *numbers.entry(image.digest).or_insert(next)
        });
        let known = image.index().map(|index| {
            Arc::new(Known {
                number,
                index: Arc::clone(index),
                binding: image.binding(),
                documents: image.documents().iter().map(|d| d.sha256).collect(),
                coverage: index.coverage(),
                created: index.created().or_else(|| image.signed()).or(self.started),
                image: Arc::clone(&image),
            })
        });
        self.images.with(|images| images.insert(Arc::clone(digests), known.clone()));
        self.trust_root(now, &workload.info, &image, known.as_deref());
        let key = state_key(&workload.info);
        match &image.lost {
            Some(_) => {
                let running = Running::of(workload);
                let time_ns = now.event.time_ns;
                if self.losses.with(|losses| losses.begins(key, &running, &image, time_ns)) {
                    self.lost_image(now, &running, &image, known.as_deref());
                }
            }
            None => {
                self.losses.with(|losses| losses.ends(key));
                self.tell_state(now, workload, &image, known.as_deref());
            }
        }
        known
    }

    /// A workload whose image is judged by what is lost does something.
    fn uses_lost(&self, now: Now<'_, F::Case>, workload: &Workload, known: &Arc<Known>) {
        let key = state_key(&workload.info);
        if self.losses.with(|losses| losses.seen(key) || !losses.has_room()) {
            return;
        }
        let running = Running::of(workload);
        self.losses.with(|losses| losses.begins(key, &running, &known.image, now.event.time_ns));
        self.lost_image(now, &running, &known.image, Some(known));
    }

    /// A workload of which not even the image is known.
    fn without_image(&self, now: Now<'_, F::Case>, workload: &Workload) {
        if workload.is_unknown() || self.said(&workload.info, |said| said.state.is_some()) {
            return;
        }
        let reason = if workload.is_host {
            format!("the host has no attested SBOM: {HOST_SBOM}")
        } else {
            "no image digest is known for this workload, so none of its files is judged: add a [[workload]] entry with its image's \
             digest"
                .to_owned()
        };
        self.state(now, &workload.info, (Verdict::NoSbom, reason), State::NoSbom, None);
    }

    fn tell_state(&self, now: Now<'_, F::Case>, workload: &Workload, image: &Image, known: Option<&Known>) {
        let (said, state) = match &image.state {
            ImageState::Verified { documents, .. } => {
                self.verified(now, &workload.info, known, documents);
                return;
            }
            ImageState::PlatformUnproven { reason, .. } => (
                (
                    Verdict::PlatformUnproven,
                    format!(
                        "the image's attestation may be of another platform of the same index, so what it says is for information \
                         only: {reason}"
                    ),
                ),
                State::PlatformUnproven(digest(reason)),
            ),
            ImageState::Unverified { reason } => (
                (
                    Verdict::Unverified,
                    format!("the image's attestation was refused, so none of its files is judged: {reason}"),
                ),
                State::Unverified(digest(reason)),
            ),
            ImageState::NoSbom if workload.is_host => (
                (
                    Verdict::NoSbom,
                    format!(
                        "no attested SBOM is known for this host, so none of its files is judged: {HOST_SBOM}"
                    ),
                ),
                State::NoSbom,
            ),
            ImageState::NoSbom => (
                (
                    Verdict::NoSbom,
                    "no attested SBOM is known for this image, so none of its files is judged".to_owned(),
                ),
                State::NoSbom,
            ),
        };
        self.state(now, &workload.info, said, state, known);
    }

    /// Says, once, that the trust root that decides about the image's attestations is too old.
    fn trust_root(
        &self,
        now: Now<'_, F::Case>,
        workload: &Arc<WorkloadInfo>,
        image: &Image,
        known: Option<&Known>,
    ) {
        let time = self.facts.time(now.case);
        let until = image.trusted_until.filter(|until| *until < time);
        let before = self.said(workload, |said| std::mem::replace(&mut said.stale_since, until));
        let is_said = before == until;
        let (Some(until), false) = (until, is_said) else { return };
        let reason = format!(
            "the trust root that decides about the image's attestations was good until {}: signatures made since then may be refused, \
             and withdrawn keys may still be believed; refresh the file or the TUF cache that attestation.trust_root names",
            crate::feed::time_text(until)
        );
        self.say(now, workload, Judgement::new(Verdict::StaleTrustRoot, Severity::Medium, reason), known);
    }

    /// An image that has a verified SBOM: nothing to say, unless that was not so before, or it was another one.
    fn verified(
        &self,
        now: Now<'_, F::Case>,
        workload: &Arc<WorkloadInfo>,
        known: Option<&Known>,
        documents: &[Document],
    ) {
        let state = State::Verified(documents.iter().map(|d| d.sha256).collect());
        let before = self.said(workload, |said| said.state.replace(state.clone()));
        if before.is_none_or(|before| before == state) {
            return;
        }
        let names: Vec<_> = documents.iter().map(|d| format!("{} (sha256:{})", d.file, d.sha256)).collect();
        let reason = format!(
            "the state of the image's SBOM has changed: from now on the image is judged by {}, what already runs included",
            names.join(", ")
        );
        self.say(now, workload, Judgement::new(Verdict::Attested, Severity::Info, reason), known);
    }

    /// An image that has no verified SBOM; once. That it had one until now is never a small thing.
    fn state(
        &self,
        now: Now<'_, F::Case>,
        workload: &Arc<WorkloadInfo>,
        (verdict, reason): (Verdict, String),
        state: State,
        image: Option<&Known>,
    ) {
        let before = self.said(workload, move |said| {
            let is_said = said.state.as_ref() == Some(&state);
            (!is_said).then(|| said.state.replace(state))
        });
        let Some(before) = before else { return };
        let severity = match (verdict, before) {
            (Verdict::NoSbom | Verdict::PlatformUnproven, Some(State::Verified(_) | State::Lost)) => {
                Severity::High
            }
            (Verdict::NoSbom, _) => Severity::Low,
            (Verdict::PlatformUnproven, _) => Severity::Medium,
            _ => Severity::High,
        };
        self.say(now, workload, Judgement::new(verdict, severity, reason), image);
    }

    /// An image that is judged by what is lost.
    fn lost_image(&self, now: Now<'_, F::Case>, running: &Running, image: &Image, known: Option<&Known>) {
        let Some(lost) = &image.lost else { return };
        self.said(&running.workload, |said| said.state = Some(State::Lost));
        lost.is_told(self.facts.time(now.case));
        let judgement = Judgement::new(lost.loss.verdict, Severity::High, lost.loss.reason.clone());
        self.say(now, &running.workload, judgement, known);
    }

    /// Says again what lasts.
    pub(super) fn repeat_losses(&self, now: Now<'_, F::Case>) {
        let due = self.losses.with(|losses| match losses.is_due(now.event.time_ns) {
            true => losses.due(now.event.time_ns),
            false => Vec::new(),
        });
        for (running, image) in due {
            let known = self.images.with(|images| {
                images.values().flatten().find(|known| Arc::ptr_eq(&known.image, &image)).cloned()
            });
            self.lost_image(now, &running, &image, known.as_deref());
        }
    }

    fn say(
        &self,
        now: Now<'_, F::Case>,
        workload: &Arc<WorkloadInfo>,
        judgement: Judgement,
        image: Option<&Known>,
    ) {
        let about = About { image, ..About::default() };
        self.tell(self.finding(now, workload, judgement, &about));
    }

    /// What was said of the workload's image so far.
    fn said<R>(&self, workload: &WorkloadInfo, use_it: impl FnOnce(&mut Said) -> R) -> R {
        let key = state_key(workload);
        self.states.with(|states| {
            if states.get(key).is_none() {
                states.insert(key.to_owned(), Said::default());
            }
            use_it(states.get(key).expect("it is there now"))
        })
    }
}

/// What was last said of an image.
#[derive(Debug, Default)]
pub(super) struct Said {
    state: Option<State>,
    /// When the trust root was too old.
    stale_since: Option<SystemTime>,
}

/// A state of an image; of sentences their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    NoSbom,
    Unverified(Sha256),
    PlatformUnproven(Sha256),
    /// By these documents.
    Verified(Arc<[Sha256]>),
    Lost,
}

/// A workload whose image is judged by what is lost.
#[derive(Clone, Debug)]
struct Running {
    workload: Arc<WorkloadInfo>,
    is_host: bool,
}

impl Running {
    fn of(workload: &Workload) -> Self {
        Self { workload: Arc::clone(&workload.info), is_host: workload.is_host }
    }
}

/// What is lost, and when that is said again.
#[derive(Debug, Default)]
pub(super) struct Losses {
    by_key: BTreeMap<String, Losing>,
    /// When the first one is said again.
    next_ns: Option<u64>,
}

#[derive(Debug)]
struct Losing {
    running: Running,
    image: Arc<Image>,
    next_ns: u64,
    /// Some workload of the image has done something since it was said.
    is_seen: bool,
}

impl Losses {
    /// An image is lost; says whether that is to be said now.
    fn begins(&mut self, key: &str, running: &Running, image: &Arc<Image>, now_ns: u64) -> bool {
        let next_ns = now_ns.saturating_add(REPEATED_NS);
        let losing = Losing { running: running.clone(), image: Arc::clone(image), next_ns, is_seen: false };
        let has_room = self.has_room();
        let is_new = match self.by_key.get_mut(key) {
            // Made anew, though nothing has changed.
            Some(known) if same_loss(&known.image, image) => {
                *known = Losing { next_ns: known.next_ns, is_seen: true, ..losing };
                false
            }
            Some(known) => {
                *known = losing;
                true
            }
            None if !has_room => true,
            None => {
                self.by_key.insert(key.to_owned(), losing);
                true
            }
        };
        self.set_next();
        is_new
    }

    fn ends(&mut self, key: &str) {
        if self.by_key.remove(key).is_some() {
            self.set_next();
        }
    }

    /// It does something; `false`: nothing was said of it for long.
    fn seen(&mut self, key: &str) -> bool {
        let losing = self.by_key.get_mut(key);
        losing.is_some_and(|losing| {
            losing.is_seen = true;
            true
        })
    }

    fn has_room(&self) -> bool {
        self.by_key.len() < LOSSES
    }

    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        self.next_ns.is_some_and(|next| next <= now_ns)
    }

    /// Those that are to be said again: of the host, and of what runs. Of the others nothing is said until they do something.
    fn due(&mut self, now_ns: u64) -> Vec<(Running, Arc<Image>)> {
        self.by_key.retain(|_, losing| losing.next_ns > now_ns || losing.is_seen || losing.running.is_host);
        let mut due = Vec::new();
        for losing in self.by_key.values_mut().filter(|losing| losing.next_ns <= now_ns) {
            losing.next_ns = now_ns.saturating_add(REPEATED_NS);
            losing.is_seen = false;
            due.push((losing.running.clone(), Arc::clone(&losing.image)));
        }
        self.set_next();
        due
    }

    fn set_next(&mut self) {
        self.next_ns = self.by_key.values().map(|losing| losing.next_ns).min();
    }
}

fn same_loss(a: &Image, b: &Image) -> bool {
    let loss = |image: &Image| image.lost.as_ref().map(|lost| lost.loss.clone());
    loss(a) == loss(b)
}

fn digest(reason: &str) -> Sha256 {
    crate::attestation::sha256(reason.as_bytes())
}

/// Under what an image's state is remembered.
fn state_key(workload: &WorkloadInfo) -> &str {
    if workload.image_digest.is_empty() { &workload.id } else { &workload.image_digest }
}
