//! The program that is in no SBOM: each subcommand does one small, harmless thing that a test wants to see reported.

mod nfs;
mod rpc;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;

/// Stack of a thread that does next to nothing, bytes.
const STACK: usize = 64 << 10;

#[derive(Parser)]
enum Tool {
    /// Do nothing.
    Exit,
    /// Print one line and then wait for standard input to close.
    Wait,
    /// Remove the own program file, print one line, then wait for standard input to close.
    UnlinkSelf,
    /// Connect over TCP; refusal is fine.
    Tcp { to: SocketAddr },
    /// Connect a UDP socket.
    Udp { to: SocketAddr },
    /// Send a datagram from an unconnected UDP socket.
    UdpSend { to: SocketAddr },
    /// Put a copy of FILE into a memfd and run it from there.
    Memfd { file: PathBuf, args: Vec<String> },
    /// Put a copy of FILE into a memfd, map it executable, print one line, then wait for standard input to close.
    MapMemfd { file: PathBuf },
    /// Change one byte of FILE through a shared writable mapping.
    MapWrite { file: PathBuf },
    /// Store into FILE through a shared writable mapping that outlives its descriptor, run FILE, print one line, wait for standard
    /// input to close, change one byte and unmap.
    MapHeld { file: PathBuf },
    /// Fail to run FILE, and then map it executable in the same thread.
    FailedExec { file: PathBuf },
    /// Let this many threads fail to run FILE, and run PROGRAM while they are still there.
    FailedExecs { count: usize, file: PathBuf, program: PathBuf },
    /// Map the first page of FILE executable, print one line, then wait for standard input to close.
    MapAndWait { file: PathBuf },
    /// Map a memfd of 2^62 bytes executable, print one line, then wait for standard input to close.
    MapGiantMemfd,
    /// Map FILE executable while it is open for write.
    MapBusy { file: PathBuf },
    /// Map FILE for reading, and then make the mapping executable.
    Mprotect { file: PathBuf },
    /// Map FILE for reading and writing, privately; store into it; make the mapping executable.
    MprotectStored { file: PathBuf },
    /// Map FILE executable and writable at once, privately.
    MapWritable { file: PathBuf },
    /// Map each regular file in DIR, and below it, executable.
    MapEach { dir: PathBuf },
    /// Map FILE executable again and again in so many threads, until standard input closes; report how often.
    MapLoop { file: PathBuf, threads: usize },
    /// Begin to connect over TCP without waiting, and ask again.
    TcpTwice { to: SocketAddrV4 },
    /// Send a datagram to an address without a family, from an unconnected UDP socket.
    UdpUnspecified { to: SocketAddrV4 },
    /// Connect over SMC, which falls back to TCP; print `no smc` if the kernel has it not.
    Smc { to: SocketAddrV4 },
    /// Run PROGRAM this many times, one after the other, and report how many ran.
    Execs { count: u64, program: PathBuf, args: Vec<String> },
    /// Rename `f` in DIR on each processor, there and back. Then start a thread for each of DIRS on the last processor, which renames `f` there so
    /// many times.
    Renames { times: u64, dir: PathBuf, dirs: Vec<PathBuf> },
    /// Open, write and close this many different files in DIR, and remove them again.
    Writes { count: u64, dir: PathBuf },
    /// Serve the files of DIR over NFS version 3 on 127.0.0.1; print the port; end when standard input closes. After a line `hang` no call is
    /// answered any more.
    Nfs { dir: PathBuf },
}

