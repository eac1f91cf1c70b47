//! Looking at one process after the other, a part of it in each step.

use std::collections::HashSet;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;

use smallvec::SmallVec;

use super::maps::{LINE, Mapping, mapping, open_maps};
use super::written::{Number, is_writable};
use super::{PROCESSES, Running};
use crate::digest::Digests;
use crate::event::{FilePath, ProcessId, Role, Task};
use crate::proc::Proc;
use crate::workload::{UNKNOWN, Workloads};

/// Descriptors, or lines of `/proc/<pid>/maps`, that are looked at in one step.
pub(super) const STEP: usize = 256;
/// Of one process both are looked at so many times at most: it may go on to open and close while it is looked at.
const MOST: usize = 1 << 20;
/// Threads among which one is searched that lives, of a process whose first one has ended.
const THREADS: usize = 256;
/// `PF_KTHREAD` (`include/linux/sched.h`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// A process that is looked at.
#[derive(Debug)]
pub(super) struct Look {
    /// Its position among the tasks.
    pub(super) at: u32,
    /// Its number, or that of a thread of it.
    pub(super) through: u32,
    /// What is looked at: what it runs, or what it has open for write.
    of: Of,
    /// Lines of its maps, and then its descriptors.
    maps: Option<BufReader<fs::File>>,
    descriptors: Option<fs::ReadDir>,
    /// Mapped files that were looked at.
    mapped: HashSet<(String, u64)>,
    /// Files that it has open for write.
    pub(super) open: HashSet<Number>,
    looked_at: usize,
}

#[derive(Debug)]
pub(super) enum Of {
    /// Its workload; number and path of its program.
    Runs {
        workload: String,
        ino: u64,
        own: FilePath,
    },
    Writes,
}

impl Running {
    /// Begins to look at what a process runs.
    pub(super) fn look_at(
        &mut self,
        pid: u32,
        proc: &Proc,
        workloads: &mut Workloads,
        digests: &mut Digests,
    ) -> io::Result<()> {
        let stat = proc.stat(pid)?;
        if !self.seen.insert((pid, stat.start_ns)) {
            return Ok(());
        }
        self.is_new = true;
        let Some(through) = thread_of(proc, pid)? else { return Ok(()) };
        if self.tasks.len() >= PROCESSES {
            self.counts.left_out += 1;
            return Ok(());
        }
        let process = ProcessId { tgid: pid, start_ns: stat.start_ns };
        let (uid, euid) = proc.uids(through)?;
        let mut task = Task { process, pid: through, ppid: stat.ppid, uid, euid, ..Task::default() };
        task.comm = SmallVec::from_slice(&stat.comm);
        let thread = ProcessId { tgid: through, start_ns: proc.stat(through)?.start_ns };
        let program = digests.program(&Task { process: thread, ..task.clone() })?;
        task.mnt_ns = proc.namespace(through, "mnt")?;
        let workload = workloads.of_process(pid).map_or_else(|| UNKNOWN.to_owned(), |w| w.info.id.clone());
        let at = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        let mnt_ns = task.mnt_ns;
        self.tasks.push(task);
        self.writing.push((at, through));
        self.counts.processes += 1;
        let (dev, ino) = (program.identity.dev, program.identity.ino);
        let own = program.path.clone();
        let key = (workload.clone(), mnt_ns, Role::Program, dev.to_le_bytes().to_vec(), ino, own.clone());
        self.add(key, at, || Ok(program))?;
        let of = Of::Runs { workload, ino, own };
        self.look = Some(Look::new(at, through, of, open_maps(proc, through)?));
        Ok(())
    }

