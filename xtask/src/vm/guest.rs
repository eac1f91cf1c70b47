//! What every guest starts from: busybox, modules, and a first process that mounts and loads.

use anyhow::{Context as _, bail};

use super::initramfs::Initramfs;
use super::qemu::STARTED;
use crate::setup::kernels::Series;
use crate::shell;

/// Modules that a guest may need, dependencies first; those that a kernel has built in are left out.
const MODULES: [&str; 19] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "overlay",
    "loop",
    "veth",
    // For `smc`.
    "ib_core",
    "smc",
    // For NFS version 3. Which of the first two a kernel has, and whether `nfs` needs it, differs.
    "netfs",
    "fscache",
    "sunrpc",
    "grace",
    "lockd",
    "nfs_acl",
    "nfs",
    "nfsv3",
];

/// An initramfs for this kernel; its first process runs `script` when everything is in place.
pub(super) fn initramfs(series: &Series, script: &str) -> anyhow::Result<Initramfs> {
    let mut files = Initramfs::default();
    let busybox =
        shell::find("busybox").context("busybox is missing; `cargo xtask setup --for vm` installs it")?;
    files.program(&busybox, "/bin/busybox")?;
    files.symlink("/bin/sh", "busybox");
    for directory in ["/proc", "/sys", "/dev", "/tmp", "/run", "/root"] {
        files.directory(directory);
    }
    let mut order = String::new();
    for name in MODULES {
        let Some(file) = series.module(name)? else { continue };
        let at = format!("/modules/{name}.ko");
        if file.extension().is_some_and(|e| e == "xz") {
            let out = shell::command("xz", ["-dc"]).arg(&file).output().context("starting xz")?;
            if !out.status.success() {
                bail!("cannot unpack {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
            }
            files.file(&at, &out.stdout, 0o644);
        } else {
            files.copy(&file, &at)?;
        }
        // Debian's kernel of before 5.11, where every user may mount one, has to be told; later ones say that they do not know it.
        let parameters = if name == "overlay" { " permit_mounts_in_userns=1" } else { "" };
        order += &format!("{at}{parameters}\n");
    }
    files.file("/modules/order", order.as_bytes(), 0o644);
    files.file("/init", init(script).as_bytes(), 0o755);
    Ok(files)
}

/// Mounts, modules, network, the results' port; then `script`; then power off.
fn init(script: &str) -> String {
    format!(
        r"#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
while read -r module; do insmod $module; done </modules/order
ip link set lo up
stty -F /dev/ttyS1 raw -echo
echo {STARTED} >/dev/ttyS1
{script}
poweroff -f
"
    )
}

/// A word for a shell script.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
