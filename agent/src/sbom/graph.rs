//! Elements that name each other by the ids a document gives them.

use std::collections::HashMap;
use std::hash::Hash;

use super::{Builder, Digests, PathError, canonical};

/// Files, packages, and which package contains which file. An id may be used before its element is there.
pub(super) struct Graph<Id> {
    files: HashMap<Id, u32>,
    /// `None` for what is listed as a package but stands for the image itself.
    packages: HashMap<Id, Option<u32>>,
    contains: Vec<(Id, Id)>,
    /// As the document lists them, to copy none of the ids.
    lists: Vec<(Id, Vec<Id>)>,
}

impl<Id> Default for Graph<Id> {
    fn default() -> Self {
        Self { files: HashMap::new(), packages: HashMap::new(), contains: Vec::new(), lists: Vec::new() }
    }
}

/// Bytes of a document for which an element is expected: fewer than any has that is listed with its digests and its owner.
const BYTES_PER_FILE: usize = 512;

impl<Id: Eq + Hash> Graph<Id> {
    /// With room for the files of a document of this size, so that their table need not grow, which costs as much as filling it.
    pub(super) fn of_document(bytes: &[u8]) -> Self {
        let room = bytes.len() / BYTES_PER_FILE;
        Self { files: HashMap::with_capacity(room), ..Self::default() }
    }

    /// Adds a file to the index, under this id; `None` for the root directory, which syft lists as a file with an empty name.
    ///
    /// # Errors
    /// The path is refused, or the id is used already.
    pub(super) fn file(
        &mut self,
        index: &mut Builder,
        id: Id,
        path: &str,
        digests: Digests,
    ) -> Result<Option<u32>, String> {
        if digests == Digests::default() && canonical(path.as_bytes()) == Err(PathError::Empty) {
            return Ok(None);
        }
        let number = index.file(path.as_bytes(), digests).map_err(|error| error.to_string())?;
        match self.files.insert(id, number) {
            None => Ok(Some(number)),
            Some(_) => Err(format!("the id of file {path:?} is used twice")),
        }
    }

    /// Names a package of the index by this id; `None` for the image itself.
    ///
    /// # Errors
    /// The id is used already.
    pub(super) fn package(&mut self, id: Id, name: &str, number: Option<u32>) -> Result<(), String> {
        match self.packages.insert(id, number) {
            None => Ok(()),
            Some(_) => Err(format!("the id of package {name:?} is used twice")),
        }
    }

    /// The package contains the file.
    pub(super) fn contains(&mut self, package: Id, file: Id) {
        self.contains.push((package, file));
    }

    /// The package contains these files.
    pub(super) fn contains_all(&mut self, package: Id, mut files: Vec<Id>) {
        if !files.is_empty() {
            files.shrink_to_fit();
            self.lists.push((package, files));
        }
    }

    /// Tells the index who owns what.
    pub(super) fn own(&self, index: &mut Builder) {
        // The files of a package stand together.
        let mut last: Option<(&Id, Option<u32>)> = None;
        let lists =
            self.lists.iter().flat_map(|(package, files)| files.iter().map(move |file| (package, file)));
        for (package, file) in lists.chain(self.contains.iter().map(|(package, file)| (package, file))) {
            let number = match last {
                Some((same, number)) if same == package => number,
                _ => self.packages.get(package).copied().flatten(),
            };
            last = Some((package, number));
            if let (Some(package), Some(file)) = (number, self.files.get(file)) {
                index.own(*file, package);
            }
        }
    }
}
