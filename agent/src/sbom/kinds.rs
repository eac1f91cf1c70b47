//! What a document lists besides files and packages.

/// Types of components that are counted, as CycloneDX names them (specification 1.7, `component.type`).
const TYPES: [&str; 6] =
    ["machine-learning-model", "data", "device", "device-driver", "firmware", "cryptographic-asset"];

/// Components that are no programs, by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds([u64; TYPES.len()]);

impl Kinds {
    /// Counts a component of this type; any other type is left out.
    pub(super) fn count(&mut self, kind: &str) {
        if let Some(place) = TYPES.iter().position(|known| *known == kind) {
            self.0[place] += 1;
        }
    }

    /// Adds those of another document.
    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// The types of which there are some, and how many.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TYPES.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}
