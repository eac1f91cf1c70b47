//! Where overlayfs keeps the inodes of its layers. It is a module on most systems, and may be loaded long after the agent has started,
//! so a thread looks for its type information until it is there, and tells the kernel programs by a map.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aya::maps::{Array, MapData};
use muster_common::OverlayLayout;
use muster_common::layout::ABSENT;
use tracing::{error, info, warn};

use super::btf::{Btf, BtfError, KERNEL_BTF};
use super::kernel::Version;

/// Where the kernel offers the type information of the module, since 5.11.
const MODULE_BTF: &str = "/sys/kernel/btf/overlay";
/// Says `live` when the module is loaded.
const MODULE_STATE: &str = "/sys/module/overlay/initstate";
/// How often it is looked for. Until it is found no digest of a file of overlayfs is kept.
const PERIOD: Duration = Duration::from_millis(500);

/// The layout as the map holds it, a member of [`OverlayLayout`] each.
pub(super) type Words = [u32; size_of::<OverlayLayout>() / 4];

/// The thread that looks for the layout, while there is one.
#[derive(Debug)]
pub(super) struct Watch {
    thread: Option<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
}

impl Watch {
    /// Writes the layout into `map` as soon as it is known.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(mut map: Array<MapData, Words>, kernel: Version) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        // It is a part of the kernel on some systems.
        let told = match built_in() {
            Ok(None) => look(&mut map, kernel),
            found => tell(&mut map, found),
        };
        if told {
            return Ok(Self { thread: None, stopping });
        }
        info!("overlayfs is not loaded: how its layers are found is looked up as soon as it is");
        let stop = Arc::clone(&stopping);
        let wait = move || {
            while !stop.load(Ordering::Acquire) && !look(&mut map, kernel) {
                thread::park_timeout(PERIOD);
            }
        };
        let thread = thread::Builder::new().name("muster-overlay".into()).spawn(wait)?;
        Ok(Self { thread: Some(thread), stopping })
    }

    /// Ends the thread.
    pub(super) fn stop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                error!("the thread that looks for overlayfs ended by a panic");
            }
        }
    }
}

/// The kernel programs know the layout now, or never will.
fn look(map: &mut Array<MapData, Words>, kernel: Version) -> bool {
    let is_live = fs::read(MODULE_STATE).is_ok_and(|state| state.starts_with(b"live"));
    is_live && tell(map, of_module(kernel))
}

fn tell(map: &mut Array<MapData, Words>, found: io::Result<Option<OverlayLayout>>) -> bool {
    let found = found.and_then(|found| {
        found.ok_or_else(|| io::Error::other("the kernel lacks the structures that are known"))
    });
    match found {
        Ok(layout) => {
            let words: Words = zerocopy::transmute!(layout);
            if let Err(error) = map.set(0, words, 0) {
                warn!(%error, "the kernel programs cannot be told where overlayfs keeps its layers");
            }
        }
        Err(error) => warn!(
            %error,
            "where overlayfs keeps its layers is not known: no digest of its files is kept, and what is changed in a layer is \
             undetermined when it runs"
        ),
    }
    true
}

/// `None`: overlayfs is no part of the kernel itself.
fn built_in() -> io::Result<Option<OverlayLayout>> {
    let kernel = fs::read(KERNEL_BTF)?;
    let kernel = Btf::parse(&kernel).map_err(io::Error::other)?;
    layout(&kernel).map_err(io::Error::other)
}

fn of_module(version: Version) -> io::Result<Option<OverlayLayout>> {
    let kernel = fs::read(KERNEL_BTF)?;
    let kernel = Btf::parse(&kernel).map_err(io::Error::other)?;
    let module = match fs::read(MODULE_BTF) {
        Ok(bytes) => bytes,
        // The kernel has that of modules since 5.11.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && version < (Version { major: 5, minor: 11 }) =>
        {
            let inode = kernel.structure("inode").map(|inode| inode.size_or_type);
            return Ok(inode.map(before_module_types));
        }
        Err(error) => return Err(io::Error::new(error.kind(), format!("{MODULE_BTF}: {error}"))),
    };
    let module = Btf::parse_module(&module, &kernel).map_err(io::Error::other)?;
    layout(&module).map_err(io::Error::other)
}

/// `struct ovl_inode` of 4.19 to 5.18: `struct inode *lowerdata; const char *redirect; u64 version; unsigned long flags;
/// struct inode vfs_inode; struct dentry *__upperdentry; struct inode *lower;`
fn before_module_types(inode: u32) -> OverlayLayout {
    let vfs_inode = 32;
    let upper = vfs_inode + inode;
    OverlayLayout {
        known: 1,
        vfs_inode,
        upper,
        flags: 24,
        lower: upper + 8,
        lower_dentry: ABSENT,
        lower_data: 0,
        entry: ABSENT,
        count: ABSENT,
        stack: ABSENT,
        path_size: 16,
        path_dentry: 8,
    }
}

