//! Digests as documents write them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Digests;
use crate::finding::Sha256;

/// Digest algorithms that are used; every other is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-1.
    Sha1,
    /// MD5.
    Md5,
    /// Not used.
    Other,
}

impl Algorithm {
    /// By any spelling: `SHA256`, `sha-256`, …
    pub fn named(name: &str) -> Self {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        match name.len() {
            6 | 7 if is("sha256") || is("sha-256") => Self::Sha256,
            4 | 5 if is("sha1") || is("sha-1") => Self::Sha1,
            3 if is("md5") => Self::Md5,
            _ => Self::Other,
        }
    }
}

/// Reads exactly `N` bytes of hexadecimal digits.
pub fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    let mut bad = 0;
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (DIGIT[usize::from(pair[0])], DIGIT[usize::from(pair[1])]);
        bad |= high | low;
        *byte = high << 4 | low & 15;
    }
    // A character that is no digit maps to 0xff: its upper half is kept in `bad`.
    (bad < 16).then_some(out)
}

const DIGIT: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut c = 0;
    while c < 10 {
        table[b'0' as usize + c as usize] = c;
        c += 1;
    }
    while c < 16 {
        table[b'a' as usize + c as usize - 10] = c;
        table[b'A' as usize + c as usize - 10] = c;
        c += 1;
    }
    table
};

impl Digests {
    /// Adds one digest.
    ///
    /// # Errors
    /// The digest is not of its algorithm's length, not hexadecimal, or another one than is already here.
    pub(super) fn add(&mut self, algorithm: Algorithm, text: &str) -> Result<(), String> {
        fn put<const N: usize>(slot: &mut Option<[u8; N]>, name: &str, text: &str) -> Result<(), String> {
            let value: [u8; N] = hex(text).ok_or_else(|| {
                format!(
                    "{name} must be {} hexadecimal digits, found {:?}",
                    2 * N,
                    text.chars().take(80).collect::<String>()
                )
            })?;
            if value == [0; N] {
                return Ok(());
            }
            if slot.is_some_and(|old| old != value) {
                return Err(format!("two different {name} for one file"));
            }
            *slot = Some(value);
            Ok(())
        }
        match algorithm {
            Algorithm::Sha256 => {
                let mut slot = self.sha256.map(|s| s.0);
                put(&mut slot, "SHA-256", text)?;
                self.sha256 = slot.map(Sha256);
            }
            Algorithm::Sha1 => put(&mut self.sha1, "SHA-1", text)?,
            Algorithm::Md5 => put(&mut self.md5, "MD5", text)?,
            Algorithm::Other => {}
        }
        Ok(())
    }
}

/// An array of `{algorithm, value}` objects; `VALUE` is the name of the second key (`checksumValue` in SPDX, `value` in syft).
pub(super) struct Checksums<const SPDX: bool>(pub(super) Digests);

impl<'de, const SPDX: bool> Deserialize<'de> for Checksums<SPDX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List<const SPDX: bool>;
        impl<'de, const SPDX: bool> Visitor<'de> for List<SPDX> {
            type Value = Checksums<SPDX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of digests")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Checksums(Digests::default()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut digests = Digests::default();
                while let Some(One::<SPDX>(algorithm, value)) = list.next_element()? {
                    digests.add(algorithm, &value.0).map_err(A::Error::custom)?;
                }
                Ok(Checksums(digests))
            }
        }
        from.deserialize_any(List::<SPDX>)
    }
}

struct One<'a, const SPDX: bool>(Algorithm, Text<'a>);

/// A string, borrowed unless it is written with escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

impl<'de, const SPDX: bool> Deserialize<'de> for One<'de, SPDX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pair<const SPDX: bool>;
        impl<'de, const SPDX: bool> Visitor<'de> for Pair<SPDX> {
            type Value = One<'de, SPDX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with algorithm and value")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut algorithm, mut value) = (None, None);
                let key_of_value = if SPDX { "checksumValue" } else { "value" };
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    if key.0 == "algorithm" {
                        let named = Algorithm::named(&map.next_value::<Text<'de>>()?.0);
                        if algorithm.replace(named).is_some() {
                            return Err(A::Error::duplicate_field("algorithm"));
                        }
                    } else if key.0 == key_of_value {
                        if value.replace(map.next_value::<Text<'de>>()?).is_some() {
                            return Err(A::Error::duplicate_field(if SPDX {
                                "checksumValue"
                            } else {
                                "value"
                            }));
                        }
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                match (algorithm, value) {
                    (Some(algorithm), Some(value)) => Ok(One(algorithm, value)),
                    _ => Err(A::Error::custom(format_args!("a digest needs algorithm and {key_of_value}"))),
                }
            }
        }
        from.deserialize_map(Pair::<SPDX>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        assert_eq!(hex::<2>("0aF9"), Some([0x0a, 0xf9]));
        for bad in ["0aF", "0aF9a", "0aFg", "0a F", "-1ff", "ÿÿ"] {
            assert_eq!(hex::<2>(bad), None, "{bad}");
        }
    }

    #[test]
    fn digests_by_algorithm_and_length() {
        let mut d = Digests::default();
        d.add(Algorithm::named("SHA1"), &"0".repeat(40)).unwrap();
        assert_eq!(d, Digests::default(), "a zero digest is an unknown one");
        d.add(Algorithm::named("sha-256"), &"a".repeat(64)).unwrap();
        d.add(Algorithm::named("SHA256"), &"A".repeat(64)).unwrap();
        assert!(
            d.add(Algorithm::named("SHA256"), &"b".repeat(64)).is_err_and(|e| e.contains("two different"))
        );
        assert!(
            d.add(Algorithm::named("SHA1"), &"a".repeat(64)).is_err_and(|e| e.contains("40 hexadecimal"))
        );
        d.add(Algorithm::named("SHA512"), "whatever").unwrap();
    }
}
