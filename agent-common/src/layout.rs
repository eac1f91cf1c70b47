//! The one table of kernel structure members that the kernel programs read.
//!
//! Rust programs have no CO-RE relocations. For each line the kernel side has a `.rodata` global of the given name
//! (`agent-ebpf/src/layout.rs` makes them from this table); the agent resolves `struct.member` from the running
//! kernel's BTF, anonymous members included, and patches the global before it loads the programs.

/// What is asked of the kernel's BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Byte offset of `member` (dots descend into named members) in `struct`.
    Offset,
    /// Byte size of `struct`.
    Size,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name of the `u32` global.
    pub symbol: &'static str,
    /// Kernel structure.
    pub structure: &'static str,
    /// Member; empty for [`Ask::Size`].
    pub member: &'static str,
    /// Offset or size.
    pub ask: Ask,
    /// A kernel may lack it; the global is then [`ABSENT`] and the programs do without.
    pub optional: bool,
}

/// Value of a global whose member this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Calls `$with!` with the table, so that each side makes of it what it needs.
///
/// Lines are `SYMBOL, "struct", "member", Offset | Size, optional;`.
#[macro_export]
macro_rules! with_kernel_fields {
    ($with:ident) => {
        $with! {
            OFF_BPRM_FILE, "linux_binprm", "file", Offset, false;
            OFF_BPRM_FILENAME, "linux_binprm", "filename", Offset, false;
            OFF_BPRM_INTERP, "linux_binprm", "interp", Offset, false;
            OFF_FILE_PATH, "file", "f_path", Offset, false;
            OFF_FILE_INODE, "file", "f_inode", Offset, false;
            OFF_FILE_MODE, "file", "f_mode", Offset, false;
            OFF_FILE_FLAGS, "file", "f_flags", Offset, false;
            OFF_FILE_MAPPING, "file", "f_mapping", Offset, false;
            OFF_FILE_COUNT, "file", "f_count", Offset, true;
            OFF_FILE_REF, "file", "f_ref", Offset, true;
            OFF_BACKING_USER_PATH, "backing_file", "user_path", Offset, true;
            OFF_PATH_MNT, "path", "mnt", Offset, false;
            OFF_PATH_DENTRY, "path", "dentry", Offset, false;
            OFF_DENTRY_PARENT, "dentry", "d_parent", Offset, false;
            OFF_DENTRY_NAME, "dentry", "d_name.name", Offset, false;
            OFF_DENTRY_INODE, "dentry", "d_inode", Offset, false;
            OFF_DENTRY_HASH_PPREV, "dentry", "d_hash.pprev", Offset, false;
            OFF_MOUNT_MNT, "mount", "mnt", Offset, false;
            OFF_MOUNT_PARENT, "mount", "mnt_parent", Offset, false;
            OFF_MOUNT_MOUNTPOINT, "mount", "mnt_mountpoint", Offset, false;
            OFF_MOUNT_NS, "mount", "mnt_ns", Offset, false;
            OFF_VFSMOUNT_ROOT, "vfsmount", "mnt_root", Offset, false;
            OFF_INODE_INO, "inode", "i_ino", Offset, false;
            OFF_INODE_SIZE, "inode", "i_size", Offset, false;
            OFF_INODE_MODE, "inode", "i_mode", Offset, false;
            OFF_INODE_NLINK, "inode", "i_nlink", Offset, false;
            OFF_INODE_UID, "inode", "i_uid", Offset, false;
            OFF_INODE_SB, "inode", "i_sb", Offset, false;
            OFF_INODE_GENERATION, "inode", "i_generation", Offset, false;
            OFF_INODE_VERSION, "inode", "i_version", Offset, false;
            OFF_INODE_WRITECOUNT, "inode", "i_writecount", Offset, false;
            OFF_INODE_CTIME, "inode", "i_ctime", Offset, true;
            OFF_INODE_CTIME_SPLIT, "inode", "__i_ctime", Offset, true;
            OFF_INODE_CTIME_SEC, "inode", "i_ctime_sec", Offset, true;
            OFF_INODE_CTIME_NSEC, "inode", "i_ctime_nsec", Offset, true;
            OFF_INODE_RDEV, "inode", "i_rdev", Offset, false;
            OFF_INODE_MAPPING, "inode", "i_mapping", Offset, false;
            SIZE_INODE, "inode", "", Size, false;
            OFF_MAPPING_WRITABLE, "address_space", "i_mmap_writable", Offset, false;
            OFF_MAPPING_HOST, "address_space", "host", Offset, false;
            OFF_BDEV_INODE, "bdev_inode", "vfs_inode", Offset, true;
            OFF_BDEV_HOLDER, "block_device", "bd_holder", Offset, true;
            OFF_RENAME_OLD, "renamedata", "old_dentry", Offset, true;
            OFF_RENAME_NEW, "renamedata", "new_dentry", Offset, true;
            OFF_RENAME_FLAGS, "renamedata", "flags", Offset, true;
            OFF_SB_DEV, "super_block", "s_dev", Offset, false;
            OFF_SB_MAGIC, "super_block", "s_magic", Offset, false;
            OFF_SB_FLAGS, "super_block", "s_flags", Offset, false;
            OFF_SB_IFLAGS, "super_block", "s_iflags", Offset, false;
            OFF_TASK_PID, "task_struct", "pid", Offset, false;
            OFF_TASK_TGID, "task_struct", "tgid", Offset, false;
            OFF_TASK_REAL_PARENT, "task_struct", "real_parent", Offset, false;
            OFF_TASK_GROUP_LEADER, "task_struct", "group_leader", Offset, false;
            OFF_TASK_START_BOOTTIME, "task_struct", "start_boottime", Offset, false;
            OFF_TASK_CRED, "task_struct", "cred", Offset, false;
            OFF_TASK_COMM, "task_struct", "comm", Offset, false;
            OFF_TASK_NSPROXY, "task_struct", "nsproxy", Offset, false;
            OFF_TASK_FS, "task_struct", "fs", Offset, false;
            OFF_TASK_FILES, "task_struct", "files", Offset, false;
            OFF_TASK_SIGNAL, "task_struct", "signal", Offset, false;
            OFF_TASK_EXIT_CODE, "task_struct", "exit_code", Offset, false;
            OFF_TASK_MM, "task_struct", "mm", Offset, false;
            OFF_TASK_THREAD_PID, "task_struct", "thread_pid", Offset, false;
            OFF_TASK_CGROUPS, "task_struct", "cgroups", Offset, false;
            OFF_TASK_EXEC_ID, "task_struct", "self_exec_id", Offset, false;
            OFF_SIGNAL_LIVE, "signal_struct", "live", Offset, false;
            OFF_CRED_UID, "cred", "uid", Offset, false;
            OFF_CRED_GID, "cred", "gid", Offset, false;
            OFF_CRED_EUID, "cred", "euid", Offset, false;
            OFF_NSPROXY_MNT, "nsproxy", "mnt_ns", Offset, false;
            OFF_MNTNS_INUM, "mnt_namespace", "ns.inum", Offset, false;
            OFF_PIDNS_INUM, "pid_namespace", "ns.inum", Offset, false;
            OFF_CSS_SET_DFL, "css_set", "dfl_cgrp", Offset, false;
            OFF_CGROUP_KN, "cgroup", "kn", Offset, false;
            OFF_KERNFS_ID, "kernfs_node", "id", Offset, false;
            OFF_PID_LEVEL, "pid", "level", Offset, false;
            OFF_PID_NUMBERS, "pid", "numbers", Offset, false;
            OFF_UPID_NS, "upid", "ns", Offset, false;
            SIZE_UPID, "upid", "", Size, false;
            OFF_FS_ROOT, "fs_struct", "root", Offset, false;
            OFF_FS_PWD, "fs_struct", "pwd", Offset, false;
            OFF_FILES_COUNT, "files_struct", "count", Offset, false;
            OFF_FILES_FDT, "files_struct", "fdt", Offset, false;
            OFF_FDTABLE_FD, "fdtable", "fd", Offset, false;
            OFF_FDTABLE_MAX, "fdtable", "max_fds", Offset, false;
            OFF_VMA_FILE, "vm_area_struct", "vm_file", Offset, false;
            OFF_VMA_START, "vm_area_struct", "vm_start", Offset, false;
            OFF_VMA_FLAGS, "vm_area_struct", "vm_flags", Offset, false;
            OFF_VMA_ANON, "vm_area_struct", "anon_vma", Offset, false;
            OFF_SOCKET_SK, "socket", "sk", Offset, false;
            OFF_SOCKET_STATE, "socket", "state", Offset, false;
            OFF_FILE_PRIVATE, "file", "private_data", Offset, false;
            OFF_MSG_NAME, "msghdr", "msg_name", Offset, false;
            OFF_MSG_NAMELEN, "msghdr", "msg_namelen", Offset, false;
            OFF_MSG_FLAGS, "msghdr", "msg_flags", Offset, false;
            OFF_SK_FAMILY, "sock", "__sk_common.skc_family", Offset, false;
            OFF_SK_STATE, "sock", "__sk_common.skc_state", Offset, false;
            OFF_SK_DPORT, "sock", "__sk_common.skc_dport", Offset, false;
            OFF_SK_NUM, "sock", "__sk_common.skc_num", Offset, false;
            OFF_SK_DADDR, "sock", "__sk_common.skc_daddr", Offset, false;
            OFF_SK_V6_DADDR, "sock", "__sk_common.skc_v6_daddr", Offset, false;
            OFF_SK_PROTOCOL, "sock", "sk_protocol", Offset, false;
            OFF_SK_TYPE, "sock", "sk_type", Offset, false;
        }
    };
}

macro_rules! table {
    ($($symbol:ident, $structure:literal, $member:literal, $ask:ident, $optional:literal;)*) => {
        /// Every member that the kernel programs read.
        pub const FIELDS: &[Field] = &[$(Field {
            symbol: stringify!($symbol), structure: $structure, member: $member, ask: Ask::$ask, optional: $optional,
        }),*];
    };
}
with_kernel_fields!(table);
