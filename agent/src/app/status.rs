//! What clients may ask of the agent.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use muster_proto::v1;

use crate::event::Flavour;
use crate::exceptions::Exceptions;
use crate::feed::{Asked, StatusSource, convert};
use crate::finding::{Coverage, Sha256};
use crate::images::{Image, Images};
use crate::judge::Seen;
use crate::sbom::{Entry, ImageIndex};
use crate::sensor::{Attached, Sensor, SensorStatus};

/// Answers about an image at most: a digest may be at many paths.
const EXPLANATIONS: usize = 256;

/// The sensor, the images and the judge, as clients see them.
pub(super) struct Source {
    sensor: Mutex<Option<Sensor>>,
    /// What does not change: the sensor's status at its start.
    first: SensorStatus,
    images: Arc<Images>,
    seen: Arc<Seen>,
    exceptions: Arc<Exceptions>,
    /// Where the configuration was read from.
    config: Option<PathBuf>,
}

impl Source {
    pub(super) fn new(
        sensor: Sensor,
        images: Arc<Images>,
        seen: Arc<Seen>,
        exceptions: Arc<Exceptions>,
        config: Option<PathBuf>,
    ) -> Self {
        Self { first: sensor.status(), sensor: Mutex::new(Some(sensor)), images, seen, exceptions, config }
    }

    pub(super) fn exceptions(&self) -> Arc<Exceptions> {
        Arc::clone(&self.exceptions)
    }

    pub(super) fn kernel(&self) -> &str {
        &self.first.kernel_release
    }

    pub(super) fn flavour(&self) -> Flavour {
        self.first.flavour
    }

    /// Stops the sensor and gives its last counters, and the programs, which are still attached.
    pub(super) fn stop(&self) -> Option<(SensorStatus, Attached)> {
        let sensor = self.sensor.lock().unwrap_or_else(PoisonError::into_inner).take();
        sensor.map(Sensor::stop)
    }
}

impl StatusSource for Source {
    fn status(&self) -> v1::Status {
        // Reading the kernel's counters brings the metrics up to date, from which the server takes them.
        let sensor = self.sensor.lock().unwrap_or_else(PoisonError::into_inner);
        let now = sensor.as_ref().map_or_else(|| self.first.clone(), Sensor::status);
        drop(sensor);
        let rings = now.rings.iter().map(|(class, bytes)| v1::Ring {
            name: class.as_str().to_owned(),
            size_bytes: u64::from(*bytes),
        });
        let workloads = self.seen.workloads();
        v1::Status {
            kernel_release: now.kernel_release,
            flavour: convert::flavour(now.flavour).into(),
            blind_spots: now.blind_spots,
            rings: rings.collect(),
            images: self.images.status(),
            degraded: self.images.degraded(),
            refused_attestations: self.images.refused_status(),
            config: self.config.as_ref().map_or_else(String::new, |file| file.display().to_string()),
            workloads: workloads
                .into_iter()
                .map(|(info, events)| v1::WorkloadStatus { workload: Some(convert::workload(&info)), events })
                .collect(),
            processes: self.seen.processes(),
            exceptions: self.exceptions.status(),
            ..v1::Status::default()
        }
    }

    fn explain(&self, asked: &Asked, image: Option<Sha256>) -> Vec<v1::Explanation> {
        let mut images = self.images.snapshot();
        if let Some(wanted) = image {
            images.retain(|i| i.digests.subjects().any(|digest| digest == wanted));
        }
        images.iter().flat_map(|image| explain(asked, image)).collect()
    }
}

fn explain(asked: &Asked, image: &Image) -> Vec<v1::Explanation> {
    let (Some(index), documents) = (image.index(), image.documents()) else { return Vec::new() };
    let one = |entry: Option<Entry<'_>>, text: String| v1::Explanation {
        image_digest: format!("sha256:{}", image.digest),
        path: entry.map(|e| e.path().to_string()).unwrap_or_default(),
        sha256: entry.and_then(Entry::sha256).map(|s| s.to_string()).unwrap_or_default(),
        package: entry.and_then(Entry::package).unwrap_or_default().to_owned(),
        coverage: convert::coverage(index.coverage()).into(),
        binding: image.binding().map_or(v1::Binding::Unspecified, convert::binding).into(),
        documents: documents.iter().map(|d| d.sha256.to_string()).collect(),
        text,
    };
    let found: Vec<_> = match asked {
        Asked::Path(path) => {
            index.by_path(path.as_bytes()).into_iter().map(|e| one(Some(e), says(e, image))).collect()
        }
        Asked::Sha256(sha256) => {
            index.by_sha256(sha256).take(EXPLANATIONS).map(|e| one(Some(e), says(e, image))).collect()
        }
    };
    if found.is_empty() { vec![one(None, silent(asked, index))] } else { found }
}

fn says(entry: Entry<'_>, image: &Image) -> String {
    let weak = entry.weak().unwrap_or_default();
    let digest = match (entry.sha256(), weak.sha1, weak.md5) {
        (Some(Sha256::EMPTY), _, _) => {
            "empty: other content there is `modified`, an empty file elsewhere is nobody's"
        }
        (Some(_), _, _) => {
            "with a SHA-256: other content there is `modified`, this content elsewhere is `relocated`"
        }
        (None, Some(_), _) => {
            "with no more than a SHA-1: equal content is `attested_weak`, what it cannot be computed of is `undetermined`"
        }
        (None, None, Some(_)) => {
            "with no more than an MD5: equal content is `attested_weak`, what it cannot be computed of is `undetermined`"
        }
        (None, None, None) => {
            "without a usable digest: what is as old as the image is `path_only`, what was made or changed since is `modified`"
        }
    };
    let used = if image.is_used(entry.id()) { "; it was seen in use" } else { "" };
    format!("the SBOM has this file, {digest}{used}")
}

fn silent(asked: &Asked, index: &ImageIndex) -> String {
    match asked {
        Asked::Sha256(sha256) if *sha256 == Sha256::EMPTY => {
            return "every empty file has this digest: it proves and accuses nothing".to_owned();
        }
        Asked::Sha256(sha256) if index.has_content(sha256) => {
            return "the SBOM has this content, but no path for it: it is `relocated` wherever it is"
                .to_owned();
        }
        Asked::Sha256(_) | Asked::Path(_) => {}
    }
    let what = match asked {
        Asked::Path(_) => "path",
        Asked::Sha256(_) => "digest",
    };
    match index.coverage() {
        Coverage::Full => format!("the SBOM says that it is complete, and it does not have this {what}"),
        Coverage::Owned => format!("the SBOM lists files that packages own, and does not have this {what}"),
        Coverage::Packages => "the SBOM lists packages and no files: it cannot say".to_owned(),
    }
}
