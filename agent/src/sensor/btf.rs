//! Reads the kernel's type information (BTF), just enough to find members of structures.
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>. The reader borrows the bytes and keeps one `u32` per type. Measured
//! on a 5.5 MB BTF, optimized: this reader 1.5 ms for the whole table and 0.5 MB; `btfparse` 1.3.9 106 ms and 50 MB, `btf`
//! 0.5.1 198 ms and 70 MB, against a budget of 60 MB for the whole agent. Both look types up by name alone, so that a
//! function or typedef hides the structure of the same name.

/// Where the kernel offers its own BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
const TYPE_LEN: usize = 12;
const MEMBER_LEN: usize = 12;
/// Modifiers and nested aggregates that are followed before a type is taken for malformed (or circular).
const DEPTH_MAX: u32 = 32;

/// Kinds of types, as the kernel numbers them (`include/uapi/linux/btf.h`).
pub mod kind {
    /// Pointer.
    pub const PTR: u32 = 2;
    /// Structure.
    pub const STRUCT: u32 = 4;
    /// Union.
    pub const UNION: u32 = 5;
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Bytes that are not the BTF of a kernel.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// Ends early.
    #[error("BTF: expected {wanted} bytes at offset {at}, found the end of the {section}")]
    Short {
        /// Which part.
        section: &'static str,
        /// Offset in that part.
        at: usize,
        /// Bytes that should have been there.
        wanted: usize,
    },
    /// Not BTF of this machine.
    #[error("BTF: expected the magic number 0xeb9f in this machine's byte order, found {0:#06x}")]
    Magic(u16),
    /// A newer format.
    #[error("BTF: expected version 1, found {0}")]
    Version(u8),
    /// A kind of type that is newer than this reader.
    #[error(
        "BTF: type {id} has the unknown kind {kind} (the newest known is 19); this kernel needs a newer Muster"
    )]
    Kind {
        /// Number of the type.
        id: u32,
        /// Its kind.
        kind: u32,
    },
    /// Points to a type that is not there.
    #[error("BTF: a type refers to type {0}, which is not there")]
    Reference(u32),
    /// Circular or absurdly nested.
    #[error("BTF: type {0} is nested more than 32 deep")]
    Deep(u32),
    /// The member is there and cannot be read by a byte offset.
    #[error("BTF: member {0:?} is a bit field; expected one that starts at a whole byte")]
    BitField(String),
}

/// The BTF of a kernel.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offset in `types` of type `index + 1` (type 0 is `void` and has no bytes).
    starts: Vec<u32>,
    /// Of a module: the kernel's strings, which come before its own.
    base_strings: &'a [u8],
    /// Of a module: how many types of the kernel come before its own.
    base_types: u32,
}

/// One type's header.
#[derive(Clone, Copy, Debug)]
pub struct Type {
    /// Its number.
    pub id: u32,
    /// One of [`kind`].
    pub kind: u32,
    /// Members, parameters or values that follow.
    pub count: u32,
    /// Meaning depends on the kind; for structures: some members are bit fields.
    pub flag: bool,
    /// Bytes of the type, or the number of the type that it refers to.
    pub size_or_type: u32,
    name: u32,
    at: usize,
}

/// A member of a structure or union.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Name; empty for an anonymous structure or union.
    pub name: &'a [u8],
    /// Its type.
    pub type_id: u32,
    /// Offset in bits.
    pub bit_offset: u32,
    /// Bits of a bit field, else 0.
    pub bits: u32,
}

fn u32_at(bytes: &[u8], at: usize, section: &'static str) -> Result<u32, BtfError> {
    let short = BtfError::Short { section, at, wanted: 4 };
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(short)?;
    Ok(u32::from_ne_bytes(*bytes))
}

fn section<'a>(bytes: &'a [u8], offset: u32, len: u32, name: &'static str) -> Result<&'a [u8], BtfError> {
    let (at, wanted) = (offset as usize, len as usize);
    bytes.get(at..).and_then(|rest| rest.get(..wanted)).ok_or(BtfError::Short { section: name, at, wanted })
}

