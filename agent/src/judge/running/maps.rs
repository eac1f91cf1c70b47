//! Lines of `/proc/<pid>/maps`.

use std::fs;
use std::io::{self, BufReader};

use crate::proc::Proc;

/// Most bytes of a line of `maps`: a path has up to 4096, each of which may be four when escaped.
pub(super) const LINE: u64 = 32 << 10;

/// One mapped file of a process: where it is mapped, its device as text, its inode, its path, and whether the mapping is executable
/// or shared.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapping<'a> {
    pub(super) range: &'a str,
    pub(super) device: &'a str,
    pub(super) inode: u64,
    pub(super) path: &'a str,
    pub(super) executable: bool,
    pub(super) shared: bool,
}

pub(super) fn open_maps(proc: &Proc, pid: u32) -> io::Result<BufReader<fs::File>> {
    Ok(BufReader::new(fs::File::open(proc.root().join(format!("{pid}/maps")))?))
}

/// A line of `maps`, if it is of a file that is mapped executable or shared (proc_pid_maps(5)).
pub(super) fn mapping(line: &str) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, ' ');
    let (range, mode, _) = (fields.next()?, fields.next()?, fields.next()?);
    let (device, inode) = (fields.next()?, fields.next()?.parse::<u64>().ok()?);
    let path = fields.next()?.trim_start_matches(' ');
    let is = |at: usize, letter| mode.as_bytes().get(at) == Some(&letter);
    let (executable, shared) = (is(2, b'x'), is(3, b's'));
    let is_file = inode != 0 && path.starts_with('/') && (executable || shared);
    is_file.then_some(Mapping { range, device, inode, path, executable, shared })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_mappings_of_files() {
        let maps = "\
            55d0-55d1 r--p 00000000 08:01 17   /usr/bin/a\n\
            55d1-55d2 r-xp 00001000 08:01 17   /usr/bin/a\n\
            7f00-7f01 r-xp 00000000 08:01 18   /usr/lib/with space.so (deleted)\n\
            7f01-7f02 r-xp 00001000 08:01 18   /usr/lib/with space.so (deleted)\n\
            7f02-7f03 rwxp 00000000 00:00 0 \n\
            7f03-7f04 r-xp 00000000 00:00 0    [vdso]\n\
            7f04-7f05 rwxs 00000000 00:01 19   /memfd:x (deleted)\n\
            7f05-7f06 rw-s 00000000 08:01 20   /srv/data\n\
            7f06-7f07 r--s 00001000 08:01 20   /srv/data\n\
            7f07-7f08 rw-p 00000000 08:01 21   /srv/own\n\
            nonsense\n";
        let one = |range, device, inode, path, how: &str| {
            let (executable, shared) = (how.contains('x'), how.contains('s'));
            Mapping { range, device, inode, path, executable, shared }
        };
        assert_eq!(
            maps.lines().filter_map(mapping).collect::<Vec<_>>(),
            [
                one("55d1-55d2", "08:01", 17, "/usr/bin/a", "x"),
                one("7f00-7f01", "08:01", 18, "/usr/lib/with space.so (deleted)", "x"),
                one("7f01-7f02", "08:01", 18, "/usr/lib/with space.so (deleted)", "x"),
                one("7f04-7f05", "00:01", 19, "/memfd:x (deleted)", "xs"),
                one("7f05-7f06", "08:01", 20, "/srv/data", "s"),
                one("7f06-7f07", "08:01", 20, "/srv/data", "s"),
            ]
        );
    }
}
