//! An OCI image as it lies in a layout directory or an archive of one (image-spec, image-layout.md): nothing is unpacked, files are
//! hashed as the layers go by. Every blob is hashed again and must be what it is called.

mod bounded;
mod layers;
mod manifest;
mod store;
#[cfg(test)]
mod tests;
mod unpack;

use std::io::{self, Read, Seek};
use std::path::Path;

pub use layers::ImageLimits;
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
    #[error("{what}: cannot be read ({})", said(.error))]
    Read {
        /// Which.
        what: String,
        /// What the system, or the decompressor, said.
        error: io::Error,
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

/// Of what is said of a file at most, in characters: it may quote what stands in it.
const MAX_SAID: usize = 200;

fn said(error: &io::Error) -> String {
    let printed = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    error.to_string().chars().take(MAX_SAID).map(printed).collect()
}

impl ImageError {
    fn document(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Document { what: what.into(), reason: reason.into() }
    }
}

/// Opens an image: of a platform, or with `None` of this machine's, or the only one there is.
///
/// # Errors
/// [`ImageError`]: it is not an OCI layout, has no image (or several) for the platform, or a document of it is refused.
pub(super) fn open(path: &Path, platform: Option<&Platform>) -> Result<(Store, Image), ImageError> {
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
    let mut tree = Tree::new(all, ImageLimits::default());
    for (number, layer) in image.layers.iter().enumerate() {
        tree.apply(store, layer, image.diff_ids[number], number, progress)?;
    }
    Ok(tree)
}

/// Digests of the manifest that [`generate`](super::generate) would take of an archive, and of its configuration.
///
/// # Errors
/// As for an archive that is a file.
pub fn image_of_archive(
    archive: impl Read + Seek + 'static,
    platform: Option<&Platform>,
) -> Result<[Sha256; 2], ImageError> {
    let mut store = Store::archive("archive", archive)?;
    let image = manifest::choose(&mut store, platform)?;
    Ok([image.manifest, image.config])
}

/// A regular file, by its path, with its SHA-256 if it can run.
pub type LayerFile = (Vec<u8>, Option<Sha256>);

/// What a container sees of layers that are no image's yet, lowest first.
///
/// # Errors
/// As for the layers of an image, but for their digests.
pub fn files_of_layers<'a>(
    layers: impl IntoIterator<Item = &'a [u8]>,
    limits: ImageLimits,
) -> Result<Vec<LayerFile>, ImageError> {
    let mut tree = Tree::new(false, limits);
    for (number, mut layer) in layers.into_iter().enumerate() {
        tree.put(&mut layer, &Sha256::default(), number, &Progress::default())?;
    }
    let sha256 = |content: &layers::Content| content.looked.as_ref().map(|looked| looked.sha256);
    Ok(tree.files().map(|(path, content)| (path.to_vec(), sha256(content))).collect())
}
