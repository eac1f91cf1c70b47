//! The values of the table in [`muster_common::layout`] on one kernel.

use muster_common::layout::{ABSENT, Ask, FIELDS};

use super::btf::{Btf, BtfError};

/// Byte offsets and sizes of the kernel members that the programs read, in the order of [`FIELDS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offsets {
    values: Vec<u32>,
}

/// The table could not be resolved.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OffsetsError {
    /// The BTF is malformed.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// Members that the programs cannot do without.
    #[error("this kernel's BTF lacks {}; the kernel is older than 5.10, or newer than this Muster knows", .0.join(", "))]
    Missing(Vec<String>),
}

impl Offsets {
    /// Looks every line of the table up.
    ///
    /// # Errors
    /// [`OffsetsError`] for malformed BTF, or naming every member that is missing and not optional.
    pub fn resolve(btf: &Btf<'_>) -> Result<Self, OffsetsError> {
        let mut values = Vec::with_capacity(FIELDS.len());
        let mut missing = Vec::new();
        // The table is sorted by structure: each is looked up once.
        let mut last = ("", None);
        for field in FIELDS {
            if last.0 != field.structure {
                last = (field.structure, btf.structure(field.structure));
            }
            let value = match (&last.1, field.ask) {
                (None, _) => None,
                (Some(structure), Ask::Size) => Some(structure.size_or_type),
                (Some(structure), Ask::Offset) => btf.offset_of(structure, field.member)?,
            };
            if value.is_none() && !field.optional {
                missing.push(format!("struct {} {}", field.structure, field.member).trim_end().to_owned());
            }
            values.push(value.unwrap_or(ABSENT));
        }
        if missing.is_empty() { Ok(Self { values }) } else { Err(OffsetsError::Missing(missing)) }
    }

    /// Name of each global with its value ([`ABSENT`] for a member that this kernel lacks).
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &u32)> {
        FIELDS.iter().map(|field| field.symbol).zip(&self.values)
    }

    /// Value of one global.
    pub fn get(&self, symbol: &str) -> Option<u32> {
        self.iter()
            .find(|(name, _)| *name == symbol)
            .map(|(_, value)| *value)
            .filter(|value| *value != ABSENT)
    }
}

#[cfg(test)]
#[path = "offsets_tests.rs"]
mod tests;
