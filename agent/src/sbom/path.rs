//! One spelling per path.

use std::borrow::Cow;

/// A path that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing is left of it.
    #[error("the path is empty")]
    Empty,
    /// It climbs.
    #[error("the path has a \"..\" component")]
    ParentDirectory,
    /// It holds a NUL.
    #[error("the path holds a NUL byte")]
    Nul,
}

/// Absolute, without `.` components and doubled slashes: `./x`, `x`, `/x` and `//./x` are one path.
///
/// Borrows when the path is canonical already.
///
/// # Errors
/// Empty paths, `..` components and NUL bytes are refused.
pub fn canonical(path: &[u8]) -> Result<Cow<'_, [u8]>, PathError> {
    if is_clean(path)? && path.first() == Some(&b'/') {
        return Ok(Cow::Borrowed(path));
    }
    let mut out = Vec::with_capacity(path.len() + 1);
    append_canonical(path, &mut out)?;
    Ok(Cow::Owned(out))
}

/// Appends the [`canonical`] path to others.
///
/// # Errors
/// The same; then nothing is appended.
pub(super) fn append_canonical(path: &[u8], out: &mut Vec<u8>) -> Result<(), PathError> {
    if is_clean(path)? {
        if path.first() != Some(&b'/') {
            out.push(b'/');
        }
        out.extend_from_slice(path);
        return Ok(());
    }
    for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".") {
        out.push(b'/');
        out.extend_from_slice(name);
    }
    Ok(())
}

/// The path is canonical, but for the slash that it may lack in front.
fn is_clean(path: &[u8]) -> Result<bool, PathError> {
    if memchr::memchr(0, path).is_some() {
        return Err(PathError::Nul);
    }
    let mut clean = true;
    let mut names = 0;
    for (at, name) in path.split(|b| *b == b'/').enumerate() {
        match name {
            b".." => return Err(PathError::ParentDirectory),
            b"" => clean &= at == 0,
            b"." => clean = false,
            _ => names += 1,
        }
    }
    if names == 0 { Err(PathError::Empty) } else { Ok(clean) }
}

/// The directory below `/usr` that a merged-/usr system has in place of this top directory.
pub(crate) fn merges_into_usr(path: &[u8]) -> bool {
    let top = path.get(1..).and_then(|rest| rest.split(|b| *b == b'/').next()).unwrap_or_default();
    matches!(top, b"bin" | b"sbin" | b"lib" | b"lib32" | b"lib64" | b"libx32") && path.len() > top.len() + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for spelling in ["/usr/bin/x", "usr/bin/x", "./usr/bin/x", "//usr//bin/./x", "/usr/bin/x/"] {
            assert_eq!(canonical(spelling.as_bytes()).unwrap(), b"/usr/bin/x".as_slice(), "{spelling}");
        }
        assert!(matches!(canonical(b"/usr/bin/x"), Ok(Cow::Borrowed(_))));
        for (bad, error) in [
            ("", PathError::Empty),
            ("/", PathError::Empty),
            ("././", PathError::Empty),
            ("/a/../b", PathError::ParentDirectory),
            ("..", PathError::ParentDirectory),
            ("/a\0b", PathError::Nul),
        ] {
            assert_eq!(canonical(bad.as_bytes()), Err(error), "{bad:?}");
        }
        canonical(b"/a..b/..c").unwrap();
    }

    #[test]
    fn merged_directories() {
        for (path, merges) in [
            ("/bin/x", true),
            ("/lib64/ld.so", true),
            ("/usr/bin/x", false),
            ("/bin", false),
            ("/binary/x", false),
        ] {
            assert_eq!(merges_into_usr(path.as_bytes()), merges, "{path}");
        }
    }
}
