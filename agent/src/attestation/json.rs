//! Strict reading of JSON from outside: duplicate keys and deep nesting are refused, also where the value is not used.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// The place and reason of a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Bytes before the place.
    pub(super) at: usize,
    /// What was expected and found.
    pub(super) reason: String,
}

/// Reads one JSON value that must be all of `input`.
pub(super) fn read<'de, S: DeserializeSeed<'de>>(input: &'de [u8], seed: S) -> Result<S::Value, Fault> {
    let mut from = serde_json::Deserializer::from_slice(input);
    seed.deserialize(&mut from)
        .and_then(|value| from.end().map(|()| value))
        .map_err(|error| fault(input, &error))
}

fn fault(input: &[u8], error: &serde_json::Error) -> Fault {
    let before = match error.line() {
        0 | 1 => 0,
        line => memchr::memchr_iter(b'\n', input).nth(line - 2).map_or(0, |newline| newline + 1),
    };
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    Fault { at: (before + error.column()).min(input.len()), reason: reason.to_owned() }
}

/// A JSON string: borrowed unless it has escapes.
pub(super) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Members of one object: each is kept until the object ends, and nobody has vouched yet for what is read here. What is signed may be
/// as large as an SBOM, and has a reader of its own.
pub(super) const MAX_MEMBERS: usize = 4096;

/// The keys of one object so far.
#[derive(Default)]
pub(super) struct Members<'de>(HashSet<Cow<'de, str>>);

impl<'de> Members<'de> {
    /// The object's next key; an error when the object had it already.
    pub(super) fn next<A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
        let Some(key) = map.next_key_seed(Text)? else { return Ok(None) };
        if self.0.len() >= MAX_MEMBERS {
            return Err(A::Error::custom(format_args!("more than {MAX_MEMBERS} members in one object")));
        }
        if !self.0.insert(key.clone()) {
            return Err(A::Error::custom(format_args!("duplicate key {:?}", shown(&key))));
        }
        Ok(Some(key))
    }
}

/// A text from outside as it may appear in a message.
pub(super) fn shown(text: &str) -> &str {
    match text.char_indices().nth(120) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}

/// A value that is checked and dropped.
#[derive(Clone, Copy)]
pub(super) struct Unused {
    /// Levels of objects and arrays that the value may have.
    pub(super) depth: u32,
}

impl Unused {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1);
        depth.map(|depth| Self { depth }).ok_or_else(|| {
            E::custom("nested too deeply; the limit is attestation.max_json_depth in the configuration")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Unused {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unused {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        let mut members = Members::default();
        while members.next(&mut map)?.is_some() {
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, MAX_MEMBERS, Unused, read};

    #[test]
    fn strict() {
        for (input, at, reason) in [
            ("{\"a\":1,\n\"a\":2}", 11, "duplicate key \"a\""),
            ("{\"a\":1,\"\\u0061\":2}", 15, "duplicate key \"a\""),
            ("[{\"x\":[{\"b\":0,\"b\":0}]}]", 17, "duplicate key \"b\""),
            ("[[[[[0]]]]]", 5, "nested too deeply"),
            ("{} x", 4, "trailing characters"),
            ("{\"a\":", 5, "EOF while parsing"),
            ("\"\u{1}\"", 2, "control character"),
        ] {
            let Fault { at: found, reason: text } =
                read(input.as_bytes(), Unused { depth: 4 }).expect_err(input);
            assert!(text.contains(reason), "{input}: {text}");
            assert_eq!(found, at, "{input}: {text}");
        }
        for input in ["{\"a\":[{\"a\":1},{\"a\":1}]}", "[[[[]]]]", "null", " -1.5e3 "] {
            read(input.as_bytes(), Unused { depth: 4 }).expect(input);
        }
        read(b"\"\xff\"", Unused { depth: 4 }).expect_err("not UTF-8");
    }

    /// Each member of an object is held until its end: of 512 MiB of short keys that would be gigabytes, before anybody has signed.
    #[test]
    fn members_of_one_object_are_few() {
        let object = |members: usize| {
            let members: Vec<_> = (0..members).map(|n| format!("\"{n}\":{{\"a\":[]}}")).collect();
            format!("{{\"x\":[{{{}}}]}}", members.join(","))
        };
        read(object(MAX_MEMBERS).as_bytes(), Unused { depth: 8 }).expect("as many as may be");
        let more = object(MAX_MEMBERS + 1);
        let Fault { at, reason } = read(more.as_bytes(), Unused { depth: 8 }).expect_err("one more");
        assert!(reason.contains("more than 4096 members"), "{reason}");
        assert!(at > more.len() - 20, "{at} of {}", more.len());
        // It is not read to its end.
        let far = format!("{},{}", more.trim_end_matches("}]}"), "\"y\":0,".repeat(100_000));
        assert_eq!(read(far.as_bytes(), Unused { depth: 8 }).expect_err("one more").at, at);
    }
}
