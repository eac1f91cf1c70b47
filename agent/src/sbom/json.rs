//! Pieces of readers that the JSON formats share. Nothing here holds a document: strings are borrowed, elements are handed on as
//! they are read.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Format, Position, SbomError};

/// Reads a document that is one object.
pub(super) fn document<'de, V: Visitor<'de>>(
    bytes: &'de [u8],
    format: Format,
    visitor: V,
) -> Result<V::Value, SbomError> {
    let wrong = |error| SbomError::Content { format, error };
    // Once, instead of each string.
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let Position { line, column } = Position::of(bytes, error.valid_up_to());
        wrong(Error::custom(format_args!("not UTF-8 at line {line} column {column}")))
    })?;
    let mut json = serde_json::Deserializer::from_str(text);
    let value = json.deserialize_map(visitor).map_err(wrong)?;
    json.end().map_err(wrong)?;
    Ok(value)
}

/// A string, borrowed unless it is written with escapes. (Inside an option or a list, or as a key, serde's own `Cow` always copies.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Borrow)
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// The keys of one object that are read, so that none is read twice.
#[derive(Default)]
pub(super) struct Seen(Vec<&'static str>);

impl Seen {
    /// Refuses the second of a name.
    pub(super) fn first<E: Error>(&mut self, name: &'static str) -> Result<(), E> {
        if self.0.contains(&name) {
            return Err(E::duplicate_field(name));
        }
        self.0.push(name);
        Ok(())
    }
}

/// What a value of any shape is read as. What is not overridden is skipped, and is nothing.
pub(super) trait AnyShape<'de>: Default {
    fn text(_: Cow<'de, str>) -> Self {
        Self::default()
    }
    fn number(_: u64) -> Self {
        Self::default()
    }
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

/// Reads one.
pub(super) fn any<'de, T: AnyShape<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    struct Shape<T>(PhantomData<T>);
    impl<'de, T: AnyShape<'de>> Visitor<'de> for Shape<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any value")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::object(map)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(T::default())
        }
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<T, E> {
            Ok(T::text(Cow::Borrowed(text)))
        }
        fn visit_str<E>(self, text: &str) -> Result<T, E> {
            Ok(T::text(Cow::Owned(text.to_owned())))
        }
        fn visit_bool<E>(self, _: bool) -> Result<T, E> {
            Ok(T::default())
        }
        fn visit_i64<E>(self, _: i64) -> Result<T, E> {
            Ok(T::default())
        }
        fn visit_u64<E>(self, number: u64) -> Result<T, E> {
            Ok(T::number(number))
        }
        fn visit_f64<E>(self, _: f64) -> Result<T, E> {
            Ok(T::default())
        }
        fn visit_unit<E>(self) -> Result<T, E> {
            Ok(T::default())
        }
    }
    from.deserialize_any(Shape(PhantomData))
}

/// A string on which no digest and no path rests; anything else is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Loose<'a>(pub(super) Option<Text<'a>>);

impl<'de> AnyShape<'de> for Loose<'de> {
    fn text(text: Cow<'de, str>) -> Self {
        Self(Some(Text(text)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        any::<Loose<'de>, D>(from)
    }
}

impl std::ops::Deref for Loose<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

/// An object of this form; anything else is nothing. For places where tools write several shapes.
pub(super) struct Maybe<T>(pub(super) Option<T>);

impl<T> Default for Maybe<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> AnyShape<'de> for Maybe<T> {
    fn object<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|value| Self(Some(value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        any(from)
    }
}

/// An object of this form and nothing else. What serde derives would take an array of the members in their order as well, and names
/// the structure in its messages.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Shape<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        from.deserialize_map(Shape(PhantomData))
    }
}

/// Elements that a list may have which never is long, whatever the image.
pub(super) const FEW: usize = 4096;
/// From so many ids on they are no shorter than [`SHORT`] on average: those of so many elements cannot be, for each has its own.
const MANY: usize = 256;
/// Characters of the shortest id that tools write: a compact one of SPDX 3 (`s:1`, `_:1`).
const SHORT: usize = 3;

/// A list that never is long; `null` is an empty one. What is read of an element takes many times the bytes of `{}`, so that a list of them would take many times
/// the size of the document.
pub(super) struct Few<T, const MOST: usize = FEW>(pub(super) Vec<T>);

impl<T, const MOST: usize> Default for Few<T, MOST> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape<T, const MOST: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Shape<T, MOST> {
            type Value = Few<T, MOST>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Few(Vec::new()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    if all.len() == MOST {
                        return Err(A::Error::custom(format_args!("more than {MOST} elements in this list")));
                    }
                    all.push(one);
                }
                Ok(Few(all))
            }
        }
        from.deserialize_any(Shape::<T, MOST>(PhantomData))
    }
}

/// Ids of other elements, which may be as many as the image has files.
#[derive(Default)]
pub(super) struct IdList<'a> {
    pub(super) all: Vec<Text<'a>>,
    /// Bytes of all.
    length: usize,
}

