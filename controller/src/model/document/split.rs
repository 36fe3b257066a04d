//! Objects in which some fields belong to the object itself and all others to its settings.
//!
//! serde's `flatten` would take such objects apart too, but it lets unknown fields pass and forgets where a wrong value
//! stood.

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error, IntoDeserializer, MapAccess};
use serde::{Deserialize, Deserializer};

/// Reads the settings out of `map`. The value of each field of `own` is left to `read`, which gets the field's name.
pub(super) fn settings_beside<'de, A, T, F>(map: A, own: &'static [&'static str], read: F) -> Result<T, A::Error>
where
    A: MapAccess<'de>,
    T: Deserialize<'de>,
    F: FnMut(&'static str, &mut A) -> Result<(), A::Error>,
{
    T::deserialize(MapAccessDeserializer::new(Rest { map, own, read }))
}

/// Puts the value of a field where it belongs; an error if the object has the field twice.
pub(super) fn put<'de, A, T>(map: &mut A, field: &'static str, place: &mut Option<T>) -> Result<(), A::Error>
where
    A: MapAccess<'de>,
    T: Deserialize<'de>,
{
    match place.replace(map.next_value()?) {
        None => Ok(()),
        Some(_) => Err(A::Error::duplicate_field(field)),
    }
}

/// The fields that are not the object's own.
struct Rest<A, F> {
    map: A,
    own: &'static [&'static str],
    read: F,
}

impl<'de, A, F> MapAccess<'de> for Rest<A, F>
where
    A: MapAccess<'de>,
    F: FnMut(&'static str, &mut A) -> Result<(), A::Error>,
{
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, mut seed: K) -> Result<Option<K::Value>, A::Error> {
        loop {
            match self.map.next_key_seed(Field { seed, own: self.own })? {
                None => return Ok(None),
                Some(Key::Other(key)) => return Ok(Some(key)),
                Some(Key::Own(field, unused)) => {
                    (self.read)(field, &mut self.map)?;
                    seed = unused;
                }
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads a field's name: either it is one of `own`, or it is given to `seed`.
struct Field<S> {
    seed: S,
    own: &'static [&'static str],
}

enum Key<S, V> {
    Own(&'static str, S),
    Other(V),
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Field<S> {
    type Value = Key<S, S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let name = String::deserialize(deserializer)?;
        match self.own.iter().find(|own| **own == name) {
            Some(own) => Ok(Key::Own(own, self.seed)),
            None => self.seed.deserialize(name.into_deserializer()).map(Key::Other),
        }
    }
}
