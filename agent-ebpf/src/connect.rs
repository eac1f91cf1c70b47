//! Connects, and datagrams sent to an address without one.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use muster_common::{ConnectRecord, protocol};

use crate::emit::emit;
use crate::layout::*;
use crate::task;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// An address without one; udp_sendmsg() of IPv4 takes it for `AF_INET`.
const AF_UNSPEC: u16 = 0;
/// `IPPROTO_MPTCP`: TCP by more than one way.
const MPTCP: u16 = 262;
/// SMC is TCP that may become RDMA when the other side can: smc_connect() connects a TCP socket of the kernel's own, of which no
/// security module hears. Its family, and since 6.11 its protocol in the families of IP (`IPPROTO_SMC`).
const AF_SMC: u16 = 43;
const SMC: u16 = 256;
/// `SS_UNCONNECTED`
const UNCONNECTED: u32 = 1;
/// `MSG_FASTOPEN`: a send that connects.
const FASTOPEN: u32 = 0x2000_0000;

/// The key is in the map.
const EEXIST: i32 = -17;

/// A destination.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Destination {
    address: [u8; 16],
    /// Host byte order.
    port: u16,
    family: u16,
}

/// A program that sends to a destination. Another exec is another program.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sender {
    start_ns: u64,
    exec_id: u64,
    tgid: u32,
    to: Destination,
}

/// Senders that were reported: a datagram to the same destination again says nothing new.
#[map]
static SENDERS: LruHashMap<Sender, u8> = LruHashMap::with_max_entries(8192, 0);

/// Where a socket address lies.
#[derive(Clone, Copy)]
pub enum Address {
    /// Kernel memory.
    Kernel(u64),
    /// User memory.
    User(u64),
}

impl Address {
    #[inline(always)]
    fn read<T: Copy>(self, at: u64) -> T {
        match self {
            Self::Kernel(base) => read_at(base.wrapping_add(at)),
            Self::User(base) => read_user(base.wrapping_add(at)),
        }
    }
}

/// As [`read_at`], of user memory.
#[inline(always)]
pub fn read_user<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper fills `value` wholly, with zeroes if it fails; every `T` here is made of integers.
    unsafe {
        bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void);
        value.assume_init()
    }
}

/// [`protocol`] of a `struct sock`, 0 for one that is not reported.
#[inline(always)]
fn protocol_of(sk: u64) -> u8 {
    match read::<u16>(sk, &OFF_SK_PROTOCOL) {
        6 | MPTCP | SMC => protocol::TCP,
        17 => protocol::UDP,
        _ if read::<u16>(sk, &OFF_SK_FAMILY) == AF_SMC => protocol::TCP,
        _ => 0,
    }
}

#[inline(always)]
fn destination(address: Address, len: u32, unspecified: u16) -> Option<Destination> {
    let family: u16 = match address.read(0) {
        AF_UNSPEC => unspecified,
        family => family,
    };
    let port = u16::from_be(address.read(2));
    let mut to = Destination { address: [0; 16], port, family };
    if family == AF_INET && len >= 8 {
        to.address[..4].copy_from_slice(&address.read::<[u8; 4]>(4));
    } else if family == AF_INET6 && len >= 24 {
        to.address = address.read(8);
    } else {
        return None;
    }
    Some(to)
}

#[inline(always)]
fn report(sk: u64, protocol: u8, to: &Destination, sendto: bool) -> bool {
    emit::<ConnectRecord>(task::current(), |record| {
        // SAFETY: the record is reserved.
        unsafe {
            (*record).family = to.family;
            (*record).protocol = protocol;
            (*record).sendto = u8::from(sendto);
            (*record).port = to.port;
            (*record).source_port = read(sk, &OFF_SK_NUM);
            (*record).address = to.address;
        }
    })
}

/// The hook before a connect.
#[inline(always)]
pub fn connecting(socket: u64, address: Address, len: u32) {
    let sk = pointer(socket, &OFF_SOCKET_SK);
    let protocol = protocol_of(sk);
    if protocol == 0 || task::is_own() {
        return;
    }
    let Some(to) = destination(address, len, AF_UNSPEC) else { return };
    // io_uring asks until a stream socket is connected, and so does a program that does not wait: what the socket has already says
    // nothing new. Its state alone would not do: another thread may take the connection away before this call comes to it.
    if protocol == protocol::TCP
        && read::<u32>(socket, &OFF_SOCKET_STATE) != UNCONNECTED
        && destination_of(sk).is_some_and(|has| has == to)
    {
        return;
    }
    report(sk, protocol, &to, false);
}

/// The hook before a send. `msg` is the kernel's `struct msghdr`.
#[inline(always)]
pub fn sending(socket: u64, msg: u64) {
    let name = pointer(msg, &OFF_MSG_NAME);
    if name == 0 {
        return;
    }
    let fastopen = read::<u32>(msg, &OFF_MSG_FLAGS) & FASTOPEN != 0;
    let len: u32 = read(msg, &OFF_MSG_NAMELEN);
    sent(pointer(socket, &OFF_SOCKET_SK), Address::Kernel(name), len, fastopen);
}

/// A datagram is sent to an address.
#[inline(always)]
pub fn sent(sk: u64, address: Address, len: u32, fastopen: bool) {
    let protocol = protocol_of(sk);
    // TCP ignores the address of a send, except to open.
    if protocol == 0 || protocol == protocol::TCP && !fastopen || task::is_own() {
        return;
    }
    // With IPv6, and with TCP, an address without a family is none.
    let ipv4 = protocol == protocol::UDP && read::<u16>(sk, &OFF_SK_FAMILY) == AF_INET;
    let unspecified = if ipv4 { AF_INET } else { AF_UNSPEC };
    let Some(to) = destination(address, len, unspecified) else { return };
    let task = task::current();
    let sender = Sender {
        start_ns: task::start_ns(task),
        exec_id: read(task, &OFF_TASK_EXEC_ID),
        tgid: (task::current_id() >> 32) as u32,
        to,
    };
    if protocol != protocol::UDP {
        report(sk, protocol, &to, false);
        return;
    }
    // With any other error it is not known, and reported.
    if SENDERS.insert(&sender, &1, u64::from(BPF_NOEXIST)) == Err(EEXIST) {
        return;
    }
    if !report(sk, protocol, &to, true) {
        // The next one is reported.
        let _ = SENDERS.remove(&sender);
    }
}

/// The destination that a socket has.
#[inline(always)]
fn destination_of(sk: u64) -> Option<Destination> {
    let family: u16 = read(sk, &OFF_SK_FAMILY);
    let port = u16::from_be(read(sk, &OFF_SK_DPORT));
    let mut to = Destination { address: [0; 16], port, family };
    if family == AF_INET {
        to.address[..4].copy_from_slice(&read::<[u8; 4]>(sk, &OFF_SK_DADDR));
    } else if family == AF_INET6 {
        to.address = read(sk, &OFF_SK_V6_DADDR);
    } else {
        return None;
    }
    // A connect to AF_UNSPEC takes the destination away.
    (port != 0).then_some(to)
}

/// A socket has its destination: reported from the socket itself.
#[inline(always)]
pub fn connected(sk: u64, wanted: u8) {
    let protocol = protocol_of(sk);
    if protocol != wanted || task::is_own() {
        return;
    }
    if let Some(to) = destination_of(sk) {
        report(sk, protocol, &to, false);
    }
}
