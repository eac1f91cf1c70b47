//! Package databases: no content of their files stops the readers, and no path that is not canonical is owned.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use muster::packages::{Entry, Files, Limits, Wanted, owners, read};

/// Files that hold what the input says: its parts, which four NULs end, in the order of the names.
struct Input<'a>(Vec<&'a [u8]>);

const NAMES: [&str; 9] = [
    "var/lib/dpkg/status",
    "var/lib/dpkg/info/a.list",
    "var/lib/dpkg/info/a.md5sums",
    "var/lib/dpkg/diversions",
    "var/lib/dpkg/status.d/b",
    "var/lib/dpkg/status.d/b.md5sums",
    "lib/apk/db/installed",
    "usr/lib/python3/dist-packages/a-1.dist-info/RECORD",
    "var/lib/rpm/rpmdb.sqlite",
];

impl Files for Input<'_> {
    fn read(&self, path: &str, _: u64) -> io::Result<Option<Vec<u8>>> {
        let at = NAMES.iter().position(|name| *name == path);
        Ok(at.and_then(|at| self.0.get(at)).filter(|part| !part.is_empty()).map(|part| part.to_vec()))
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        let below = NAMES.iter().filter_map(|name| name.strip_prefix(path)?.strip_prefix('/'));
        Ok(below
            .map(|rest| Entry {
                name: rest.split('/').next().unwrap_or_default().to_owned(),
                is_dir: rest.contains('/'),
            })
            .collect())
    }

    fn is_link(&self, path: &str) -> bool {
        path == "lib"
    }
}

fuzz_target!(|data: &[u8]| {
    // A database of rpm's is full of NULs: it is the last part, and all of the rest.
    let mut parts = Vec::new();
    let mut rest = data;
    while parts.len() + 1 < NAMES.len() {
        let Some(end) = rest.windows(4).position(|four| four == [0; 4]) else { break };
        parts.push(&rest[..end]);
        rest = &rest[end + 4..];
    }
    parts.push(rest);
    let limits = Limits { paths: 10_000, ..Limits::default() };
    let input = Input(parts);
    let files = read(&input, &Wanted::everything(), &|_| None, limits);
    assert!(files.len() <= 10_000);
    for problem in files.problems().0 {
        assert!(problem.file.starts_with('/') && !problem.reason.is_empty());
    }
    assert!(files.owner(b"/a/../b").is_none());
    let owners = owners(&input, limits);
    assert!(owners.owner(b"/a/../b").is_none());
});
