//! What the kernel programs remember of writing, and what they are told of it.

use std::sync::{Mutex, PoisonError};

use aya::maps::{HashMap, MapData};

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
}

impl Devices {
    pub(super) fn new(marks: HashMap<MapData, u32, u64>, writers: HashMap<MapData, u32, [u64; 2]>) -> Self {
        Self { marks: Mutex::new(marks), writers }
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

    fn writers(&self, device: u32) -> Writers {
        match self.writers.get(&device, 0) {
            Ok([open, claimed_ns]) => Writers { open: open != 0, claimed_ns },
            // There was no room for it.
            Err(_) => Writers { open: true, claimed_ns: 0 },
        }
    }
}
