//! The table against the (trimmed) BTF of real kernels: Debian's cloud kernels 5.10, 6.1, 6.12 and 7.2, and a 6.18 of
//! our own. `examples/trim-btf.rs` makes the fixtures.

use super::*;

const KERNELS: [(&str, &[u8]); 5] = [
    ("5.10", include_bytes!("../../tests/btf/5.10.btf")),
    ("6.1", include_bytes!("../../tests/btf/6.1.btf")),
    ("6.12", include_bytes!("../../tests/btf/6.12.btf")),
    ("6.18", include_bytes!("../../tests/btf/6.18.btf")),
    ("7.2", include_bytes!("../../tests/btf/7.2.btf")),
];

#[test]
fn offsets_of_five_kernels() {
    // The rows that moved, and one of each way to get there: plain, descending, in an anonymous structure or union
    // (`file.f_path` from 6.16, `dentry.d_name` in 7.2), a size, an optional member.
    #[rustfmt::skip]
    let expected: &[(&str, [Option<u32>; 5])] = &[
        //                             5.10        6.1         6.12        6.18        7.2
        ("OFF_FILE_PATH",            [Some(16),   Some(16),   Some(64),   Some(64),   Some(64)]),
        ("OFF_FILE_INODE",           [Some(32),   Some(32),   Some(40),   Some(32),   Some(32)]),
        ("OFF_FILE_MODE",            [Some(68),   Some(68),   Some(12),   Some(4),    Some(4)]),
        ("OFF_BPRM_FILE",            [Some(64),   Some(64),   Some(64),   Some(64),   Some(80)]),
        ("OFF_DENTRY_NAME",          [Some(40),   Some(40),   Some(40),   Some(40),   Some(40)]),
        ("OFF_DENTRY_HASH_PPREV",    [Some(16),   Some(16),   Some(16),   Some(16),   Some(16)]),
        ("OFF_MOUNT_NS",             [Some(224),  Some(232),  Some(240),  Some(232),  Some(232)]),
        ("OFF_INODE_CTIME",          [Some(120),  Some(120),  None,       None,       None]),
        ("OFF_INODE_CTIME_SEC",      [None,       None,       Some(104),  Some(104),  Some(104)]),
        ("OFF_INODE_CTIME_NSEC",     [None,       None,       Some(120),  Some(120),  Some(120)]),
        ("OFF_BACKING_USER_PATH",    [None,       None,       Some(184),  Some(184),  Some(176)]),
        ("SIZE_INODE",               [Some(600),  Some(632),  Some(624),  Some(616),  Some(560)]),
        ("OFF_TASK_TGID",            [Some(2236), Some(2420), Some(2436), Some(1268), Some(2812)]),
        ("OFF_TASK_START_BOOTTIME",  [Some(2544), Some(2784), Some(2784), Some(1560), Some(3160)]),
        ("OFF_PIDNS_INUM",           [Some(136),  Some(128),  Some(128),  Some(136),  Some(344)]),
        ("OFF_VMA_FILE",             [Some(160),  Some(112),  Some(128),  Some(88),   Some(88)]),
        ("OFF_SK_DPORT",             [Some(12),   Some(12),   Some(12),   Some(12),   Some(12)]),
        ("OFF_SK_PROTOCOL",          [Some(540),  Some(516),  Some(574),  Some(532),  Some(540)]),
    ];
    for (column, (kernel, bytes)) in KERNELS.iter().enumerate() {
        let offsets = Offsets::resolve(&Btf::parse(bytes).unwrap()).unwrap();
        assert_eq!(offsets.iter().count(), FIELDS.len());
        for (symbol, values) in expected {
            assert_eq!(offsets.get(symbol), values[column], "{symbol} on {kernel}");
        }
    }
}

