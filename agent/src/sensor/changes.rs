//! What the kernel programs remember of writing, and what they are told of it.

use std::sync::{Mutex, PoisonError};

use aya::maps::{HashMap, MapData, MapError};
use muster_common::SHA256_LEN;

use crate::devices::{Kernel, Writers};
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

/// Marks of devices that were opened for write, and who has them open: `device.rs` there.
pub(super) struct Devices {
    marks: Mutex<HashMap<MapData, u32, u64>>,
    writers: HashMap<MapData, u32, [u64; 2]>,
    digests: Mutex<HashMap<MapData, Content, [u8; SHA256_LEN]>>,
}

/// Keys that are asked for at most, some of them more than once.
const KEYS: usize = 1 << 18;

/// `ContentKey` of `digest.rs` there.
pub(super) type Content = [u64; 5];

impl Devices {
    pub(super) fn new(
        marks: HashMap<MapData, u32, u64>,
        writers: HashMap<MapData, u32, [u64; 2]>,
        digests: HashMap<MapData, Content, [u8; SHA256_LEN]>,
    ) -> Self {
        Self { marks: Mutex::new(marks), writers, digests: Mutex::new(digests) }
    }
}

impl Kernel for Devices {
    fn mark(&self, device: u32, written: bool) -> bool {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if written && marks.get(&device, 0).is_ok() {
            return false;
        }
        let done = match written {
            true => marks.insert(device, 0, 0),
            false => marks.remove(&device),
        };
        if let Err(error) = &done
            && written
        {
            tracing::warn!(%error, device, "a device that was written to is not remembered: the kernel goes on to keep digests of its files");
        }
        done.is_ok()
    }

    fn forget(&self) {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        // All at first: whoever asks for the key behind one that is gone begins anew, and the kernel goes on to drop some.
        let keys: Vec<_> = digests.keys().take(KEYS).collect();
        for key in keys {
            let removed = key.and_then(|key| digests.remove(&key));
            if let Err(error) = removed
                && !matches!(error, MapError::KeyNotFound)
            {
                tracing::warn!(%error, "the kernel's digests of before a device was opened for write cannot be dropped");
                return;
            }
        }
    }

    fn writers(&self, device: u32) -> Writers {
        match self.writers.get(&device, 0) {
            Ok([open, claimed_ns]) => Writers { open: open != 0, claimed_ns },
            // There was no room for it.
            Err(_) => Writers { open: true, claimed_ns: 0 },
        }
    }
}
