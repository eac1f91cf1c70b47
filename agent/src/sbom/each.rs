//! Arrays whose elements are handed on as they are read.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

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
