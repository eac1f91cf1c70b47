//! A package header as rpm stores it (rpm's docs/manual/format_header.md): two big-endian numbers (entries, bytes of
//! data), the entries of 16 bytes (tag, type, offset, count), the data.

/// Most entries; rpm itself takes 65,535 (`HEADER_TAGS_MAX`).
const MAX_ENTRIES: usize = 0xffff;
/// Most elements of one array.
const MAX_COUNT: usize = 4 << 20;

/// Tags that are used (`rpmtag.h`).
pub(super) mod tag {
    pub(in super::super) const NAME: u32 = 1000;
    pub(in super::super) const VERSION: u32 = 1001;
    pub(in super::super) const RELEASE: u32 = 1002;
    pub(in super::super) const EPOCH: u32 = 1003;
    pub(in super::super) const ARCH: u32 = 1022;
    pub(in super::super) const FILESTATES: u32 = 1029;
    pub(in super::super) const FILEDIGESTS: u32 = 1035;
    pub(in super::super) const FILEFLAGS: u32 = 1037;
    pub(in super::super) const DIRINDEXES: u32 = 1116;
    pub(in super::super) const BASENAMES: u32 = 1117;
    pub(in super::super) const DIRNAMES: u32 = 1118;
    pub(in super::super) const FILEDIGESTALGO: u32 = 5011;
}

/// Types of entries that are used (`rpmTagType`).
const CHAR: u32 = 1;
const INT8: u32 = 2;
const INT16: u32 = 3;
const INT32: u32 = 4;
const STRING: u32 = 6;
const STRING_ARRAY: u32 = 8;
const I18N_STRING: u32 = 9;

/// A header, borrowed.
pub(super) struct Header<'a> {
    index: &'a [u8],
    store: &'a [u8],
}

struct Entry<'a> {
    kind: u32,
    count: usize,
    data: &'a [u8],
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

impl<'a> Header<'a> {
    pub(super) fn parse(blob: &'a [u8]) -> Result<Self, String> {
        let number = |at| be32(blob, at).and_then(|n| usize::try_from(n).ok());
        let (Some(entries), Some(bytes)) = (number(0), number(4)) else {
            return Err(format!("a header of {} bytes", blob.len()));
        };
        if entries > MAX_ENTRIES {
            return Err(format!("expected at most {MAX_ENTRIES} entries, found {entries}"));
        }
        let (index, store) = blob[8..]
            .split_at_checked(entries * 16)
            .filter(|(_, store)| store.len() >= bytes)
            .ok_or_else(|| format!("{entries} entries and {bytes} bytes of data in {} bytes", blob.len()))?;
        Ok(Self { index, store: &store[..bytes] })
    }

    fn find(&self, tag: u32) -> Result<Option<Entry<'a>>, String> {
        let mut found = None;
        for entry in self.index.chunks_exact(16).filter(|entry| be32(entry, 0) == Some(tag)) {
            if found.replace(entry).is_some() {
                return Err(format!("tag {tag} twice"));
            }
        }
        let Some(entry) = found else { return Ok(None) };
        let number = |at| be32(entry, at).and_then(|n| usize::try_from(n).ok());
        let (Some(kind), Some(offset), Some(count)) = (be32(entry, 4), number(8), number(12)) else {
            return Err(format!("tag {tag}: an entry that is cut"));
        };
        let data = self.store.get(offset..).filter(|_| count <= MAX_COUNT);
        let data = data.ok_or_else(|| format!("tag {tag}: {count} elements from byte {offset}"))?;
        Ok(Some(Entry { kind, count, data }))
    }

    /// A text; of a translated one the first.
    pub(super) fn text(&self, tag: u32) -> Result<Option<&'a str>, String> {
        let Some(entry) = self.find(tag)? else { return Ok(None) };
        if !matches!(entry.kind, STRING | I18N_STRING) {
            return Err(format!("tag {tag}: expected a text, found type {}", entry.kind));
        }
        let end = memchr::memchr(0, entry.data).ok_or_else(|| format!("tag {tag}: a text without end"))?;
        std::str::from_utf8(&entry.data[..end]).map(Some).map_err(|_| format!("tag {tag}: expected UTF-8"))
    }

    /// An array of texts; empty when the tag is not there.
    pub(super) fn texts(&self, tag: u32) -> Result<Vec<&'a [u8]>, String> {
        let Some(entry) = self.find(tag)? else { return Ok(Vec::new()) };
        if entry.kind != STRING_ARRAY {
            return Err(format!("tag {tag}: expected texts, found type {}", entry.kind));
        }
        // Each takes at least its end.
        if entry.count > entry.data.len() {
            return Err(format!("tag {tag}: {} texts in {} bytes", entry.count, entry.data.len()));
        }
        let mut rest = entry.data;
        let mut out = Vec::with_capacity(entry.count);
        for _ in 0..entry.count {
            let end = memchr::memchr(0, rest).ok_or_else(|| format!("tag {tag}: a text without end"))?;
            out.push(&rest[..end]);
            rest = &rest[end + 1..];
        }
        Ok(out)
    }

    /// An array of numbers of up to 32 bits; empty when the tag is not there.
    pub(super) fn numbers(&self, tag: u32) -> Result<Vec<u32>, String> {
        let Some(entry) = self.find(tag)? else { return Ok(Vec::new()) };
        let width = match entry.kind {
            CHAR | INT8 => 1,
            INT16 => 2,
            INT32 => 4,
            other => return Err(format!("tag {tag}: expected numbers, found type {other}")),
        };
        let bytes = entry.data.get(..entry.count * width);
        let bytes = bytes
            .ok_or_else(|| format!("tag {tag}: {} numbers in {} bytes", entry.count, entry.data.len()))?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n: u32, byte| n << 8 | u32::from(*byte));
        Ok(bytes.chunks_exact(width).map(number).collect())
    }
}
