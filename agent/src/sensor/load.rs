//! Loads the kernel programs of a flavour, attaches them, and hands out their maps.

use std::sync::Mutex;

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::ProgramError;
use aya::programs::trace_point::TracePointError;
use aya::{Ebpf, EbpfLoader};
use muster_common::programs::{Attach, PROGRAMS, Program};
use muster_common::{LostKey, LostValue, global, map};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use tracing::{debug, info, warn};

use super::error::{SensorError, chain};
use super::hook_code;
use super::kernel::Kernel;
use super::offsets::Offsets;
use super::{changes, overlay};
use crate::config;
use crate::event::{Class, Flavour};

/// The kernel programs, compiled by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("MUSTER_EBPF_OBJECT"));

/// Loaded and attached programs. Dropping `ebpf` detaches them; the maps stay readable.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    /// Rings in the order of [`Class`](crate::event::Class).
    pub(super) rings: [RingBuf<MapData>; Class::ALL.len()],
    pub(super) sent: PerCpuArray<MapData, u64>,
    pub(super) lost: PerCpuArray<MapData, u64>,
    pub(super) losers: HashMap<MapData, LostKey, LostValue>,
    /// Not 0: no more records.
    pub(super) closed: Array<MapData, u32>,
    /// When inodes were last written.
    pub(super) writers: HashMap<MapData, changes::Number, changes::Writer>,
    /// Block devices that were opened for write.
    pub(super) devices: changes::Devices,
    /// Where overlayfs keeps its layers, to be filled in.
    pub(super) overlay: Array<MapData, overlay::Words>,
    /// What is not seen because a program could not be attached.
    pub(super) blind_spots: Vec<String>,
    #[cfg(feature = "ebpf-log")]
    pub(super) log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

/// Maps that forget what was not used for longest (`BPF_MAP_TYPE_LRU_HASH`), and their entries on a small machine.
const CACHES: [(&str, u32); 5] = [
    (map::DIGESTS, 16_384),
    (map::WRITERS, 16_384),
    (map::CALLS, 16_384),
    (map::SENDERS, 8192),
    (map::MAPPED, 4096),
];
/// Each processor takes so many elements of an LRU map for itself (`LOCAL_FREE_TARGET` in the kernel's bpf_lru_list.c, before 6.16), and
/// those that find none left forget what they have just put in.
const TAKEN_BY_CPU: u32 = 128;

/// Maps with an entry for each call that is under way, which forget nothing; an entry is some 3 KB.
const UNDER_WAY: [&str; 2] = [map::PENDING, map::DEEDS];
/// Their entries on a small machine, and for each processor of a large one: more threads are in such calls when they wait for a disk.
const UNDER_WAY_MIN: u32 = 1024;
const UNDER_WAY_BY_CPU: u32 = 16;

/// At least `entries`, and so many for each processor.
fn entries(entries: u32, by_cpu: u32, cpus: usize) -> u32 {
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    entries.max(cpus.saturating_mul(by_cpu))
}

