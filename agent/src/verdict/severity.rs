//! How bad it is, by what happened. `docs/FINDINGS.md` has the table for people; the tests here hold it.
//!
//! | what happened | host | container |
//! | --- | --- | --- |
//! | a copy of attested content, or an empty file, was made and has not run | none | info; empty: none |
//! | such a copy is set-user-id or set-group-id, or is given capabilities | high | high |
//! | such a copy ran | low | low |
//! | such a copy ran from a file system in memory | high | high |
//! | a new program was made and has not run | low | medium |
//! | it lies where the system looks for programs by itself, is set-user-id or set-group-id, or is given capabilities | high | high |
//! | a new program ran, was mapped or loaded | high | high |
//! | it did so as root, from a file system in memory, or made a connection | critical | critical |
//!
//! *New* is what is `unauthorized`. Where the SBOM lists packages and no files it cannot say that a file does not belong there, and all
//! of a new program falls by one step.

use crate::event::{Action, FileOp, FileRef, Observation, Place};
use crate::finding::{Coverage, Severity};

/// Set-user-id and set-group-id (`S_ISUID | S_ISGID`).
const SET_ID: u32 = 0o6000;

/// Where a program is run, or a library, module or hook loaded, without anybody naming the file: what `PATH` has on common systems,
/// where the dynamic linker, interpreters, the kernel, systemd, udev, cron and the boot look.
const LOOKED_INTO: [&[u8]; 18] = [
    b"/bin/",
    b"/sbin/",
    b"/lib/",
    b"/lib32/",
    b"/lib64/",
    b"/libx32/",
    b"/usr/bin/",
    b"/usr/sbin/",
    b"/usr/games/",
    b"/usr/lib",
    b"/usr/share/initramfs-tools/",
    b"/usr/local/bin/",
    b"/usr/local/sbin/",
    b"/usr/local/lib",
    b"/etc/",
    b"/boot/",
    b"/var/spool/cron/",
    b"/run/systemd/",
];

/// What was done with a file, as far as it makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Made or changed.
    Made,
    /// Run, or mapped executable.
    Ran,
    /// Its process made a connection.
    Connected,
}

fn deed(action: Action) -> Deed {
    match action {
        Action::Change(_) => Deed::Made,
        Action::Connect => Deed::Connected,
        Action::Exec | Action::Script | Action::Interpreter | Action::Library => Deed::Ran,
    }
}

/// It gives whoever runs it the rights of its owner or group, or capabilities.
fn grants_rights(observation: &Observation) -> bool {
    observation.file.mode & SET_ID != 0 || observation.action == Action::Change(FileOp::Capability)
}

/// The system runs or loads it without being told its name. A path that proves nothing may be any; but what has no name on the host no
/// program of the host looks for.
fn is_looked_for(file: &FileRef) -> bool {
    !file.private
        && super::provable_path(file)
            .is_none_or(|path| LOOKED_INTO.iter().any(|place| path.starts_with(place)))
}

fn is_in_memory(file: &FileRef) -> bool {
    matches!(file.place, Place::Tmpfs | Place::Memfd)
}

/// Of a file that is neither in the SBOM nor part of the image.
pub(super) fn of_new(observation: &Observation, coverage: Coverage) -> Severity {
    let file = &observation.file;
    let severity = match deed(observation.action) {
        Deed::Made if grants_rights(observation) || is_looked_for(file) => Severity::High,
        Deed::Made if observation.on_host => Severity::Low,
        Deed::Made => Severity::Medium,
        Deed::Connected => Severity::Critical,
        Deed::Ran if observation.root || is_in_memory(file) => Severity::Critical,
        Deed::Ran => Severity::High,
    };
    match coverage {
        Coverage::Full | Coverage::Owned => severity,
        Coverage::Packages => severity.below(),
    }
}

