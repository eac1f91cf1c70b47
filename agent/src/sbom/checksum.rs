//! Digests as documents write them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Digests;
use super::json::{Loose, Text};
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

/// How a format writes a digest.
pub(super) trait Spelling {
    /// Key of the algorithm.
    const ALGORITHM: &'static str;
    /// Key of the value.
    const VALUE: &'static str;
    /// Key of what kind of digest it is. Only a `Hash` is one of the content.
    const KIND: Option<&'static str> = None;
    /// Elements have digests that are not read, of packages: what is wrong with one is told when it is asked for.
    const LATER: bool = false;
}

/// SPDX 2.
pub(super) struct Spdx2;
impl Spelling for Spdx2 {
    const ALGORITHM: &'static str = "algorithm";
    const VALUE: &'static str = "checksumValue";
}

/// SPDX 3: `PackageVerificationCode` stands among the hashes.
pub(super) struct Spdx3;
impl Spelling for Spdx3 {
    const ALGORITHM: &'static str = "algorithm";
    const VALUE: &'static str = "hashValue";
    const KIND: Option<&'static str> = Some("type");
    const LATER: bool = true;
}

/// syft-json.
pub(super) struct Syft;
impl Spelling for Syft {
    const ALGORITHM: &'static str = "algorithm";
    const VALUE: &'static str = "value";
}

/// CycloneDX.
pub(super) struct CycloneDx;
impl Spelling for CycloneDx {
    const ALGORITHM: &'static str = "alg";
    const VALUE: &'static str = "content";
    const LATER: bool = true;
}

/// The digests of one element.
pub(super) struct Checksums<S> {
    digests: Digests,
    /// What is wrong with them.
    fault: Option<Box<str>>,
    spelling: PhantomData<S>,
}

impl<S> Default for Checksums<S> {
    fn default() -> Self {
        Self { digests: Digests::default(), fault: None, spelling: PhantomData }
    }
}

impl<S: Spelling> Checksums<S> {
    /// The digests.
    ///
    /// # Errors
    /// One of them is malformed, or contradicts another.
    pub(super) fn usable(self) -> Result<Digests, String> {
        self.fault.map_or(Ok(self.digests), |fault| Err(fault.into()))
    }

    /// Adds one.
    ///
    /// # Errors
    /// It is malformed, and that cannot wait.
    pub(super) fn add(&mut self, One { read, .. }: One<'_, S>) -> Result<(), String> {
        let added = read.and_then(|(algorithm, value)| self.digests.add(algorithm, &value));
        match added {
            Err(reason) if S::LATER => {
                self.fault.get_or_insert(reason.into());
                Ok(())
            }
            added => added,
        }
    }
}

impl<'de, S: Spelling> Deserialize<'de> for Checksums<S> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List<S>(PhantomData<S>);
        impl<'de, S: Spelling> Visitor<'de> for List<S> {
            type Value = Checksums<S>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of digests")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Checksums::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut found = Checksums::<S>::default();
                while let Some(one) = list.next_element()? {
                    found.add(one).map_err(A::Error::custom)?;
                }
                Ok(found)
            }
        }
        from.deserialize_any(List::<S>(PhantomData))
    }
}

/// One digest as it is written.
pub(super) struct One<'a, S> {
    read: Result<(Algorithm, Text<'a>), String>,
    spelling: PhantomData<S>,
}

impl<'de, S: Spelling> One<'de, S> {
    /// Reads the members of an object.
    pub(super) fn members<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let (mut algorithm, mut value, mut of_content) = (None, None, true);
        while let Some(key) = map.next_key::<Text<'de>>()? {
            if key.0 == S::ALGORITHM {
                if algorithm.replace(map.next_value::<Loose<'de>>()?).is_some() {
                    return Err(A::Error::duplicate_field(S::ALGORITHM));
                }
            } else if key.0 == S::VALUE {
                if value.replace(map.next_value::<Loose<'de>>()?).is_some() {
                    return Err(A::Error::duplicate_field(S::VALUE));
                }
            } else if S::KIND.is_some_and(|kind| key.0 == kind) {
                of_content &= map.next_value::<Text<'de>>()?.0 == "Hash";
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        let read = match (algorithm, value) {
            (Some(Loose(Some(_))), Some(Loose(Some(value)))) if !of_content => Ok((Algorithm::Other, value)),
            (Some(Loose(Some(name))), Some(Loose(Some(value)))) => Ok((Algorithm::named(&name), value)),
            _ => Err(format!("a digest needs {} and {}", S::ALGORITHM, S::VALUE)),
        };
        Ok(Self { read, spelling: PhantomData })
    }
}

impl<'de, S: Spelling> Deserialize<'de> for One<'de, S> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pair<S>(PhantomData<S>);
        impl<'de, S: Spelling> Visitor<'de> for Pair<S> {
            type Value = One<'de, S>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object with {} and {}", S::ALGORITHM, S::VALUE)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                One::members(map)
            }
        }
        from.deserialize_map(Pair::<S>(PhantomData))
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