    /// Looks at some more of a process. `false`: that was all.
    pub(super) fn go_on(&mut self, look: &mut Look, proc: &Proc, digests: &mut Digests) -> io::Result<bool> {
        self.mounts.forget();
        for _ in 0..STEP {
            look.looked_at += 1;
            if look.looked_at > MOST {
                self.counts.left_out += 1;
                return Ok(false);
            }
            if let Some(maps) = &mut look.maps {
                let mut line = Vec::new();
                if maps.by_ref().take(LINE).read_until(b'\n', &mut line)? > 0 {
                    let line = String::from_utf8_lossy(&line);
                    if let Some(mapping) = mapping(line.trim_end_matches('\n')) {
                        let added = self.mapped(look, &mapping, proc, digests);
                        self.note(look.through, mapping.path, added);
                    }
                    continue;
                }
                look.maps = None;
                look.looked_at = 0;
                if let Of::Runs { .. } = look.of {
                    return Ok(false);
                }
                look.descriptors = Some(fs::read_dir(proc.root().join(format!("{}/fd", look.through)))?);
            }
            let Some(entry) = look.descriptors.as_mut().and_then(Iterator::next) else { return Ok(false) };
            if let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) {
                let added = self.opened(look, fd, proc, digests);
                self.note(look.through, "a descriptor", added);
            }
        }
        Ok(true)
    }

    fn mapped(
        &mut self,
        look: &mut Look,
        mapping: &Mapping<'_>,
        proc: &Proc,
        digests: &Digests,
    ) -> io::Result<()> {
        let through = look.through;
        let key = (mapping.device.to_owned(), mapping.inode);
        let file = || digests.mapping(through, mapping.range, mapping.path.as_bytes());
        match &look.of {
            Of::Runs { workload, ino, own } => {
                let is_own = mapping.inode == *ino && mapping.path.as_bytes().ends_with(own.as_bytes());
                if !mapping.executable || is_own || !look.mapped.insert(key) {
                    return Ok(());
                }
                let at = usize::try_from(look.at).unwrap_or(usize::MAX);
                let mnt_ns = self.tasks.get(at).map_or(0, |task| task.mnt_ns);
                let device = mapping.device.as_bytes().to_vec();
                let path = mapping.path.into();
                self.add(
                    (workload.clone(), mnt_ns, Role::Library, device, mapping.inode, path),
                    look.at,
                    file,
                )
            }
            Of::Writes => {
                let link = format!("{through}/map_files/{}", mapping.range);
                // One mapping of a file may be writable, and another not.
                if !mapping.shared || look.mapped.contains(&key) || !is_writable(proc, &link) {
                    return Ok(());
                }
                self.add_written(look.at, None, link, file()?);
                look.mapped.insert(key);
                Ok(())
            }
        }
    }

    fn opened(&mut self, look: &mut Look, fd: u32, proc: &Proc, digests: &Digests) -> io::Result<()> {
        let link = format!("{}/fd/{fd}", look.through);
        if !is_writable(proc, &link) {
            return Ok(());
        }
        let found = fs::metadata(proc.root().join(&link))?;
        let number = (found.dev(), found.ino());
        if !look.open.insert(number) {
            // At most those of one step.
            let last = self.written.iter_mut().find(|written| written.number == Some(number));
            if let Some(written) = last {
                written.links.push(link.into_boxed_str());
            }
            return Ok(());
        }
        if found.is_file() {
            self.add_written(look.at, Some(number), link, digests.descriptor(look.through, fd)?);
        }
        Ok(())
    }
}

impl Look {
    pub(super) fn new(at: u32, through: u32, of: Of, maps: BufReader<fs::File>) -> Self {
        let (mapped, open) = (HashSet::new(), HashSet::new());
        Self { at, through, of, maps: Some(maps), descriptors: None, mapped, open, looked_at: 0 }
    }
}

/// State and flags of a task (proc_pid_stat(5)).
fn state(proc: &Proc, pid: u32) -> io::Result<(char, u64)> {
    let text = proc.text(&format!("{pid}/stat"))?;
    let rest = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().and_then(|state| state.chars().next());
    let flags = fields.nth(5).and_then(|flags| flags.parse().ok());
    state.zip(flags).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The thread through which a process can be looked at: one that lives. A kernel thread has no program, nor has a zombie.
pub(super) fn thread_of(proc: &Proc, pid: u32) -> io::Result<Option<u32>> {
    match proc.exe(pid) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other.map(|_| Some(pid)),
    }
    if state(proc, pid)?.1 & KERNEL_THREAD != 0 {
        return Ok(None);
    }
    let mut lives = false;
    for entry in fs::read_dir(proc.root().join(format!("{pid}/task")))?.take(THREADS) {
        let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if proc.exe(tid).is_ok() {
            return Ok(Some(tid));
        }
        lives |= state(proc, tid).is_ok_and(|(state, _)| !matches!(state, 'Z' | 'X'));
    }
    match lives {
        true => Err(io::Error::other("none of its threads shows its program")),
        false => Ok(None),
    }
}
