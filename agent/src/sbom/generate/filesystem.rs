//! Kinds of file systems.

use nix::sys::statfs::{self, FsType};

/// File systems whose content is on a disk of this machine; the root's own kind counts too, whatever it is.
const DISKS: [FsType; 9] = [
    statfs::EXT4_SUPER_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::BTRFS_SUPER_MAGIC,
    statfs::F2FS_SUPER_MAGIC,
    statfs::MSDOS_SUPER_MAGIC,
    statfs::ISOFS_SUPER_MAGIC,
    // Not in nix: squashfs, EROFS and ZFS (`include/uapi/linux/magic.h`; ZFS: `include/sys/fs/zfs.h` of OpenZFS).
    FsType(0x7371_7368),
    FsType(0xe0f5_e1e2),
    FsType(0x2fc1_2fc1),
];

/// Others that are met on hosts, by their names in the mount table (`include/uapi/linux/magic.h`; those of CIFS in
/// `fs/smb/client/cifsglob.h`).
const OTHERS: [(u32, &str); 22] = [
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlay"),
    (0x8584_58f6, "ramfs"),
    (0x9584_58f6, "hugetlbfs"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb3"),
    (0x6573_5546, "fuse"),
    (0x6573_5543, "fusectl"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "afs"),
    (0x0187, "autofs"),
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x6367_7270, "cgroup2"),
    (0x0027_e0eb, "cgroup"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0xcafe_4a11, "bpf"),
    (0x4249_4e4d, "binfmt_misc"),
];

/// Its content is on a disk of this machine.
pub(super) fn is_disk(kind: FsType) -> bool {
    DISKS.contains(&kind)
}

/// A kind for people.
pub(super) fn name(kind: FsType) -> String {
    // The kernel's numbers have 32 bits, of which statfs(2) may extend the sign.
    let is = |magic: u32| i128::from(kind.0) & 0xffff_ffff == i128::from(magic);
    match OTHERS.iter().find(|(magic, _)| is(*magic)) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("a file system of kind {:#x}", kind.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(name(statfs::TMPFS_MAGIC), "tmpfs");
        assert_eq!(name(statfs::OVERLAYFS_SUPER_MAGIC), "overlay");
        assert_eq!(name(FsType(0x1234_5678)), "a file system of kind 0x12345678");
        assert!(is_disk(statfs::EXT4_SUPER_MAGIC) && !is_disk(statfs::TMPFS_MAGIC));
    }
}