fn main() -> anyhow::Result<()> {
    match Tool::parse() {
        Tool::Exit => Ok(()),
        Tool::Wait => wait(),
        Tool::UnlinkSelf => {
            std::fs::remove_file(std::env::current_exe()?)?;
            wait()
        }
        Tool::Tcp { to } => {
            // Refused is as good as accepted: the attempt is what is reported.
            drop(TcpStream::connect_timeout(&to, Duration::from_secs(2)));
            Ok(())
        }
        Tool::Udp { to } => Ok(socket_for(to)?.connect(to)?),
        Tool::UdpSend { to } => {
            socket_for(to)?.send_to(b"muster", to)?;
            Ok(())
        }
        Tool::Memfd { file, args } => memfd(&file, &args),
        Tool::MapMemfd { file } => map_memfd(&file),
        Tool::MapWrite { file } => map_write(&file),
        Tool::MapHeld { file } => map_held(&file),
        Tool::FailedExec { file } => failed_exec(&file),
        Tool::FailedExecs { count, file, program } => failed_execs(count, &file, &program),
        Tool::MapAndWait { file } => map_and_wait(&std::fs::File::open(file)?),
        Tool::MapGiantMemfd => map_giant_memfd(),
        Tool::MapBusy { file } => map_busy(&file),
        Tool::Mprotect { file } => mprotect(&file),
        Tool::MprotectStored { file } => mprotect_stored(&file),
        Tool::MapWritable { file } => map_writable(&file),
        Tool::MapEach { dir } => map_each(&dir),
        Tool::MapLoop { file, threads } => map_loop(&file, threads),
        Tool::TcpTwice { to } => tcp_twice(to),
        Tool::UdpUnspecified { to } => udp_unspecified(to),
        Tool::Smc { to } => smc(to),
        Tool::Execs { count, program, args } => {
            for done in 0..count {
                let status = Command::new(&program)
                    .args(&args)
                    .status()
                    .with_context(|| format!("after {done} runs"))?;
                ensure!(status.success(), "run {done} of {} ended with {status}", program.display());
            }
            println!("{count}");
            Ok(())
        }
        Tool::Renames { times, dir, dirs } => renames(times, &dir, &dirs),
        Tool::Writes { count, dir } => {
            for n in 0..count {
                let file = dir.join(format!("f{n}"));
                std::fs::write(&file, b"data")?;
                std::fs::remove_file(&file)?;
            }
            println!("{count}");
            Ok(())
        }
        Tool::Nfs { dir } => nfs::serve(dir),
    }
}

fn wait() -> anyhow::Result<()> {
    println!("ready");
    std::io::stdout().flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn socket_for(to: SocketAddr) -> std::io::Result<UdpSocket> {
    UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" })
}

/// A memfd with the content of `file`.
fn copy_to_memfd(file: &std::path::Path) -> anyhow::Result<std::fs::File> {
    let content = std::fs::read(file)?;
    let fd = nix::sys::memfd::memfd_create(c"unknown", nix::sys::memfd::MFdFlags::empty())?;
    let mut out = std::fs::File::from(fd);
    out.write_all(&content)?;
    Ok(out)
}

fn memfd(file: &std::path::Path, args: &[String]) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    let out = copy_to_memfd(file)?;
    let path = format!("/proc/self/fd/{}", out.as_raw_fd());
    // Reopened for reading: the kernel refuses to run a file that is open for write.
    let reader = std::fs::File::open(&path)?;
    drop(out);
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    Err(Command::new(path).args(args).exec().into())
}

/// By the descriptor that memfd_create() gave, which no open made.
fn map_memfd(file: &std::path::Path) -> anyhow::Result<()> {
    let out = copy_to_memfd(file)?;
    let map = map_executable(&out)?;
    let waited = wait();
    drop(map);
    waited
}

fn map_and_wait(file: &std::fs::File) -> anyhow::Result<()> {
    #[expect(unsafe_code, reason = "an executable mapping is what some subcommands are for")]
    // SAFETY: the file is this test's own; nobody changes it, and nothing of it is run.
    let map = unsafe { memmap2::MmapOptions::new().len(4096).map_exec(file)? };
    let waited = wait();
    drop(map);
    waited
}

fn map_giant_memfd() -> anyhow::Result<()> {
    let fd = nix::sys::memfd::memfd_create(c"giant", nix::sys::memfd::MFdFlags::empty())?;
    let file = std::fs::File::from(fd);
    file.set_len(1 << 62)?;
    map_and_wait(&file)
}

fn map_executable(file: &std::fs::File) -> anyhow::Result<memmap2::Mmap> {
    #[expect(unsafe_code, reason = "an executable mapping is what some subcommands are for")]
    // SAFETY: the file is this test's own; nobody changes it, and nothing of it is run.
    let map = unsafe { memmap2::MmapOptions::new().map_exec(file)? };
    Ok(map)
}

/// Byte of padding, the last of the ELF identification.
const PADDING: usize = 15;

/// A shared writable mapping of the file, which is not open any more.
fn map_shared(file: &std::path::Path) -> anyhow::Result<memmap2::MmapMut> {
    let opened = OpenOptions::new().read(true).write(true).open(file)?;
    #[expect(unsafe_code, reason = "a shared writable mapping is what some subcommands are for")]
    // SAFETY: the file is this test's own; nobody truncates it while it is mapped.
    let map = unsafe { memmap2::MmapMut::map_mut(&opened)? };
    ensure!(map.len() > PADDING, "{} is shorter than an ELF identification", file.display());
    Ok(map)
}

