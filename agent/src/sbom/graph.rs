//! Elements that name each other by the ids a document gives them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use super::{Builder, Digests, Package, PathError, canonical};

/// Files, packages, and which package contains which file. An id may be used before its element is there.
pub(super) struct Graph<Id> {
    /// `None` for an id that several different files have: what names it says nothing.
    files: HashMap<Id, Option<u32>>,
    /// `None` for what is listed as a package but stands for the image itself, and for an id that several different packages have.
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
    /// The path is refused.
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
        match self.files.entry(id) {
            Entry::Vacant(free) => drop(free.insert(Some(number))),
            // Listed twice in the same words, it is one file.
            Entry::Occupied(mut known) => {
                let same = known.get().is_some_and(|known| index.is_same_file(known, number));
                known.get_mut().take_if(|_| !same);
            }
        }
        Ok(Some(number))
    }

    /// Adds a package to the index, under this id, and gives its number; `None` as package is what stands for the image itself.
    pub(super) fn package(
        &mut self,
        index: &mut Builder,
        id: Id,
        package: Option<&Package<'_>>,
    ) -> Option<u32> {
        match self.packages.entry(id) {
            Entry::Vacant(free) => *free.insert(package.map(|package| index.package(package))),
            Entry::Occupied(mut known) => {
                // Listed twice in the same words, it is one package.
                let same = (*known.get()).filter(|known| index.packages.get(*known).as_ref() == package);
                *known.get_mut() = same;
                same.or_else(|| package.map(|package| index.package(package)))
            }
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

    /// Writes the ids of elements otherwise.
    pub(super) fn rename(&mut self, to: impl Fn(Id) -> Id) {
        let rename = |ids: &mut HashMap<Id, Option<u32>>| {
            for (id, number) in std::mem::take(ids) {
                // Two spellings of one id are the same id twice.
                ids.entry(to(id)).and_modify(|known| *known = None).or_insert(number);
            }
        };
        rename(&mut self.files);
        rename(&mut self.packages);
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
            if let (Some(package), Some(Some(file))) = (number, self.files.get(file)) {
                index.own(*file, package);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Sha256;

    #[test]
    fn an_id_of_several_different_elements_owns_nothing() {
        let package = |version| Package { name: "p", version, purl: None };
        for (second, files, owned, packages) in
            [(("/a", 1, "1"), 1, 1, 1), (("/a", 1, "2"), 1, 0, 2), (("/b", 1, "1"), 2, 0, 1)]
        {
            let (mut index, mut graph) = (Builder::default(), Graph::default());
            for (path, byte, version) in [("/a", 1, "1"), second] {
                let digests = Digests { sha256: Some(Sha256([byte; 32])), ..Digests::default() };
                graph.file(&mut index, "f", path, digests).expect("a good path");
                graph.package(&mut index, "p", Some(&package(version)));
            }
            graph.contains("p", "f");
            graph.own(&mut index);
            let numbers = index.finish().expect("a good index").numbers();
            assert_eq!(
                (numbers.files, numbers.owned, numbers.packages),
                (files, owned, packages),
                "{second:?}"
            );
        }
    }
}
