//! Settings that belong together, as an object of their own.

/// Makes a derived `remote = "Self"` implementation the type's own, for objects only: the derived code takes a list for an
/// object too, its fields in order, and nobody means that.
macro_rules! setting_group {
    ($group:ident) => {
        impl serde::Serialize for $group {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $group::serialize(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $group {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::value::MapAccessDeserializer;
                use serde::de::{MapAccess, Visitor};

                struct Object;

                impl<'de> Visitor<'de> for Object {
                    type Value = $group;

                    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        formatter.write_str("an object")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$group, A::Error> {
                        $group::deserialize(MapAccessDeserializer::new(map))
                    }
                }

                if deserializer.is_human_readable() {
                    deserializer.deserialize_map(Object)
                } else {
                    $group::deserialize(deserializer)
                }
            }
        }
    };
}

pub(super) use setting_group;