impl<'a> IdList<'a> {
    /// Adds one.
    ///
    /// # Errors
    /// So many as these have longer ids.
    pub(super) fn push(&mut self, id: Text<'a>) -> Result<(), String> {
        self.length += id.len();
        if self.all.len() >= MANY && self.length < SHORT * self.all.len() {
            return Err(format!(
                "more than {MANY} ids of fewer than {SHORT} characters; those of so many elements are longer"
            ));
        }
        self.all.push(id);
        Ok(())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for IdList<'a> {
    /// One may stand without brackets; `null` is none.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = IdList<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one id or an array of them")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(IdList::default())
            }
            fn visit_borrowed_str<E>(self, id: &'de str) -> Result<Self::Value, E> {
                Ok(IdList { all: vec![Text(Cow::Borrowed(id))], length: id.len() })
            }
            fn visit_str<E>(self, id: &str) -> Result<Self::Value, E> {
                Ok(IdList { all: vec![Text(Cow::Owned(id.to_owned()))], length: id.len() })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut ids = IdList::default();
                while let Some(id) = list.next_element()? {
                    ids.push(id).map_err(A::Error::custom)?;
                }
                Ok(ids)
            }
        }
        from.deserialize_any(Shape)
    }
}

/// Hands each element of an array on as soon as it is read.
pub(super) struct Each<F, T, E>(F, PhantomData<fn(T) -> E>);

/// Makes one.
pub(super) fn each<T, E, F: FnMut(T) -> Result<(), E>>(take: F) -> Each<F, T, E> {
    Each(take, PhantomData)
}

impl<'de, T, F, E2> serde::de::DeserializeSeed<'de> for Each<F, T, E2>
where
    F: FnMut(T) -> Result<(), E2>,
    T: Deserialize<'de>,
    E2: fmt::Display,
{
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        struct List<F, T>(F, PhantomData<fn() -> T>);
        impl<'de, T: Deserialize<'de>, E2: fmt::Display, F: FnMut(T) -> Result<(), E2>> Visitor<'de> for List<F, T> {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_unit<E>(self) -> Result<(), E> {
                Ok(())
            }
            fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
                while let Some(element) = list.next_element()? {
                    (self.0)(element).map_err(A::Error::custom)?;
                }
                Ok(())
            }
        }
        from.deserialize_any(List(self.0, PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            name: Text<'a>,
        }
        for (json, name) in [
            (r#"{"name":"x","y":[1]}"#, Some("x")),
            ("[{}]", None),
            ("\"x\"", None),
            ("null", None),
            ("-1", None),
        ] {
            let Maybe(found): Maybe<Named<'_>> = serde_json::from_str(json).unwrap();
            assert_eq!(found.as_ref().map(|found| &*found.name), name, "{json}");
        }
        serde_json::from_str::<Maybe<Named<'_>>>(r#"{"name":1}"#).map(|_| ()).unwrap_err();
        for (json, count) in [(r#""x""#, 1), (r#"["x","y"]"#, 2), ("null", 0), ("[]", 0)] {
            let found = serde_json::from_str::<IdList<'_>>(json).unwrap().all;
            assert_eq!(found.len(), count, "{json}");
            assert!(found.iter().all(|text| matches!(text.0, Cow::Borrowed(_))), "{json}");
        }
        let short = format!("[{}\"\"]", "\"12\",".repeat(MANY));
        assert!(
            serde_json::from_str::<IdList<'_>>(&short)
                .is_err_and(|e| e.to_string().contains("line 1 column"))
        );
        let long = format!("[{}\"\"]", "\"123456789\",".repeat(MANY));
        assert_eq!(serde_json::from_str::<IdList<'_>>(&long).unwrap().all.len(), MANY + 1);
        assert_eq!(serde_json::from_str::<Few<u8>>("null").unwrap().0.len(), 0);
        for (json, text) in [("\"x\"", "x"), ("null", ""), ("[\"x\"]", ""), ("1.5", ""), ("{\"x\":1}", "")] {
            assert_eq!(&*serde_json::from_str::<Loose<'_>>(json).unwrap(), text, "{json}");
        }
        for (json, is_object) in [(r#"{"name":"x"}"#, true), (r#"["x"]"#, false), ("null", false)] {
            let found = serde_json::from_str::<Object<Named<'_>>>(json).map(|Object(found)| found.name.len());
            assert_eq!(found.as_ref().ok(), is_object.then_some(&1), "{json}");
            assert!(
                found.err().is_none_or(|e| e.to_string().contains("expected an object at line 1")),
                "{json}"
            );
        }
        for (count, is_few) in [(FEW, true), (FEW + 1, false)] {
            let list = format!("[{}", "0,".repeat(count)).trim_end_matches(',').to_owned() + "]";
            let found = serde_json::from_str::<Few<u8>>(&list).map(|few| few.0.len());
            assert_eq!(found.is_ok_and(|found| found == count), is_few, "{count}");
        }
        let escaped: Text<'_> = serde_json::from_str(r#""a\u0062""#).unwrap();
        assert_eq!(&*escaped, "ab");
    }
}
