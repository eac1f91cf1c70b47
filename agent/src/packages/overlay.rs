//! The read-only layers of a container's root, by the mount table (`/proc/<pid>/mountinfo`, proc_pid_mountinfo(5)).
//!
//! overlayfs shows its layers as it was given them: `lowerdir=A:B` (`\:` is a colon of a name), or, since Linux 6.8,
//! one `lowerdir+=A` for each (`ovl_show_options`); the topmost comes first. The mount table writes blanks, commas,
//! backslashes and the like as `\ooo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// `OVL_MAX_STACK` of the kernel.
const MAX_LAYERS: usize = 500;

/// Why the layers cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// The text is not a mount table.
    #[error("mountinfo, line {line}: {reason}")]
    Line {
        /// Line, from 1.
        line: usize,
        /// What was expected.
        reason: &'static str,
    },
    /// Nothing is mounted at the root.
    #[error("mountinfo has no mount at /")]
    NoRoot,
    /// The root is of another kind: no layer of it can be told from the rest.
    #[error("the root is on {0}, not on overlayfs, so its read-only layers cannot be told")]
    NotOverlay(String),
    /// The layers are named relative to a directory that is not known.
    #[error("the layer {} is named relative to a directory that is not known", .0.display())]
    Relative(PathBuf),
    /// More than the kernel takes.
    #[error("expected at most {MAX_LAYERS} layers, found more")]
    TooMany,
}

/// The read-only layers of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Their directories, topmost first: paths of the mount namespace in which the root was mounted.
    pub directories: Vec<PathBuf>,
    /// What one layer hides of those below it is marked in `trusted.overlay.opaque`, which a process without `CAP_SYS_ADMIN` does
    /// not see (`xattr_permission`: as if it were not there). Mounts with `userxattr` use `user.overlay.opaque`.
    pub trusted: bool,
}

/// The read-only layers of the root.
///
/// # Errors
/// [`OverlayError`].
pub fn lower_directories(mountinfo: &[u8]) -> Result<Layers, OverlayError> {
    // What was mounted last over the root is what the process sees.
    let mut root = None;
    for (line, text) in super::lines(mountinfo).filter(|(_, text)| !text.is_empty()) {
        let wrong = |reason| OverlayError::Line { line, reason };
        let mut fields = text.split(|b| *b == b' ');
        let (Some(part), Some(point)) = (fields.nth(3), fields.next()) else {
            return Err(wrong("expected at least ten fields"));
        };
        if point != b"/" {
            continue;
        }
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let (Some(kind), Some(_source), Some(options)) = (rest.next(), rest.next(), rest.next()) else {
            return Err(wrong("expected a type, a source and options after the hyphen"));
        };
        root = Some((line, part, kind, options));
    }
    let (line, part, kind, options) = root.ok_or(OverlayError::NoRoot)?;
    if kind != b"overlay" {
        return Err(OverlayError::NotOverlay(String::from_utf8_lossy(kind).into_owned()));
    }
    if part != b"/" {
        return Err(OverlayError::Line { line, reason: "the root is a directory inside an overlay" });
    }
    let (mut layers, mut upper, mut trusted) = (Vec::new(), None, true);
    for option in options.split(|b| *b == b',') {
        if let Some(list) = option.strip_prefix(b"lowerdir=") {
            layers.extend(split(list));
        } else if let Some(one) = option.strip_prefix(b"lowerdir+=") {
            layers.push(path(decoded(one).map(|(byte, _)| byte).collect()));
        } else if let Some(one) = option.strip_prefix(b"upperdir=") {
            upper = Some(path(decoded(one).map(|(byte, _)| byte).collect()));
        } else if option == b"userxattr" {
            trusted = false;
        }
        if layers.len() > MAX_LAYERS {
            return Err(OverlayError::TooMany);
        }
    }
    // containerd and Docker shorten long options by naming the layers relative to the directory that holds them all, which
    // is two above the upper one.
    let base = upper.as_deref().filter(|u| u.is_absolute()).and_then(|u| u.parent()?.parent());
    let directories = layers.into_iter().map(|layer| absolute(layer, base)).collect::<Result<_, _>>()?;
    Ok(Layers { directories, trusted })
}

