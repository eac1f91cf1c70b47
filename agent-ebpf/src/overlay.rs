//! The inodes behind one of overlayfs. Its own inode stays as it is when a layer's file is changed beneath it, so a content is known
//! by the layer's.
//!
//! ovl_inode_realdata() and ovl_path_real(): the content is the upper inode's if `OVL_UPPERDATA` is set (without, the upper layer has
//! only the attributes, by `metacopy`), else the lowest's; the attributes are the upper's, else the first lower's.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use muster_common::OverlayLayout;
use muster_common::layout::ABSENT;

use crate::layout::*;

/// Bit of `OVL_UPPERDATA` in `ovl_inode.flags`, since 4.19.
const UPPERDATA: u64 = 1 << 3;

/// All zero until the agent has found the module's type information.
#[map]
static OVERLAY: Array<OverlayLayout> = Array::with_max_entries(1, 0);

/// Inodes of layers; 0 where there is none.
#[derive(Clone, Copy)]
pub struct Layers {
    /// In the upper layer.
    pub upper: u64,
    /// In the first lower layer that has the file, also if it was copied up since.
    pub lower: u64,
    /// The one that has the content; 0 when that is not known.
    pub data: u64,
}

/// The inode of the upper layer that belongs to an inode of overlayfs; 0 when there is none.
#[inline(always)]
pub fn upper(inode: u64) -> u64 {
    // struct ovl_inode: `struct inode vfs_inode; struct dentry *__upperdentry;`
    let dentry: u64 = read_at(inode + off(&SIZE_INODE));
    // Of nothing the walk reads zero.
    pointer(dentry, &OFF_DENTRY_INODE)
}

/// The inodes behind a regular file's inode of overlayfs.
#[inline(always)]
pub fn layers(inode: u64) -> Layers {
    let unknown = Layers { upper: upper(inode), lower: 0, data: 0 };
    let Some(layout) = OVERLAY.get_ptr(0) else { return unknown };
    // SAFETY: a map value.
    let layout = unsafe { &*layout };
    if layout.known == 0 {
        return unknown;
    }
    let own = inode.wrapping_sub(u64::from(layout.vfs_inode));
    let member = |offset: u32| -> u64 { read_at(own.wrapping_add(u64::from(offset))) };
    let upper = pointer(member(layout.upper), &OFF_DENTRY_INODE);
    let (lower, lowest) = if layout.entry != ABSENT {
        let entry = member(layout.entry);
        let count: u32 = read_at(entry.wrapping_add(u64::from(layout.count)));
        let first = entry.wrapping_add(u64::from(layout.stack)).wrapping_add(u64::from(layout.path_dentry));
        let at = |n: u32| -> u64 {
            if n >= count {
                return 0;
            }
            let dentry: u64 =
                read_at(first.wrapping_add(u64::from(n).wrapping_mul(u64::from(layout.path_size))));
            pointer(dentry, &OFF_DENTRY_INODE)
        };
        (at(0), at(count.wrapping_sub(1)))
    } else {
        let lower = if layout.lower != ABSENT {
            member(layout.lower)
        } else {
            pointer(member(layout.lower_dentry), &OFF_DENTRY_INODE)
        };
        let data = member(layout.lower_data);
        (lower, if data != 0 { data } else { lower })
    };
    let data = if upper != 0 && member(layout.flags) & UPPERDATA != 0 { upper } else { lowest };
    Layers { upper, lower, data }
}
