//! The packages of an index, in one text.

use super::index::at;

/// A package that an SBOM names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version; empty when the document has none.
    pub version: &'a str,
    /// Its package URL, as the document spells it (github.com/package-url/purl-spec): encodings differ between tools, so compare
    /// only parsed ones.
    pub purl: Option<&'a str>,
}

/// Packages by number: `NAME VERSION` and the package URL of each, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Packages {
    text: String,
    ends: Vec<Ends>,
}

/// Where the parts of a package end in the text.
#[derive(Clone, Copy, Debug)]
struct Ends {
    name: u32,
    label: u32,
    purl: u32,
}

impl Packages {
    /// Adds one; `None` when there are more than 4 GiB of them.
    pub(super) fn push(&mut self, package: &Package<'_>) -> Option<u32> {
        let number = u32::try_from(self.ends.len()).ok()?;
        let end = |text: &String| u32::try_from(text.len()).ok();
        self.text.push_str(package.name);
        let name = end(&self.text)?;
        if !package.version.is_empty() {
            self.text.push(' ');
            self.text.push_str(package.version);
        }
        let label = end(&self.text)?;
        self.text.push_str(package.purl.unwrap_or_default());
        let purl = end(&self.text)?;
        self.ends.push(Ends { name, label, purl });
        Some(number)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Name and version of the package of this number.
    pub(super) fn label(&self, number: u32) -> Option<&str> {
        let ends = self.ends.get(at(number))?;
        self.text.get(self.start(at(number))..at(ends.label))
    }

    /// The package of this number.
    pub(super) fn get(&self, number: u32) -> Option<Package<'_>> {
        let ends = self.ends.get(at(number))?;
        let start = self.start(at(number));
        Some(Package {
            name: self.text.get(start..at(ends.name))?,
            version: self.text.get(at(ends.name)..at(ends.label))?.trim_start_matches(' '),
            purl: self.text.get(at(ends.label)..at(ends.purl)).filter(|purl| !purl.is_empty()),
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Package<'_>> {
        (0..u32::try_from(self.len()).unwrap_or(u32::MAX)).filter_map(|number| self.get(number))
    }

    fn start(&self, number: usize) -> usize {
        number.checked_sub(1).map_or(0, |before| at(self.ends[before].purl))
    }

    /// Without room to grow.
    pub(super) fn packed(mut self) -> Self {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
        self
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<Ends>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let rows = [
            Package { name: "bash", version: "5.2-1", purl: Some("pkg:deb/debian/bash@5.2-1") },
            Package { name: "main", version: "", purl: None },
            Package { name: "", version: "1", purl: Some("pkg:generic/x") },
            Package { name: "two words", version: "1 2", purl: None },
        ];
        let mut packages = Packages::default();
        for (number, row) in (0..).zip(&rows) {
            assert_eq!(packages.push(row), Some(number));
        }
        assert_eq!(packages.iter().collect::<Vec<_>>(), rows);
        let labels: Vec<_> = (0..5).map(|n| packages.label(n)).collect();
        assert_eq!(labels, [Some("bash 5.2-1"), Some("main"), Some(" 1"), Some("two words 1 2"), None]);
    }
}