fn absolute(layer: PathBuf, base: Option<&Path>) -> Result<PathBuf, OverlayError> {
    match base {
        _ if layer.is_absolute() => Ok(layer),
        Some(base) => Ok(base.join(layer)),
        None => Err(OverlayError::Relative(layer)),
    }
}

fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

/// The names of a colon-separated list. After an empty one come layers of data only, which have no names of their own.
fn split(list: &[u8]) -> Vec<PathBuf> {
    let (mut out, mut name) = (Vec::new(), Vec::new());
    let mut bytes = decoded(list);
    while let Some((byte, was_escaped)) = bytes.next() {
        match (byte, was_escaped) {
            (b':', false) if name.is_empty() => return out,
            (b':', false) => {
                out.push(path(std::mem::take(&mut name)));
                if out.len() > MAX_LAYERS {
                    return out;
                }
            }
            // overlayfs's own escape, whose backslash the mount table has escaped again.
            (b'\\', _) => name.extend(bytes.next().map(|(byte, _)| byte)),
            (byte, _) => name.push(byte),
        }
    }
    if !name.is_empty() {
        out.push(path(name));
    }
    out
}

/// Bytes of a field, and whether each was written as `\ooo`.
fn decoded(field: &[u8]) -> impl Iterator<Item = (u8, bool)> + '_ {
    let mut rest = field;
    std::iter::from_fn(move || {
        let (&byte, after) = rest.split_first()?;
        if byte == b'\\'
            && let Some(&[a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7']) = after.first_chunk::<3>()
        {
            rest = &after[3..];
            return Some(((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), true));
        }
        rest = after;
        Some((byte, false))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(options: &str) -> Result<Vec<String>, OverlayError> {
        let text = format!(
            "1 0 0:30 / / rw,relatime - overlay overlay {options}\n2 1 0:5 / /proc rw shared:1 - proc proc rw\n"
        );
        let found = lower_directories(text.as_bytes())?;
        assert_eq!(found.trusted, !options.contains("userxattr"), "{options}");
        Ok(found.directories.iter().map(|p| p.to_str().expect("text").to_owned()).collect())
    }

    #[test]
    fn options_as_kernels_show_them() {
        for (options, expected) in [
            ("rw,lowerdir=/l/2:/l/1,upperdir=/u,workdir=/w", &["/l/2", "/l/1"][..]),
            ("rw,lowerdir=/l/a\\134:b:/l/c", &["/l/a:b", "/l/c"]),
            ("rw,lowerdir=/l/a\\072b:/l/c", &["/l/a:b", "/l/c"]),
            ("rw,lowerdir=/l/a\\040b\\054c", &["/l/a b,c"]),
            ("rw,lowerdir+=/l/2,lowerdir+=/l/1:x,datadir+=/d,upperdir=/u", &["/l/2", "/l/1:x"]),
            ("rw,lowerdir=/l/2:/l/1::/data", &["/l/2", "/l/1"]),
            ("rw,lowerdir=2/fs:1/fs,upperdir=/s/3/fs,workdir=/s/3/work", &["/s/2/fs", "/s/1/fs"]),
            ("rw,lowerdir=/l/2:/l/1,userxattr", &["/l/2", "/l/1"]),
            ("rw", &[]),
        ] {
            assert_eq!(layers(options).expect(options), expected, "{options}");
        }
        assert_eq!(layers("lowerdir=a:b"), Err(OverlayError::Relative("a".into())));
        let many = format!("lowerdir={}", "/a:".repeat(600));
        assert_eq!(layers(&many), Err(OverlayError::TooMany));
    }

    #[test]
    fn what_is_no_overlay_root_is_told() {
        for (text, expected) in [
            ("", "no mount at /"),
            ("1 0 8:1 / / rw - ext4 /dev/vda rw\n", "on ext4"),
            ("1 0 8:1 / /\n", "line 1"),
            ("1 0\n", "ten fields"),
            ("1 0 0:3 /sub / rw - overlay o rw,lowerdir=/a\n", "inside an overlay"),
            ("1 0 0:3 / / rw - overlay o lowerdir=/a\n2 0 8:1 / / rw - ext4 /dev/vda rw\n", "on ext4"),
        ] {
            let error = lower_directories(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