impl<'a> Btf<'a> {
    /// Reads the headers of all types.
    ///
    /// # Errors
    /// [`BtfError`] when the bytes are not BTF of this machine's byte order, or end early.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        Self::read(bytes, &[], 0)
    }

    /// The BTF of a module, whose types and strings go on from those of the kernel, `base`. What a member's type is can be told only
    /// where that is the module's own.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_module(bytes: &'a [u8], base: &Btf<'a>) -> Result<Self, BtfError> {
        let types = u32::try_from(base.starts.len()).map_err(|_| BtfError::Reference(u32::MAX))?;
        Self::read(bytes, base.strings, types)
    }

    fn read(bytes: &'a [u8], base_strings: &'a [u8], base_types: u32) -> Result<Self, BtfError> {
        let head = bytes.first_chunk::<HEADER_LEN>();
        let head = head.ok_or(BtfError::Short { section: "header", at: 0, wanted: HEADER_LEN })?;
        let magic = u16::from_ne_bytes([head[0], head[1]]);
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        if head[2] != 1 {
            return Err(BtfError::Version(head[2]));
        }
        let field = |index: usize| u32_at(head, 4 + 4 * index, "header");
        let body = bytes.get(field(0)? as usize..).ok_or(BtfError::Short {
            section: "header",
            at: HEADER_LEN,
            wanted: field(0)? as usize,
        })?;
        let types = section(body, field(1)?, field(2)?, "type section")?;
        let strings = section(body, field(3)?, field(4)?, "string section")?;
        let starts = Vec::with_capacity(types.len() / 24);
        let mut btf = Self { types, strings, starts, base_strings, base_types };
        let mut at = 0;
        while at < types.len() {
            let next = u32::try_from(btf.starts.len() + 1).ok().and_then(|n| n.checked_add(base_types));
            let id = next.ok_or(BtfError::Reference(u32::MAX))?;
            let ty = btf.header(id, at)?;
            btf.starts.push(u32::try_from(at).map_err(|_| BtfError::Reference(id))?);
            at += TYPE_LEN + ty.tail()?;
        }
        if at > types.len() {
            return Err(BtfError::Short {
                section: "type section",
                at: types.len(),
                wanted: at - types.len(),
            });
        }
        Ok(btf)
    }

    fn header(&self, id: u32, at: usize) -> Result<Type, BtfError> {
        let word = |index: usize| u32_at(self.types, at + 4 * index, "type section");
        let info = word(1)?;
        Ok(Type {
            id,
            kind: info >> 24 & 0x1f,
            count: info & 0xffff,
            flag: info >> 31 == 1,
            size_or_type: word(2)?,
            name: word(0)?,
            at,
        })
    }

    /// The type with this number (from 1).
    ///
    /// # Errors
    /// [`BtfError::Reference`] when there is none.
    pub fn get(&self, id: u32) -> Result<Type, BtfError> {
        let before = self.base_types as usize + 1;
        let index = (id as usize).checked_sub(before).ok_or(BtfError::Reference(id))?;
        self.header(id, *self.starts.get(index).ok_or(BtfError::Reference(id))? as usize)
    }

    /// How many types there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// There is no type.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// All types, in order.
    pub fn types(&self) -> impl Iterator<Item = Type> {
        (self.base_types + 1..).zip(&self.starts).filter_map(|(id, at)| self.header(id, *at as usize).ok())
    }

    /// Name of a type; empty for an anonymous one.
    pub fn name(&self, ty: &Type) -> &'a [u8] {
        self.string(ty.name)
    }

    fn string(&self, offset: u32) -> &'a [u8] {
        let offset = offset as usize;
        let rest = match offset.checked_sub(self.base_strings.len()) {
            Some(own) => self.strings.get(own..),
            None => self.base_strings.get(offset..),
        };
        let rest = rest.unwrap_or_default();
        memchr::memchr(0, rest).map_or(rest, |end| &rest[..end])
    }

    /// The first structure of this name that has members.
    pub fn structure(&self, name: &str) -> Option<Type> {
        self.types().find(|ty| ty.kind == kind::STRUCT && ty.count > 0 && self.name(ty) == name.as_bytes())
    }

    /// There is a function of this name with type information (what BTF-based hooks attach to).
    pub fn has_function(&self, name: &str) -> bool {
        self.types().any(|ty| ty.kind == kind::FUNC && self.name(&ty) == name.as_bytes())
    }

    /// There is a typedef of this name (tracepoints have one each: `btf_trace_<name>`).
    pub fn has_typedef(&self, name: &str) -> bool {
        self.types().any(|ty| ty.kind == kind::TYPEDEF && self.name(&ty) == name.as_bytes())
    }

    /// Members of a structure or union; nothing for other kinds.
    pub fn members(&self, ty: &Type) -> impl Iterator<Item = Member<'a>> {
        let (flag, at) = (ty.flag, ty.at + TYPE_LEN);
        let count = if ty.is_aggregate() { ty.count as usize } else { 0 };
        (0..count).map_while(move |index| {
            let word = |offset| u32_at(self.types, at + index * MEMBER_LEN + offset, "type section").ok();
            let (name, type_id, place) = (word(0)?, word(4)?, word(8)?);
            let (bit_offset, bits) = if flag { (place & 0xff_ffff, place >> 24) } else { (place, 0) };
            Some(Member { name: self.string(name), type_id, bit_offset, bits })
        })
    }

    /// Follows typedefs, qualifiers and type tags. `None`: `void`.
    ///
    /// # Errors
    /// [`BtfError`] for a reference to nowhere or a circle.
    pub fn peel(&self, id: u32) -> Result<Option<Type>, BtfError> {
        let mut at = id;
        for _ in 0..DEPTH_MAX {
            if at == 0 {
                return Ok(None);
            }
            let ty = self.get(at)?;
            match ty.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    at = ty.size_or_type;
                }
                _ => return Ok(Some(ty)),
            }
        }
        Err(BtfError::Deep(id))
    }

    /// Byte offset of a member in a structure. Dots in `path` descend into named members; anonymous structures and
    /// unions are searched at every level. `None`: no such member.
    ///
    /// # Errors
    /// [`BtfError`] for malformed types or a bit field.
    pub fn offset_of(&self, structure: &Type, path: &str) -> Result<Option<u32>, BtfError> {
        let Some(bits) = self.descend(structure, path, 0)? else { return Ok(None) };
        if bits % 8 == 0 { Ok(Some(bits / 8)) } else { Err(BtfError::BitField(path.into())) }
    }

    fn descend(&self, ty: &Type, path: &str, depth: u32) -> Result<Option<u32>, BtfError> {
        if depth > DEPTH_MAX {
            return Err(BtfError::Deep(ty.id));
        }
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        for member in self.members(ty) {
            let found = if member.name == name.as_bytes() {
                match rest {
                    None if member.bits != 0 => return Err(BtfError::BitField(path.into())),
                    None => Some(0),
                    Some(rest) => match self.peel(member.type_id)? {
                        Some(inner) => self.descend(&inner, rest, depth + 1)?,
                        None => None,
                    },
                }
            } else if member.name.is_empty() {
                match self.peel(member.type_id)? {
                    Some(inner) if inner.is_aggregate() => self.descend(&inner, path, depth + 1)?,
                    _ => None,
                }
            } else {
                None
            };
            if let Some(inner) = found {
                return Ok(Some(member.bit_offset.checked_add(inner).ok_or(BtfError::Deep(ty.id))?));
            }
        }
        Ok(None)
    }
}

impl Type {
    /// Structure or union.
    pub fn is_aggregate(&self) -> bool {
        matches!(self.kind, kind::STRUCT | kind::UNION)
    }

    /// Bytes after the header.
    fn tail(&self) -> Result<usize, BtfError> {
        let count = self.count as usize;
        Ok(match self.kind {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION => count * MEMBER_LEN,
            kind::ENUM | kind::FUNC_PROTO => count * 8,
            kind::DATASEC | kind::ENUM64 => count * 12,
            kind::PTR
            | kind::FWD
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::FLOAT
            | kind::TYPE_TAG => 0,
            unknown => return Err(BtfError::Kind { id: self.id, kind: unknown }),
        })
    }
}
