//! The `@context` of a document: which vocabulary it is in, and the short forms of its ids.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::super::json::{Loose, Text};

/// Short forms that are used.
const MAX: usize = 64;

/// Short forms of ids (JSON-LD 1.1, compact IRIs: `s:1` for `urn:x:1`), each with what it stands for.
#[derive(Default)]
pub(super) struct Prefixes<'a>(Vec<(Text<'a>, Text<'a>)>);

impl<'a> Prefixes<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes an id in its short form, so that both forms are one id.
    pub(super) fn shorten(&self, id: &mut Text<'a>) {
        let fits = self.0.iter().filter(|(_, long)| id.starts_with(&**long));
        if let Some((short, long)) = fits.max_by_key(|(_, long)| long.len()) {
            *id = Text([&**short, ":", &id[long.len()..]].concat().into());
        }
    }
}

/// What a context says.
#[derive(Default)]
pub(super) struct Context<'a> {
    /// The first context that is named by its address.
    pub(super) first: Option<Text<'a>>,
    /// It is the vocabulary of SPDX 3.0.
    pub(super) known: bool,
    pub(super) prefixes: Prefixes<'a>,
}

/// Reads a context, or a list of them.
pub(super) struct Contexts<'b, 'a>(pub(super) &'b mut Context<'a>);

impl<'de> DeserializeSeed<'de> for Contexts<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Contexts<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a context")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, url: &str) -> Result<(), E> {
        self.0.known |= url.contains("//spdx.org/rdf/3.0");
        self.0.first.get_or_insert_with(|| Text(super::super::shown(url).to_owned().into()));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Contexts(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Prefixes(prefixes) = &mut self.0.prefixes;
        while let Some(short) = map.next_key::<Text<'de>>()? {
            let Loose(Some(long)) = map.next_value()? else { continue };
            // A short form is shorter; `@vocab` and the like are none.
            if prefixes.len() < MAX && !short.starts_with('@') && short.len() < long.len() {
                prefixes.push((short, long));
            }
        }
        Ok(())
    }
}
