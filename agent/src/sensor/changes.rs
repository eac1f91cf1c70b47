//! What the kernel programs remember of writing, and what they are told of it.

use std::sync::{Mutex, PoisonError};

use aya::maps::{HashMap, MapData};

use crate::event::Inode;
use crate::order::Order;

/// Number and device of an inode: `Number` of `agent-ebpf/src/writers.rs`.
pub(super) type Number = [u64; 2];
/// Time of the last writing, opener, mapping: `Writer` there.
pub(super) type Writer = [u64; 3];

/// Answers from the map.
pub(super) fn order(map: HashMap<MapData, Number, Writer>) -> Order {
    Order::new(move |inode: Inode| {
        let [at_ns, ..] = map.get(&[inode.ino, inode.dev.into()], 0).ok()?;
        Some(at_ns)
    })
}

/// Tells the programs that files on a device must not be believed to be unchanged (`true`), or may be again: `device.rs` there.
pub(super) fn devices(map: HashMap<MapData, u32, u64>) -> impl Fn(u32, bool) + Send + 'static {
    let map = Mutex::new(map);
    move |device, written| {
        let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
        let done = match written {
            true => map.insert(device, 0, 0),
            false => map.remove(&device),
        };
        if let Err(error) = done
            && written
        {
            tracing::warn!(%error, device, "a device that was written to is not remembered: the kernel goes on to keep digests of its files");
        }
    }
}
