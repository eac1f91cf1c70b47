//! The byte order mark.

/// U+FEFF as UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The bytes of a text without the mark that editors and .NET put in front. RFC 8259 (section 8.1) allows to ignore it.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}
