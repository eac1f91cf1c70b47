//! Files that are mostly hole: a name, a size, and no content to speak of.

use std::fs::File;

use nix::sys::stat::FileStat;
use nix::unistd::{Whence, lseek64};

use super::open::size;

/// Bytes of holes that are read as the zeroes that they stand for. No program and no library has as many; whoever makes a file that
/// has can make it any number of times, for it costs no disk.
const MAX_HOLES: u64 = 64 << 20;
/// Holes that are looked at.
const MAX_STEPS: usize = 1024;

/// The file has more holes than are read. A file system that cannot tell holes from data says that there are none.
pub(super) fn is_hollow(file: &File, stat: &FileStat) -> bool {
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    // Cheap, and true of nearly every file. Compressed files have fewer blocks than bytes, too.
    if size(stat).saturating_sub(blocks) <= MAX_HOLES {
        return false;
    }
    let hollow = has_holes(file, stat);
    // Who reads the file goes on from where this ended.
    let rewound = lseek64(file, 0, Whence::SeekSet);
    hollow || rewound.is_err()
}

fn has_holes(file: &File, stat: &FileStat) -> bool {
    let end = i64::try_from(size(stat)).unwrap_or(i64::MAX);
    let mut holes = 0;
    let mut at = 0;
    for _ in 0..MAX_STEPS {
        let Ok(hole) = lseek64(file, at, Whence::SeekHole) else { return false };
        // Past the last data there is no more of it (ENXIO): the rest is hole.
        let data = lseek64(file, hole, Whence::SeekData).unwrap_or(end);
        holes += u64::try_from(data - hole).unwrap_or(0);
        if holes > MAX_HOLES {
            return true;
        }
        if data >= end || data <= at {
            return false;
        }
        at = data;
    }
    // So many of them and not at the end yet.
    true
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

    use nix::sys::stat::fstat;

    use super::*;

    #[test]
    fn what_is_mostly_hole_is_not_read() {
        for (size, expected) in [(0, false), (MAX_HOLES / 2, false), (MAX_HOLES * 4, true), (1 << 40, true)] {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(b"head").expect("room for four bytes");
            file.set_len(size.max(4)).expect("a hole");
            // Data behind the hole does not make it smaller.
            if size > 8 {
                file.seek(SeekFrom::End(-4))
                    .and_then(|_| file.write_all(b"tail"))
                    .expect("room for four bytes");
            }
            file.rewind().expect("a file");
            let stat = fstat(&file).expect("a file");
            assert_eq!(is_hollow(&file, &stat), expected, "{size} bytes");
            let mut head = [0; 4];
            file.read_exact(&mut head).expect("a file");
            assert_eq!(&head, b"head", "{size} bytes: read from the start");
        }
    }
}