fn map_write(file: &std::path::Path) -> anyhow::Result<()> {
    let mut map = map_shared(file)?;
    map[PADDING] ^= 1;
    map.flush()?;
    Ok(())
}

fn map_held(file: &std::path::Path) -> anyhow::Result<()> {
    let mut map = map_shared(file)?;
    // The page is dirty from here on: what is stored into it later sets no time stamp.
    map[PADDING] = std::hint::black_box(map[PADDING]);
    let status = Command::new(file).status()?;
    ensure!(status.success(), "{} ended with {status}", file.display());
    let waited = wait();
    map[PADDING] ^= 1;
    waited
}

/// The kernel's loader refuses `file` for its interpreter, after the check of its credentials.
fn fail_to_run(file: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    let error = Command::new(file).exec();
    ensure!(error.kind() == std::io::ErrorKind::NotFound, "running {} gave: {error}", file.display());
    Ok(())
}

fn failed_execs(count: usize, file: &std::path::Path, program: &std::path::Path) -> anyhow::Result<()> {
    // While one thread execs no other can be made (copy_fs() in the kernel), so all are there before the first of them does.
    let (begun, failed, ran) = (Barrier::new(count), Barrier::new(count + 1), Barrier::new(count + 1));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|_| {
                let thread = || {
                    begun.wait();
                    let result = fail_to_run(file);
                    failed.wait();
                    ran.wait();
                    result
                };
                let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, thread);
                // The others would wait for it for ever.
                thread.unwrap_or_else(|error| {
                    eprintln!("a thread cannot be made: {error}");
                    std::process::exit(1)
                })
            })
            .collect();
        failed.wait();
        let status = Command::new(program).status();
        ran.wait();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        ensure!(status?.success(), "{} failed", program.display());
        Ok(())
    })
}

/// A dynamic linker maps a file that the kernel does not run all the same.
fn failed_exec(file: &std::path::Path) -> anyhow::Result<()> {
    fail_to_run(file)?;
    drop(map_executable(&std::fs::File::open(file)?)?);
    Ok(())
}

fn map_busy(file: &std::path::Path) -> anyhow::Result<()> {
    drop(map_executable(&OpenOptions::new().read(true).write(true).open(file)?)?);
    Ok(())
}

fn mprotect(file: &std::path::Path) -> anyhow::Result<()> {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect};
    let opened = std::fs::File::open(file)?;
    let length = std::num::NonZeroUsize::new(4096).context("a page")?;
    #[expect(unsafe_code, reason = "a mapping that becomes executable is what this subcommand is for")]
    // SAFETY: a new private mapping at an address of the kernel's choice, which is not read, written or run.
    unsafe {
        let map = mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, &opened, 0)?;
        mprotect(map, length.get(), ProtFlags::PROT_READ | ProtFlags::PROT_EXEC)?;
    }
    Ok(())
}

/// A page of the file, mapped privately with this protection.
fn map_private(
    file: &std::path::Path,
    prot: nix::sys::mman::ProtFlags,
) -> anyhow::Result<(std::ptr::NonNull<std::ffi::c_void>, usize)> {
    use nix::sys::mman::{MapFlags, mmap};
    let opened = std::fs::File::open(file)?;
    let length = std::num::NonZeroUsize::new(4096).context("a page")?;
    #[expect(unsafe_code, reason = "such mappings are what some subcommands are for")]
    // SAFETY: a new private mapping at an address of the kernel's choice, of which nothing is run.
    let map = unsafe { mmap(None, length, prot, MapFlags::MAP_PRIVATE, &opened, 0)? };
    Ok((map, length.get()))
}

fn mprotect_stored(file: &std::path::Path) -> anyhow::Result<()> {
    use nix::sys::mman::{ProtFlags, mprotect};
    let (map, length) = map_private(file, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
    #[expect(
        unsafe_code,
        reason = "a store into a private mapping that becomes executable is what this subcommand is for"
    )]
    // SAFETY: the mapping is ours, of one page, and writable; nothing of it is run.
    unsafe {
        map.as_ptr().cast::<u8>().add(PADDING).write_volatile(1);
        mprotect(map, length, ProtFlags::PROT_READ | ProtFlags::PROT_EXEC)?;
    }
    Ok(())
}

fn map_writable(file: &std::path::Path) -> anyhow::Result<()> {
    use nix::sys::mman::ProtFlags;
    map_private(file, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE | ProtFlags::PROT_EXEC)?;
    Ok(())
}