/// `None` when a structure or a member is not as in any kernel known: see [`OverlayLayout`].
fn layout(btf: &Btf<'_>) -> Result<Option<OverlayLayout>, BtfError> {
    let (Some(inode), Some(path)) = (btf.structure("ovl_inode"), btf.structure("ovl_path")) else {
        return Ok(None);
    };
    let of_inode = |member| btf.offset_of(&inode, member);
    let Some(path_dentry) = btf.offset_of(&path, "dentry")? else { return Ok(None) };
    let (Some(vfs_inode), Some(upper), Some(flags)) =
        (of_inode("vfs_inode")?, of_inode("__upperdentry")?, of_inode("flags")?)
    else {
        return Ok(None);
    };
    let mut layout = OverlayLayout {
        known: 1,
        vfs_inode,
        upper,
        flags,
        lower: of_inode("lower")?.unwrap_or(ABSENT),
        lower_dentry: of_inode("lowerpath")?.map_or(ABSENT, |at| at + path_dentry),
        lower_data: of_inode("lowerdata")?.unwrap_or(ABSENT),
        entry: ABSENT,
        count: ABSENT,
        stack: ABSENT,
        path_size: path.size_or_type,
        path_dentry,
    };
    if let (Some(at), Some(entry)) = (of_inode("oe")?, btf.structure("ovl_entry")) {
        let members = (btf.offset_of(&entry, "__numlower")?, btf.offset_of(&entry, "__lowerstack")?);
        let (Some(count), Some(stack)) = members else { return Ok(None) };
        (layout.entry, layout.count, layout.stack) = (at, count, stack);
    }
    let has_lower = layout.lower != ABSENT || layout.lower_dentry != ABSENT;
    let is_known = layout.entry != ABSENT || has_lower && layout.lower_data != ABSENT;
    Ok(is_known.then_some(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Structures `ovl_path`, `ovl_inode` and `ovl_entry` as a module has them: types and strings go on from the kernel's.
    fn module(members: &[(&str, u32)], base: &Btf<'_>, base_strings: u32) -> Vec<u8> {
        let mut strings = b"\0".to_vec();
        let mut types: Vec<u32> = Vec::new();
        let mut structure = |name: &str, size: u32, members: &[(&str, u32)]| {
            let mut string = |text: &str| {
                let at = base_strings + u32::try_from(strings.len()).unwrap();
                strings.extend_from_slice(text.as_bytes());
                strings.push(0);
                at
            };
            types.extend([string(name), 4 << 24 | u32::try_from(members.len()).unwrap(), size]);
            for (member, at) in members {
                // Some type of the kernel's: it is not looked at.
                types.extend([string(member), 1, at * 8]);
            }
        };
        structure("ovl_path", 16, &[("layer", 0), ("dentry", 8)]);
        structure("ovl_inode", 1000, members);
        structure("ovl_entry", 8, &[("__numlower", 0), ("__lowerstack", 8)]);
        assert!(!base.is_empty());
        let (types_len, strings_len) = (types.len() * 4, strings.len());
        let mut out = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types_len, types_len, strings_len] {
            out.extend(u32::try_from(word).unwrap().to_ne_bytes());
        }
        types.iter().for_each(|word| out.extend(word.to_ne_bytes()));
        out.extend(strings);
        out
    }

    #[test]
    fn each_kernel_has_its_way_to_the_layers() {
        // One type, a pointer, and one string.
        let strings = b"\0base\0";
        let mut kernel = vec![0x9f, 0xeb, 1, 0];
        let mut word = |value: u32| kernel.extend(value.to_ne_bytes());
        [24, 0, 12, 12, 6, 0, 2 << 24, 0].into_iter().for_each(&mut word);
        kernel.extend(strings);
        let kernel = Btf::parse(&kernel).expect("the kernel's");
        let common = [("redirect", 8), ("flags", 24), ("vfs_inode", 32), ("__upperdentry", 600)];
        #[rustfmt::skip]
        let rows = [
            ("5.10", &[("lowerdata", 0), ("lower", 608)][..], Some((608, ABSENT, 0, ABSENT))),
            ("6.1", &[("lowerdata", 0), ("lowerpath", 608)], Some((ABSENT, 616, 0, ABSENT))),
            ("6.5", &[("lowerdata_redirect", 0), ("oe", 608)], Some((ABSENT, ABSENT, ABSENT, 608))),
            ("a later one", &[("layers", 608)], None),
        ];
        for (release, own, expected) in rows {
            let members: Vec<_> = common.iter().chain(own).copied().collect();
            let bytes = module(&members, &kernel, 6);
            let btf = Btf::parse_module(&bytes, &kernel).expect(release);
            let found = layout(&btf).expect(release);
            assert_eq!(
                found.map(|l| (l.lower, l.lower_dentry, l.lower_data, l.entry)),
                expected,
                "{release}"
            );
            if let Some(found) = found {
                assert_eq!(
                    (found.known, found.vfs_inode, found.upper, found.flags),
                    (1, 32, 600, 24),
                    "{release}"
                );
                assert_eq!((found.path_size, found.path_dentry), (16, 8), "{release}");
            }
        }
        assert_eq!(layout(&kernel), Ok(None));
        let old = before_module_types(568);
        assert_eq!(
            (old.vfs_inode, old.upper, old.lower, old.lower_data),
            (32, 600, 608, 0),
            "as the row of 5.10"
        );
    }
}
