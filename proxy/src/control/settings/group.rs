//! Settings that belong together, as an object in a document.

/// Reads and writes a group whose derived code is kept apart by `#[serde(remote = "Self")]`: that code takes a list for an
/// object too, its fields in order, which is right for messages and meant by nobody who writes a document.
macro_rules! settings_group {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $name::serialize(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Object;

                impl<'de> serde::de::Visitor<'de> for Object {
                    type Value = $name;

                    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        formatter.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        $name::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    }
                }

                if deserializer.is_human_readable() {
                    deserializer.deserialize_map(Object)
                } else {
                    $name::deserialize(deserializer)
                }
            }
        }
    };
}

pub(super) use settings_group;
