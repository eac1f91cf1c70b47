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

/// An object of this form; anything else is nothing. For places where tools write several shapes.
pub(super) struct Maybe<T>(pub(super) Option<T>);

impl<T> Default for Maybe<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Shape<T> {
            type Value = Maybe<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|value| Maybe(Some(value)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Maybe(None))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }
            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }
        }
        from.deserialize_any(Shape(PhantomData))
    }
}

/// Elements that a list may have which never is long, whatever the image.
pub(super) const FEW: usize = 4096;
/// From so many ids on they are no shorter than [`SHORT`] on average: those of so many elements cannot be, for each has its own and they
/// begin alike (`SPDXRef-`, `urn:…`).
const MANY: usize = 256;
/// Characters of a short id.
const SHORT: usize = 8;

/// A list that never is long. What is read of an element takes many times the bytes of `{}`, so that a list of them would take many times
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
        from.deserialize_seq(Shape::<T, MOST>(PhantomData))
    }
}

/// Ids of other elements, which may be as many as the image has files. One may stand without brackets; `null` is none. `T` is what stands
/// for one: a [`Text`], or what may be something else, which is left out.
pub(super) struct Ids<'a, T = Text<'a>>(pub(super) Vec<Text<'a>>, PhantomData<fn() -> T>);

impl<T> Default for Ids<'_, T> {
    fn default() -> Self {
        Self(Vec::new(), PhantomData)
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de> + Into<Option<Text<'a>>>> Deserialize<'de> for Ids<'a, T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape<'a, T>(PhantomData<fn() -> (T, &'a ())>);
        impl<'a, T: Into<Option<Text<'a>>>> Shape<'a, T> {
            fn one<E>(one: Result<T, E>) -> Result<Ids<'a, T>, E> {
                one.map(|one| Ids(one.into().into_iter().collect(), PhantomData))
            }
        }
        impl<'de: 'a, 'a, T: Deserialize<'de> + Into<Option<Text<'a>>>> Visitor<'de> for Shape<'a, T> {
            type Value = Ids<'a, T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one element or an array of them")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Ids::default())
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Self::one(T::deserialize(serde::de::value::BorrowedStrDeserializer::new(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Self::one(T::deserialize(serde::de::value::StrDeserializer::new(text)))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Self::one(T::deserialize(MapAccessDeserializer::new(map)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let (mut all, mut length) = (Vec::new(), 0);
                while let Some(one) = list.next_element::<T>()? {
                    let Some(id) = one.into() else { continue };
                    length += id.len();
                    if all.len() >= MANY && length < SHORT * all.len() {
                        return Err(A::Error::custom(format_args!(
                            "more than {MANY} ids of fewer than {SHORT} characters; those of so many elements are longer"
                        )));
                    }
                    all.push(id);
                }
                Ok(Ids(all, PhantomData))
            }
        }
        from.deserialize_any(Shape(PhantomData))
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
            let Ids(found, _): Ids<'_> = serde_json::from_str(json).unwrap();
            assert_eq!(found.len(), count, "{json}");
            assert!(found.iter().all(|text| matches!(text.0, Cow::Borrowed(_))), "{json}");
        }
        let short = format!("[{}\"\"]", "\"1234567\",".repeat(MANY));
        assert!(
            serde_json::from_str::<Ids<'_>>(&short).is_err_and(|e| e.to_string().contains("line 1 column"))
        );
        let long = format!("[{}\"\"]", "\"123456789\",".repeat(MANY));
        assert_eq!(serde_json::from_str::<Ids<'_>>(&long).unwrap().0.len(), MANY + 1);
        for (count, is_few) in [(FEW, true), (FEW + 1, false)] {
            let list = format!("[{}", "0,".repeat(count)).trim_end_matches(',').to_owned() + "]";
            let found = serde_json::from_str::<Few<u8>>(&list).map(|few| few.0.len());
            assert_eq!(found.is_ok_and(|found| found == count), is_few, "{count}");
        }
        let escaped: Text<'_> = serde_json::from_str(r#""a\u0062""#).unwrap();
        assert_eq!(&*escaped, "ab");
    }
}
