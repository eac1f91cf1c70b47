//! Files in the order of an index.
//!
//! Most comparisons of a sort are of two numbers here, each the start of what is compared: to follow two files to their paths is
//! slow, for neither is near the other in memory.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::index::at;
use crate::finding::Sha256;

/// A file, with the start of what it is sorted by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Keyed {
    start: u128,
    pub(super) file: u32,
}

impl Keyed {
    /// Both may be the same: what is left to compare decides.
    pub(super) fn may_equal(&self, other: &Self) -> bool {
        self.start == other.start
    }
}

/// Files by directory, then by name, then as they came.
pub(super) fn by_path<'a>(parts: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<Keyed> {
    // Directories are long and few: they are sorted once, and their ranks compared instead.
    let mut numbers: HashMap<&[u8], u32> = HashMap::new();
    let mut of_file = Vec::with_capacity(parts.len());
    let mut last: Option<(&[u8], u32)> = None;
    for (dir, _) in parts.clone() {
        let number = match last {
            Some((same, number)) if same == dir => number,
            _ => {
                let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
                *numbers.entry(dir).or_insert(next)
            }
        };
        last = Some((dir, number));
        of_file.push(number);
    }
    let mut dirs: Vec<(&[u8], u32)> = numbers.into_iter().collect();
    dirs.sort_unstable();
    let mut rank = vec![0_u32; dirs.len()];
    for (place, (_, number)) in (0..).zip(&dirs) {
        rank[at(*number)] = place;
    }
    let names: Vec<&[u8]> = parts.map(|(_, name)| name).collect();
    let mut files: Vec<Keyed> = (0..)
        .zip(of_file.iter().zip(&names))
        .map(|(file, (dir, name))| {
            // No name holds a NUL, so a shorter one comes first.
            let mut start = [0; 16];
            start[..4].copy_from_slice(&rank[at(*dir)].to_be_bytes());
            let length = name.len().min(12);
            start[4..4 + length].copy_from_slice(&name[..length]);
            Keyed { start: u128::from_be_bytes(start), file }
        })
        .collect();
    sort(&mut files, |file| names[at(file)]);
    files
}

/// Files by digest, then by number.
pub(super) fn by_sha256(
    files: impl Iterator<Item = (u32, Sha256)>,
    digest: impl Fn(u32) -> Sha256,
) -> Vec<Keyed> {
    let mut files: Vec<Keyed> = files
        .map(|(file, sha256)| {
            let mut start = [0; 16];
            start.copy_from_slice(&sha256.0[..16]);
            Keyed { start: u128::from_be_bytes(start), file }
        })
        .collect();
    sort(&mut files, digest);
    files
}

fn sort<T: Ord>(files: &mut [Keyed], rest: impl Fn(u32) -> T) {
    files.sort_unstable_by(|a, b| match a.start.cmp(&b.start) {
        Ordering::Equal => rest(a.file).cmp(&rest(b.file)).then(a.file.cmp(&b.file)),
        decided => decided,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_plain_sort_of_the_paths() {
        let rows: Vec<(&[u8], &[u8])> = [
            ("/usr", "b"),
            ("/usr", "a-name-that-is-long-2"),
            ("", "z"),
            ("/usr/b", "a"),
            ("/usr", "a-name-that-is-long-1"),
            ("/usr", "a-name-that-"),
            ("/usr-2", "a"),
            ("/usr", "b"),
            ("/usr", "b\x01"),
            ("/usr", "a-name-that"),
        ]
        .map(|(dir, name)| (dir.as_bytes(), name.as_bytes()))
        .into();
        let mut plain: Vec<usize> = (0..rows.len()).collect();
        plain.sort_by_key(|at| rows[*at]);
        let sorted: Vec<_> = by_path(rows.iter().copied()).iter().map(|keyed| at(keyed.file)).collect();
        assert_eq!(sorted, plain);
    }

    #[test]
    fn digests_alike_at_their_start() {
        let mut rows = [Sha256([1; 32]), Sha256([2; 32]), Sha256([1; 32]), Sha256([0; 32])];
        rows[0].0[31] = 2;
        let sorted = by_sha256((0..).zip(rows), |file| rows[at(file)]);
        assert_eq!(sorted.iter().map(|keyed| keyed.file).collect::<Vec<_>>(), [3, 2, 0, 1]);
        assert!(sorted[1].may_equal(&sorted[2]) && !sorted[2].may_equal(&sorted[3]));
    }
}
