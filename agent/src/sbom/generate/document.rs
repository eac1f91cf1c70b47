//! What a document lists, before it is written in a format.

use std::borrow::Cow;
use std::io;
use std::time::SystemTime;

use aws_lc_rs::digest;
use serde::Deserialize;

use super::file::Looked;
use super::oci::Image;
use super::owners::Package;
use super::{COMPLETE, Options, TOOL};
use crate::finding::Sha256;
use crate::mark::without_mark;

/// Everything of a document.
pub(super) struct Document {
    pub(super) of: Of,
    pub(super) files: Vec<Listed>,
    pub(super) packages: Vec<Package>,
    /// How many files and directories could not be read.
    pub(super) unread: usize,
    /// Directories that were left out on purpose.
    pub(super) excluded: Vec<String>,
}

/// What it is about.
pub(super) enum Of {
    Tree,
    Image(Image),
}

/// One file of the document.
pub(super) struct Listed {
    /// Relative to the root.
    pub(super) path: Box<str>,
    /// `None`: only a base lists it; it is not there, or is no regular file.
    pub(super) file: Option<Looked>,
    /// What the base has for a file that is not there.
    pub(super) stated: Option<Sha256>,
    pub(super) owner: Option<u32>,
    /// Number of the layer it came with.
    pub(super) layer: Option<usize>,
}

impl Listed {
    pub(super) fn sha256(&self) -> Option<Sha256> {
        self.file.as_ref().map(|file| file.sha256).or(self.stated)
    }
}

impl Document {
    pub(super) fn new(of: Of, files: Vec<Listed>, packages: Vec<Package>) -> Self {
        Self { of, files, packages, unread: 0, excluded: Vec::new() }
    }

    pub(super) fn image(&self) -> Option<&Image> {
        match &self.of {
            Of::Tree => None,
            Of::Image(image) => Some(image),
        }
    }

    /// The layer of a file.
    pub(super) fn layer(&self, listed: &Listed) -> Option<&Sha256> {
        self.image()?.diff_ids.get(listed.layer?)
    }

    /// Digest of all that is listed: what makes an identifier that is unique to the content.
    pub(super) fn content(&self) -> [u8; 32] {
        let mut content = digest::Context::new(&digest::SHA256);
        for listed in &self.files {
            content.update(listed.path.as_bytes());
            content.update(&[0]);
            content.update(&listed.sha256().unwrap_or_default().0);
        }
        content.finish().as_ref().try_into().expect("a SHA-256 has 32 bytes")
    }

    /// Whether everything is listed that [`selection`](Self::selection) names, in the words that [`sbom::parse`](crate::sbom::parse) knows.
    pub(super) fn claim(&self) -> String {
        match self.unread {
            0 => COMPLETE.to_owned(),
            unread => format!("muster: incomplete, {unread} files or directories could not be read"),
        }
    }

    /// Which files it lists. What was excluded is named: the document is complete for all else.
    pub(super) fn selection(&self, options: &Options) -> String {
        let all =
            if options.all { "every regular file" } else { "every executable, shared library and script" };
        match &*self.excluded {
            [] => all.to_owned(),
            excluded => format!("{all}{BUT_NONE}{}", excluded.join(", ")),
        }
    }

    /// Time of making, RFC 3339, whole seconds.
    pub(super) fn created(&self, options: &Options) -> io::Result<String> {
        let stated = || self.image().and_then(|image| image.created);
        let time = options.created.or_else(stated).unwrap_or_else(SystemTime::now);
        time::OffsetDateTime::from(time)
            .replace_nanosecond(0)
            .map_err(io::Error::other)?
            .format(&time::format_description::well_known::Rfc3339)
            .map_err(io::Error::other)
    }
}

/// In [`Document::selection`], before the directories that were excluded.
const BUT_NONE: &str = ", but none below ";

/// The directories that the maker of a document excluded, as it names them: of what this generator wrote, in either format.
pub fn excluded_in(document: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Selection<'a> {
        #[serde(borrow)]
        comment: Option<Cow<'a, str>>,
        #[serde(borrow)]
        metadata: Option<Metadata<'a>>,
    }
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, default)]
        properties: Vec<Property<'a>>,
    }
    #[derive(Deserialize)]
    struct Property<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(borrow, default)]
        value: Cow<'a, str>,
    }
    let Selection { comment, metadata } = serde_json::from_slice(without_mark(document)).ok()?;
    let properties = metadata.map_or_else(Vec::new, |metadata| metadata.properties);
    let property = properties.iter().find(|property| property.name == SELECTION);
    let comment = comment.as_deref().and_then(|text| text.strip_prefix("Lists ")?.strip_suffix('.'));
    let (_, excluded) = property.map(|property| &*property.value).or(comment)?.split_once(BUT_NONE)?;
    Some(excluded.to_owned())
}

/// The property of a CycloneDX document that says which files it lists.
pub(super) const SELECTION: &str = "muster:selection";

/// Name of this generator, with its version.
pub(super) fn tool() -> String {
    format!("{TOOL}{}", env!("CARGO_PKG_VERSION"))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