/// Loads and attaches every program of the flavour.
///
/// # Errors
/// [`SensorError`] when the object is not of one piece with this agent, or the kernel refuses a program that is not
/// optional.
pub(super) fn load(
    config: &config::Sensor,
    flavour: Flavour,
    kernel: &Kernel,
    offsets: &Offsets,
) -> Result<Loaded, SensorError> {
    // Before 5.11 maps count against this limit. It may not be ours to raise; the kernel says so if it matters.
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        debug!(%error, "the limit of locked memory stays as it is");
    }
    let own_tgid = std::process::id();
    let has_ima = u32::from(kernel.has_ima_file_hash && flavour == Flavour::Lsm);
    let hook = u32::from(hook_code(flavour));
    let mut loader = EbpfLoader::new();
    for (symbol, value) in offsets.iter() {
        // A member that no program reads is not in the object.
        loader.override_global(symbol, value, false);
    }
    loader
        .override_global(global::OWN_TGID, &own_tgid, true)
        .override_global(global::HAS_IMA_FILE_HASH, &has_ima, true)
        .override_global(global::KERNEL_HASH_BYTES, &config.kernel_hash_bytes, true)
        .override_global(global::FLAVOUR, &hook, true)
        .map_max_entries(map::RING_EXEC, ring_size("exec_ring_bytes", config.exec_ring_bytes)?)
        .map_max_entries(map::RING_LIBRARY, ring_size("library_ring_bytes", config.library_ring_bytes)?)
        .map_max_entries(map::RING_FILE, ring_size("file_ring_bytes", config.file_ring_bytes)?)
        .map_max_entries(map::RING_NET, ring_size("network_ring_bytes", config.network_ring_bytes)?);
    let cpus = aya::util::nr_cpus().map_err(|(file, error)| SensorError::Cpus { file, error })?;
    for (name, least) in CACHES {
        // Half of the elements at least are for all.
        loader.map_max_entries(name, entries(least, 2 * TAKEN_BY_CPU, cpus));
    }
    for name in UNDER_WAY {
        loader.map_max_entries(name, entries(UNDER_WAY_MIN, UNDER_WAY_BY_CPU, cpus));
    }
    let mut ebpf = loader.load(OBJECT).map_err(SensorError::Object)?;

    // The maps before the programs: once those are attached, nothing may fail that leaves their records unread.
    let rings = [
        take(&mut ebpf, map::RING_EXEC)?,
        take(&mut ebpf, map::RING_LIBRARY)?,
        take(&mut ebpf, map::RING_FILE)?,
        take(&mut ebpf, map::RING_NET)?,
    ];
    let (sent, lost) = (take(&mut ebpf, map::SENT)?, take(&mut ebpf, map::LOST)?);
    let (losers, closed) = (take(&mut ebpf, map::LOST_OF)?, take(&mut ebpf, map::CLOSED)?);
    let devices = changes::Devices::new(
        take(&mut ebpf, map::DEVICES)?,
        take(&mut ebpf, map::DEVICE_WRITERS)?,
        take(&mut ebpf, map::DIGESTS)?,
    );
    let (writers, overlay) = (take(&mut ebpf, map::WRITERS)?, take(&mut ebpf, map::OVERLAY)?);
    #[cfg(feature = "ebpf-log")]
    let log = aya_log::EbpfLogger::init(&mut ebpf)
        .inspect_err(|error| {
            warn!(%error, "no logs from the kernel programs; build them with `cargo xtask build-ebpf --features log`");
        })
        .ok();
    let mut blind_spots = Vec::new();
    let btf = aya::Btf::from_sys_fs()?;
    // From the end: the table has what runs at a call's entry before what runs at its exit. An entry without its exit
    // would leave a note that the exit of another call takes for its own.
    for program in PROGRAMS.iter().rev().filter(|program| program.is_of(hook_code(flavour))) {
        attach(&mut ebpf, program, &btf, &mut blind_spots)?;
    }
    info!(
        flavour = flavour.as_str(),
        kernel = kernel.release,
        not_attached = blind_spots.len(),
        "programs attached"
    );
    Ok(Loaded {
        ebpf,
        rings,
        sent,
        lost,
        losers,
        closed,
        writers,
        devices,
        overlay,
        blind_spots,
        #[cfg(feature = "ebpf-log")]
        log,
    })
}

/// Threads that detach. More do not help: the kernel takes most of the points one after the other (`perf_trace_destroy()` under
/// `event_mutex`), and only what it waits for beside that can overlap.
const DETACHING: usize = 4;

/// Detaches every program, those at a call's entry before those at its exit: nobody would look at the entry's note.
pub(super) fn detach(mut ebpf: Ebpf) {
    let (exits, others): (Vec<_>, Vec<_>) = ebpf.programs_mut().partition(|(name, _)| is_at_exit(name));
    for programs in [others, exits] {
        let queue = Mutex::new(programs.into_iter());
        let next = || queue.lock().ok()?.next();
        let work = || {
            while let Some((name, program)) = next() {
                unload(name, program);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..DETACHING {
                if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, work) {
                    debug!(%error, "one thread less detaches the programs");
                }
            }
            work();
        });
    }
}

/// The program runs when system calls end.
fn is_at_exit(name: &str) -> bool {
    let program = PROGRAMS.iter().find(|program| program.name == name);
    program.is_some_and(|program| match program.attach {
        Attach::Tracepoint { points, .. } => points.iter().any(|point| point.name.starts_with("sys_exit_")),
        Attach::Fexit { .. } => true,
        _ => false,
    })
}

fn unload(name: &str, program: &mut aya::programs::Program) {
    use aya::programs::Program;
    let detached = match program {
        Program::Lsm(lsm) => lsm.unload(),
        Program::BtfTracePoint(tracepoint) => tracepoint.unload(),
        Program::FEntry(fentry) => fentry.unload(),
        Program::FExit(fexit) => fexit.unload(),
        Program::TracePoint(tracepoint) => tracepoint.unload(),
        // Dropping the object detaches whatever is left.
        _ => return,
    };
    match detached {
        Ok(()) | Err(ProgramError::NotLoaded) => {}
        Err(error) => warn!(program = name, %error, "not detached in order"),
    }
}

/// The kernel takes a power of two of at least a page.
fn ring_size(key: &'static str, found: u32) -> Result<u32, SensorError> {
    match found.is_power_of_two() && (4096..=config::MAX_RING_BYTES).contains(&found) {
        true => Ok(found),
        false => Err(SensorError::RingSize { key, found }),
    }
}

fn take<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, SensorError> {
    let map = ebpf.take_map(name).ok_or(SensorError::Incomplete { what: "map", name })?;
    M::try_from(map).map_err(|source| SensorError::Map { name, source })
}

