//! The images that somebody asked for, or that an attestation is about.
//!
//! What is known under different digests becomes one image as soon as somebody knows that they are of one: containers that name
//! it by its manifest and by its config share its index, and what is in use of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::library::Library;
use super::{Facts, Image, ImageState};
use crate::finding::Sha256;
use crate::identity::Digests;

/// Images and names of images held; more than a node has.
const MAX_IMAGES: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Register {
    /// Never more than one for the same image.
    images: Vec<Entry>,
    /// Which of them is meant by what was asked.
    asked: HashMap<Digests, usize>,
}

#[derive(Debug)]
struct Entry {
    image: Arc<Image>,
    /// A workload runs it, or did; else only an attestation names it.
    is_asked: bool,
}

impl Register {
    /// The image that was asked for by these digests before.
    pub(super) fn known(&self, digests: &Digests) -> Option<Arc<Image>> {
        self.asked.get(digests).map(|at| Arc::clone(&self.images[*at].image))
    }

    /// The image, and whether another image has become one with it, so that who holds that one must ask again.
    pub(super) fn ask(&mut self, digests: &Digests, library: &Library) -> (Arc<Image>, bool) {
        if self.asked.len() >= MAX_IMAGES {
            tracing::warn!(
                images = MAX_IMAGES,
                "too many images: those without an attestation are forgotten"
            );
            self.asked.clear();
            self.images.iter_mut().for_each(|entry| entry.is_asked = false);
            self.forget_unnamed();
        }
        let (at, merged) = self.add(library.complete(digests), true, library);
        self.asked.insert(digests.clone(), at);
        (Arc::clone(&self.images[at].image), merged)
    }

    /// Adds an image to those that it is one with, if there are any.
    fn add(&mut self, mut digests: Digests, mut is_asked: bool, library: &Library) -> (usize, bool) {
        let mut parts = Vec::new();
        let named = digests.shown();
        // Each one that is found may have the digest that makes the next one fit.
        while let Some((at, united)) = self.images.iter().enumerate().find_map(|(at, entry)| {
            Some((at, entry.image.digests.united(&digests)?)).filter(|(at, _)| !parts.contains(at))
        }) {
            digests = united;
            is_asked |= self.images[at].is_asked;
            parts.push(at);
        }
        let merged =
            parts.iter().any(|at| self.images[*at].is_asked && self.images[*at].image.digests != digests);
        let image = match parts.first() {
            Some(at) if parts.len() == 1 && self.images[*at].image.digests == digests => {
                Arc::clone(&self.images[*at].image)
            }
            _ => {
                // Who asked for it goes on to see it under the same digest.
                let asked = parts.iter().map(|at| &self.images[*at]).find(|entry| entry.is_asked);
                let digest = asked.map(|entry| entry.image.digest).or(named).unwrap_or_default();
                let mut image = Image::of(digest, digests.clone(), library.answer(&digests));
                parts.iter().for_each(|at| image.carry_over(&self.images[*at].image));
                Arc::new(image)
            }
        };
        let entry = Entry { image, is_asked };
        let Some((first, rest)) = parts.split_first() else {
            self.images.push(entry);
            return (self.images.len() - 1, false);
        };
        self.images[*first] = entry;
        let at = self.remove(rest, *first);
        (at, merged)
    }

    /// Removes entries that are one with another; where that one is now.
    fn remove(&mut self, gone: &[usize], stays: usize) -> usize {
        if gone.is_empty() {
            return stays;
        }
        let mut places = Vec::with_capacity(self.images.len());
        let mut next = 0;
        for at in 0..self.images.len() {
            places.push(next);
            next += usize::from(!gone.contains(&at));
        }
        let mut at = 0;
        self.images.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
        for place in self.asked.values_mut() {
            *place = places[if gone.contains(place) { stays } else { *place }];
        }
        places[stays]
    }

    /// Takes in that attestations about these digests have come, changed or gone. Says whether an image changed.
    pub(super) fn update(&mut self, changed: &HashSet<Sha256>, library: &Library) -> bool {
        let mut is_changed = self.complete(library);
        let mut named = HashSet::new();
        for entry in &mut self.images {
            let digests = &entry.image.digests;
            let hit: Vec<_> = digests.subjects().filter(|subject| changed.contains(subject)).collect();
            if hit.is_empty() {
                continue;
            }
            named.extend(hit);
            let answer = library.answer(digests);
            if answer.is(&entry.image) {
                continue;
            }
            let mut image = Image::of(entry.image.digest, digests.clone(), answer);
            image.carry_over(&entry.image);
            entry.image = Arc::new(image);
            is_changed = true;
        }
        for subject in changed.iter().filter(|subject| !named.contains(*subject) && library.names(subject)) {
            self.add(Digests::named(*subject), false, library);
            is_changed = true;
        }
        is_changed | self.forget_unnamed()
    }

    /// Takes over what was learned of the digests of images that somebody asked for. Says whether an image changed.
    fn complete(&mut self, library: &Library) -> bool {
        let mut is_changed = false;
        for (said, complete) in library.completed() {
            let Some(at) = self.asked.get(said).copied() else { continue };
            let before = &self.images[at].image.digests;
            if before.united(complete).as_ref() == Some(before) || before == complete {
                continue;
            }
            let (at, _) = self.add(complete.clone(), true, library);
            self.asked.insert(said.clone(), at);
            is_changed = true;
        }
        // One that was not of the kind that it was taken for.
        let used: HashSet<usize> = self.asked.values().copied().collect();
        for (at, entry) in self.images.iter_mut().enumerate() {
            entry.is_asked = used.contains(&at);
        }
        is_changed
    }

    /// Forgets what no attestation names any more and nobody runs.
    fn forget_unnamed(&mut self) -> bool {
        let gone: Vec<_> = (0..self.images.len())
            .filter(|at| {
                let Entry { image, is_asked } = &self.images[*at];
                let is_nothing = matches!(image.state, ImageState::NoSbom) || image.lost.is_some();
                !is_asked && is_nothing && image.facts == Facts::default()
            })
            .collect();
        if gone.is_empty() {
            return false;
        }
        self.asked.retain(|_, at| !gone.contains(at));
        self.remove(&gone, 0);
        true
    }

    /// Those that somebody asked for.
    pub(super) fn running(&self) -> Vec<Arc<Image>> {
        self.images.iter().filter(|entry| entry.is_asked).map(|entry| Arc::clone(&entry.image)).collect()
    }

    /// Every image, by digest.
    pub(super) fn all(&self) -> Vec<Arc<Image>> {
        let mut images: Vec<_> = self.images.iter().map(|entry| Arc::clone(&entry.image)).collect();
        images.sort_by_key(|image| image.digest);
        images
    }
}