/// Of attested content at a path where the SBOM does not have it. `None`: nothing to report.
pub(super) fn of_copy(observation: &Observation) -> Option<Severity> {
    let file = &observation.file;
    match deed(observation.action) {
        _ if grants_rights(observation) => Some(Severity::High),
        Deed::Made if observation.on_host => None,
        Deed::Made => Some(Severity::Info),
        Deed::Ran | Deed::Connected if is_in_memory(file) => Some(Severity::High),
        Deed::Ran | Deed::Connected => Some(Severity::Low),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Content, Unread};

    const DISK: Place = Place::Disk;
    const TMPFS: Place = Place::Tmpfs;
    const MEMFD: Place = Place::Memfd;
    const MADE: Action = Action::Change(FileOp::CloseWrite);

    fn seen(action: Action, place: Place, path: &str, mode: u32) -> Observation {
        Observation {
            action,
            file: FileRef { path: path.into(), place, mode: 0o100_000 | mode, ..FileRef::default() },
            content: Content::Undetermined(Unread::Gone),
            fresh: true,
            root: false,
            on_host: true,
            owner: None,
            update: None,
        }
    }

    /// What is done, where, and how bad it is on a host, on a host by root, in a container.
    type Row = (Action, Place, &'static str, u32, [Severity; 3]);

    #[test]
    fn a_new_program() {
        use Action::{Connect, Exec, Interpreter, Library, Script};
        use Severity::{Critical, High, Low, Medium};
        let made = [Low, Low, Medium];
        let ran = [High, Critical, High];
        let table: &[Row] = &[
            (MADE, DISK, "/home/user/target/debug/hello", 0o755, made),
            (MADE, DISK, "/opt/x", 0o644, made),
            (MADE, DISK, "/tmp/x", 0o755, made),
            (MADE, TMPFS, "/dev/shm/x", 0o755, made),
            (Action::Change(FileOp::Chmod), DISK, "/opt/x", 0o755, made),
            (Action::Change(FileOp::Rename), DISK, "/binary/x", 0o755, made),
            (MADE, DISK, "/var/lib/containers/usr/bin/x", 0o755, made),
            (MADE, DISK, "/usr/bin/x", 0o755, [High; 3]),
            (MADE, DISK, "/usr/local/sbin/x", 0o755, [High; 3]),
            (MADE, DISK, "/usr/lib64/x.so", 0o644, [High; 3]),
            (MADE, DISK, "/usr/libexec/x", 0o755, [High; 3]),
            (MADE, DISK, "/usr/local/lib/python3.11/dist-packages/x.so", 0o644, [High; 3]),
            (MADE, DISK, "/lib/modules/6.12/extra/x.ko", 0o644, [High; 3]),
            (MADE, DISK, "/etc/cron.daily/x", 0o755, [High; 3]),
            (MADE, DISK, "/etc/kernel/postinst.d/x", 0o755, [High; 3]),
            (MADE, DISK, "/usr/share/initramfs-tools/hooks/x", 0o755, [High; 3]),
            (MADE, TMPFS, "/run/systemd/generator/x", 0o755, [High; 3]),
            (MADE, DISK, "/opt/x", 0o4755, [High; 3]),
            (MADE, DISK, "/opt/x", 0o2755, [High; 3]),
            (MADE, DISK, "/opt/x", 0o1755, made),
            (Exec, DISK, "/opt/x", 0o755, ran),
            (Script, DISK, "/opt/x", 0o755, ran),
            (Interpreter, DISK, "/opt/x", 0o755, ran),
            (Library, DISK, "/opt/x.so", 0o644, ran),
            (Exec, DISK, "/tmp/x", 0o755, ran),
            (Exec, DISK, "/dev/shm/x", 0o755, ran),
            (Exec, TMPFS, "/opt/x", 0o755, [Critical; 3]),
            (Library, TMPFS, "/opt/x", 0o755, [Critical; 3]),
            (Exec, MEMFD, "/memfd:x", 0o777, [Critical; 3]),
            (Connect, DISK, "/opt/x", 0o755, [Critical; 3]),
        ];
        for (action, place, path, mode, expected) in table {
            let observation = seen(*action, *place, path, *mode);
            let by_root = Observation { root: true, ..observation.clone() };
            let contained = Observation { on_host: false, ..observation.clone() };
            let all = [&observation, &by_root, &contained];
            let what = format!("{action:?} {place:?} {path} {mode:o}");
            assert_eq!(all.map(|o| of_new(o, Coverage::Full)), *expected, "{what}");
            assert_eq!(all.map(|o| of_new(o, Coverage::Owned)), *expected, "{what}");
            let below = expected.map(Severity::below);
            assert_eq!(all.map(|o| of_new(o, Coverage::Packages)), below, "{what}");
        }
    }

    #[test]
    fn a_path_that_proves_nothing_may_be_any() {
        let file = |spoil: fn(&mut FileRef)| {
            let mut observation = seen(MADE, DISK, "/opt/x", 0o755);
            spoil(&mut observation.file);
            of_new(&observation, Coverage::Full)
        };
        assert_eq!(file(|f| f.truncated = true), Severity::High);
        assert_eq!(file(|f| f.unreachable = true), Severity::High);
        assert_eq!(file(|f| f.by_name = true), Severity::High);
        assert_eq!(file(|f| (f.private, f.path) = (true, "/usr/bin/x".into())), Severity::Low);
    }

    #[test]
    fn a_copy_of_attested_content() {
        use Action::{Connect, Exec, Library};
        use Severity::{High, Info, Low};
        let table = [
            (MADE, DISK, "/opt/x", 0o755, None, Some(Info)),
            (MADE, TMPFS, "/dev/shm/x", 0o755, None, Some(Info)),
            (MADE, DISK, "/usr/bin/x", 0o755, None, Some(Info)),
            (MADE, DISK, "/opt/x", 0o4755, Some(High), Some(High)),
            (Exec, DISK, "/opt/x", 0o4755, Some(High), Some(High)),
            (Exec, DISK, "/opt/x", 0o755, Some(Low), Some(Low)),
            (Library, DISK, "/opt/x", 0o644, Some(Low), Some(Low)),
            // A name is no file system.
            (Exec, DISK, "/tmp/x", 0o755, Some(Low), Some(Low)),
            (Exec, DISK, "/dev/shm/x", 0o755, Some(Low), Some(Low)),
            (Exec, TMPFS, "/opt/x", 0o755, Some(High), Some(High)),
            (Exec, MEMFD, "/memfd:x", 0o777, Some(High), Some(High)),
            (Connect, DISK, "/opt/x", 0o755, Some(Low), Some(Low)),
            (Connect, TMPFS, "/opt/x", 0o755, Some(High), Some(High)),
        ];
        for (action, place, path, mode, host, container) in table {
            let observation = seen(action, place, path, mode);
            let contained = Observation { on_host: false, ..observation.clone() };
            let what = format!("{action:?} {place:?} {path} {mode:o}");
            assert_eq!((of_copy(&observation), of_copy(&contained)), (host, container), "{what}");
        }
    }
}