#[test]
fn running_kernel_has_all_members() {
    let path = crate::sensor::btf::KERNEL_BTF;
    let bytes = std::fs::read(path).expect("the test needs a kernel with CONFIG_DEBUG_INFO_BTF=y; boot one");
    let btf = Btf::parse(&bytes).unwrap();
    let offsets = Offsets::resolve(&btf).unwrap();
    assert!(offsets.get("OFF_TASK_TGID").is_some());
    assert!(btf.has_function("vfs_read") && !btf.has_function("no_such_function"));
}

#[test]
fn cut_short_is_an_error_and_never_a_panic() {
    let bytes = KERNELS[0].1;
    for len in 0..bytes.len() {
        if let Ok(btf) = Btf::parse(&bytes[..len]) {
            panic!("{len} of {} bytes were taken for {} types", bytes.len(), btf.len());
        }
    }
    assert_eq!(Btf::parse(b"\x7fELF").err(), Some(BtfError::Short { section: "header", at: 0, wanted: 24 }));
    let mut other = bytes.to_vec();
    other[..2].reverse();
    assert_eq!(Btf::parse(&other).err(), Some(BtfError::Magic(0x9feb)));
    other[..2].reverse();
    other[2] = 9;
    assert_eq!(Btf::parse(&other).err(), Some(BtfError::Version(9)));
}

/// BTF of these types (words) and names.
fn btf(types: &[u32], strings: &[u8]) -> Vec<u8> {
    let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let (t, s) = (u32::try_from(types.len()).unwrap(), u32::try_from(strings.len()).unwrap());
    let mut out = Vec::from(0xeb9f_u16.to_ne_bytes());
    out.extend([1, 0]);
    [24, 0, t, t, s].iter().for_each(|word: &u32| out.extend(word.to_ne_bytes()));
    out.extend(types);
    out.extend(strings);
    out
}

#[test]
fn malformed_types() {
    const STRUCT: u32 = 4 << 24;
    const TYPEDEF: u32 = 8 << 24;
    let names = b"\0s\0m\0bits\0";
    let offset = |types: &[u32], path: &str| {
        let bytes = btf(types, names);
        let btf = Btf::parse(&bytes)?;
        btf.offset_of(&btf.structure("s").unwrap(), path)
    };
    // A typedef of itself.
    let circle = [1, STRUCT | 1, 8, 3, 2, 0, 3, TYPEDEF, 2];
    assert_eq!(offset(&circle, "m"), Ok(Some(0)));
    assert_eq!(offset(&circle, "m.m"), Err(BtfError::Deep(2)));
    assert_eq!(offset(&circle, "n"), Ok(None));
    // A structure that holds itself anonymously.
    assert_eq!(offset(&[1, STRUCT | 1, 8, 0, 1, 0], "m"), Err(BtfError::Deep(1)));
    // A member of a type that is not there.
    assert_eq!(offset(&[1, STRUCT | 1, 8, 3, 77, 0], "m.m"), Err(BtfError::Reference(77)));
    // Bit fields: by the flag's encoding, and by an offset inside a byte.
    assert_eq!(
        offset(&[1, 1 << 31 | STRUCT | 1, 8, 5, 0, 3 << 24 | 8], "bits"),
        Err(BtfError::BitField("bits".into()))
    );
    assert_eq!(offset(&[1, STRUCT | 1, 8, 5, 0, 3], "bits"), Err(BtfError::BitField("bits".into())));
    // A kind from the future cannot be skipped: its length is unknown.
    assert_eq!(offset(&[1, 25 << 24, 0], "m"), Err(BtfError::Kind { id: 1, kind: 25 }));
    // Without one of the structures, all of its members are named.
    let bytes = btf(&[1, STRUCT | 1, 8, 3, 0, 0], names);
    let missing = Offsets::resolve(&Btf::parse(&bytes).unwrap()).unwrap_err();
    assert!(
        missing.to_string().contains("struct linux_binprm file, struct linux_binprm filename"),
        "{missing}"
    );
    assert!(!missing.to_string().contains("i_ctime"), "optional members are not missed: {missing}");
}