fn map_each(dir: &std::path::Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            map_each(&path)?;
        } else if kind.is_file() {
            // Whoever opens a FIFO waits for its other end.
            drop(map_executable(&std::fs::File::open(path)?)?);
        }
    }
    Ok(())
}

fn map_loop(file: &std::path::Path, threads: usize) -> anyhow::Result<()> {
    let opened = std::fs::File::open(file)?;
    let (ended, times) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let again = || -> anyhow::Result<()> {
            while !ended.load(Ordering::Relaxed) {
                drop(map_executable(&opened)?);
                times.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(again)).collect();
        let waited = wait();
        ended.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        waited
    })?;
    println!("{}", times.into_inner());
    Ok(())
}

/// A socket of any family that the kernel has.
fn socket(family: i32, kind: i32, protocol: i32) -> std::io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "families that no library knows")]
    // SAFETY: three integers; what comes back is a new descriptor, or an error.
    unsafe {
        match nix::libc::socket(family, kind | nix::libc::SOCK_CLOEXEC, protocol) {
            -1 => Err(std::io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// The address, with this family.
fn address(to: SocketAddrV4, family: i32) -> anyhow::Result<nix::libc::sockaddr_in> {
    Ok(nix::libc::sockaddr_in {
        sin_family: u16::try_from(family)?,
        sin_port: to.port().to_be(),
        sin_addr: nix::libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
        sin_zero: [0; 8],
    })
}

/// Size of a `struct sockaddr_in`.
const ADDRESS: u32 = 16;
const _: () = assert!(size_of::<nix::libc::sockaddr_in>() == ADDRESS as usize);

fn connect(socket: &OwnedFd, to: SocketAddrV4) -> anyhow::Result<()> {
    let to = address(to, nix::libc::AF_INET)?;
    #[expect(unsafe_code, reason = "an address for a socket that no library knows")]
    // SAFETY: the address lives until the call has ended. Refused is as good as accepted.
    unsafe {
        nix::libc::connect(socket.as_raw_fd(), (&raw const to).cast(), ADDRESS);
    }
    Ok(())
}

fn tcp_twice(to: SocketAddrV4) -> anyhow::Result<()> {
    let socket = socket(nix::libc::AF_INET, nix::libc::SOCK_STREAM | nix::libc::SOCK_NONBLOCK, 0)?;
    connect(&socket, to)?;
    connect(&socket, to)
}

fn udp_unspecified(to: SocketAddrV4) -> anyhow::Result<()> {
    let socket = socket(nix::libc::AF_INET, nix::libc::SOCK_DGRAM, 0)?;
    let to = address(to, nix::libc::AF_UNSPEC)?;
    #[expect(unsafe_code, reason = "no library makes such an address")]
    // SAFETY: data and address live until the call has ended.
    let sent = unsafe {
        let data = b"muster";
        nix::libc::sendto(
            socket.as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            0,
            (&raw const to).cast(),
            ADDRESS,
        )
    };
    ensure!(sent == 6, "sent {sent}: {}", std::io::Error::last_os_error());
    Ok(())
}

fn smc(to: SocketAddrV4) -> anyhow::Result<()> {
    const AF_SMC: i32 = 43;
    match socket(AF_SMC, nix::libc::SOCK_STREAM, 0) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
            println!("no smc");
            Ok(())
        }
        socket => connect(&socket?, to),
    }
}

/// Renames `f` there and back.
fn rename(dir: &std::path::Path, times: u64) -> anyhow::Result<()> {
    let names = [dir.join("f"), dir.join("g")];
    for n in 0..times {
        let at = usize::from(n % 2 == 1);
        std::fs::rename(&names[at], &names[1 - at]).with_context(|| dir.display().to_string())?;
    }
    Ok(())
}

fn renames(times: u64, dir: &std::path::Path, dirs: &[PathBuf]) -> anyhow::Result<()> {
    use nix::sched::{CpuSet, sched_setaffinity};
    let processors = std::thread::available_parallelism()?.get();
    let on = |processor: usize| -> anyhow::Result<()> {
        let mut set = CpuSet::new();
        set.set(processor)?;
        Ok(sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?)
    };
    for processor in 0..processors {
        on(processor)?;
        rename(dir, 2)?;
    }
    // Threads stay where the one that starts them is.
    std::thread::scope(|scope| {
        let threads: Vec<_> = dirs.iter().map(|dir| scope.spawn(|| rename(dir, times))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    println!("{processors}");
    Ok(())
}
