//! Files that a person names: each may also be a pipe.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

/// The file; of a longer one than `limit`, which is not read, its size. A pipe has none: of it a byte more than `limit` is read.
pub(super) fn read(file: &Path, limit: u64) -> anyhow::Result<Result<Vec<u8>, u64>> {
    let unreadable = || format!("{}: cannot read", file.display());
    let opened = File::open(file).with_context(unreadable)?;
    let meta = opened.metadata().with_context(unreadable)?;
    if meta.is_file() && meta.len() > limit {
        return Ok(Err(meta.len()));
    }
    let mut bytes = Vec::new();
    opened.take(limit.saturating_add(1)).read_to_end(&mut bytes).with_context(unreadable)?;
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Ok(if found > limit { Err(found) } else { Ok(bytes) })
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_too_large_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        // Sparse: it takes no space.
        File::create(at("large")).and_then(|file| file.set_len(1 << 30)).unwrap();
        assert_eq!(read(&at("large"), 10).unwrap(), Err(1 << 30));
        std::fs::write(at("fits"), "0123456789").unwrap();
        assert_eq!(read(&at("fits"), 10).unwrap().unwrap(), b"0123456789");

        // A pipe that never ends.
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let pipe = at("pipe");
        let writer = std::thread::spawn(move || {
            let mut pipe = OpenOptions::new().write(true).open(pipe).unwrap();
            while pipe.write_all(&[b' '; 4096]).is_ok() {}
        });
        assert_eq!(read(&at("pipe"), 10).unwrap(), Err(11));
        writer.join().unwrap();
        read(&at("none"), 10).unwrap_err();
    }
}