/// Loads one program and attaches it wherever the table says.
fn attach(
    ebpf: &mut Ebpf,
    program: &'static Program,
    btf: &aya::Btf,
    blind_spots: &mut Vec<String>,
) -> Result<(), SensorError> {
    let name = program.name;
    let loaded = ebpf.program_mut(name).ok_or(SensorError::Incomplete { what: "program", name })?;
    let (at, tried) = match program.attach {
        Attach::Lsm { hook, .. } => (hook, lsm(loaded, hook, btf)),
        Attach::TpBtf { tracepoint } => (tracepoint, tp_btf(loaded, tracepoint, btf)),
        Attach::Fentry { function } => (function, fentry(loaded, function, btf)),
        Attach::Fexit { function } => (function, fexit(loaded, function, btf)),
        Attach::Tracepoint { category, points } => {
            let tracepoint: Result<&mut aya::programs::TracePoint, _> = loaded.try_into();
            let mut attached = 0;
            let tried = tracepoint.and_then(|tracepoint| {
                tracepoint.load()?;
                for point in points {
                    match tracepoint.attach(category, point.name) {
                        Ok(_) => attached += 1,
                        Err(error) if point.optional && is_absent(&error) => {
                            debug!(
                                program = name,
                                point = point.name,
                                "this kernel does not have the tracepoint"
                            );
                        }
                        Err(source) if !program.optional => {
                            return Err(source);
                        }
                        Err(error) => {
                            let reason = chain(&error);
                            warn!(program = name, point = point.name, reason, "not attached");
                            blind_spots.push(format!("{}, through {}: {reason}", program.sees, point.name));
                        }
                    }
                }
                Ok(())
            });
            debug!(program = name, attached, of = points.len(), "attached");
            (category, tried)
        }
    };
    match tried {
        Ok(()) => Ok(()),
        Err(error) if program.optional => {
            let reason = chain(&error);
            warn!(program = name, hook = at, reason, "an optional program is not attached");
            // The verifier's log is long; its place is the line above.
            let short = reason.lines().next().unwrap_or_default();
            blind_spots.push(format!("{} (the hook {at}: {short})", program.sees));
            Ok(())
        }
        Err(refusal) => Err(SensorError::Program { name, hook: at, refusal }),
    }
}

fn is_absent(error: &ProgramError) -> bool {
    matches!(
        error,
        ProgramError::TracePointError(TracePointError::FileError { io_error, .. })
            if io_error.kind() == std::io::ErrorKind::NotFound
    )
}

fn lsm(program: &mut aya::programs::Program, hook: &str, btf: &aya::Btf) -> Result<(), ProgramError> {
    let program: &mut aya::programs::Lsm = program.try_into()?;
    program.load(hook, btf)?;
    program.attach().map(|_| ())
}

fn tp_btf(
    program: &mut aya::programs::Program,
    tracepoint: &str,
    btf: &aya::Btf,
) -> Result<(), ProgramError> {
    let program: &mut aya::programs::BtfTracePoint = program.try_into()?;
    program.load(tracepoint, btf)?;
    program.attach().map(|_| ())
}

fn fentry(program: &mut aya::programs::Program, function: &str, btf: &aya::Btf) -> Result<(), ProgramError> {
    let program: &mut aya::programs::FEntry = program.try_into()?;
    program.load(function, btf)?;
    program.attach().map(|_| ())
}

fn fexit(program: &mut aya::programs::Program, function: &str, btf: &aya::Btf) -> Result<(), ProgramError> {
    let program: &mut aya::programs::FExit = program.try_into()?;
    program.load(function, btf)?;
    program.attach().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_program_is_both_at_the_entry_and_at_the_exit() {
        for program in PROGRAMS {
            let Attach::Tracepoint { points, .. } = program.attach else { continue };
            let exits = points.iter().filter(|point| point.name.contains("_exit_")).count();
            assert_eq!(exits, if is_at_exit(program.name) { points.len() } else { 0 }, "{}", program.name);
        }
        assert!(is_at_exit("name_exit") && is_at_exit("file_truncated") && !is_at_exit("rename_enter"));
    }

    #[test]
    fn maps_grow_with_the_processors() {
        for (least, cpus, size) in [
            (16_384, 1, 16_384),
            (16_384, 64, 16_384),
            (16_384, 128, 32_768),
            (4096, 16, 4096),
            (4096, 64, 16_384),
        ] {
            assert_eq!(entries(least, 2 * TAKEN_BY_CPU, cpus), size, "{least} on {cpus}");
        }
        assert_eq!(entries(UNDER_WAY_MIN, UNDER_WAY_BY_CPU, 16), 1024);
        assert_eq!(entries(UNDER_WAY_MIN, UNDER_WAY_BY_CPU, 256), 4096);
    }

    #[test]
    fn ring_sizes() {
        for good in [4096, 1 << 20, 1 << 30] {
            assert_eq!(ring_size("exec_ring_bytes", good).ok(), Some(good));
        }
        for bad in [0, 1, 2048, 4097, 3 << 20, 1 << 31] {
            let text = ring_size("exec_ring_bytes", bad).unwrap_err().to_string();
            assert!(text.contains("sensor.exec_ring_bytes") && text.contains(&bad.to_string()), "{text}");
        }
    }
}
