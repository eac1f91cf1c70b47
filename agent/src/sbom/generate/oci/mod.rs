//! An OCI image as it lies in a layout directory or an archive of one (image-spec, image-layout.md): nothing is unpacked, files are
//! hashed as the layers go by. Every blob is hashed again and must be what it is called.

mod layers;
mod manifest;
mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

pub(super) use layers::Tree;
pub(super) use manifest::Image;
pub use manifest::Platform;
pub(super) use store::Store;

use super::Progress;
use crate::finding::Sha256;

/// Why an image is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file cannot be read.
    #[error("{what}: cannot be read ({source})")]
    Read {
        /// Which.
        what: String,
        /// What the system, or the decompressor, said.
        source: io::Error,
    },
    /// A blob's bytes are not those of its digest.
    #[error("blob sha256:{expected} has SHA-256 {found}: the image was changed, or is damaged")]
    Digest {
        /// What it is called.
        expected: Sha256,
        /// What it is.
        found: Sha256,
    },
    /// A document of the image is not as it must be.
    #[error("{what}: {reason}")]
    Document {
        /// Which.
        what: String,
        /// What was expected and found.
        reason: String,
    },
    /// An entry of a layer is refused.
    #[error("layer sha256:{layer}, entry {path:?}: {reason}")]
    Entry {
        /// The layer's blob.
        layer: Sha256,
        /// The entry's name.
        path: String,
        /// Why.
        reason: String,
    },
    /// Several images, or none, for what was asked.
    #[error("{0}")]
    Choice(String),
}

impl ImageError {
    fn document(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Document { what: what.into(), reason: reason.into() }
    }
}

/// Opens an image.
///
/// # Errors
/// [`ImageError`]: it is not an OCI layout, has no image (or several) for the platform, or a document of it is refused.
pub(super) fn open(path: &Path, platform: &Platform) -> Result<(Store, Image), ImageError> {
    let mut store = Store::open(path)?;
    let image = manifest::choose(&mut store, platform)?;
    Ok((store, image))
}

/// Reads the image's layers.
///
/// # Errors
/// [`ImageError`]: a layer is damaged, or has an entry that no image may have.
pub(super) fn read(
    store: &mut Store,
    image: &Image,
    all: bool,
    progress: &Progress,
) -> Result<Tree, ImageError> {
    let mut tree = Tree::new(all);
    for (number, layer) in image.layers.iter().enumerate() {
        tree.apply(store, layer, image.diff_ids[number], number, progress)?;
    }
    Ok(tree)
}
