//! Lists of client prefixes.

use super::text::parsed;
use ipnet::IpNet;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The most prefixes of a list.
pub const MAX_PREFIXES: usize = 10_000;

/// Prefixes of client addresses, such as `10.0.0.0/8` and `2001:db8::/32`; an address alone is the prefix of only itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Prefixes(pub Vec<Prefix>);

/// One of them. Always without bits behind its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix(IpNet);

impl Prefixes {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().map(|prefix| prefix.0)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let prefix = parsed.ok_or_else(|| {
            format!("{text:?} is not a prefix: write such as `10.0.0.0/8`, `2001:db8::/32` or one address")
        })?;
        // Meant as one address or as all of the prefix: only who wrote it knows.
        if prefix != prefix.trunc() {
            return Err(format!(
                "{text:?} has bits behind its length: write `{}` for the prefix, `{}` for the address",
                prefix.trunc(),
                prefix.addr()
            ));
        }
        Ok(Self(prefix))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            (self.0.addr(), self.0.prefix_len()).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            parsed(deserializer, "a prefix as text, such as \"10.0.0.0/8\"")
        } else {
            let (address, length) = <(IpAddr, u8)>::deserialize(deserializer)?;
            IpNet::new(address, length).map(|prefix| Self(prefix.trunc())).map_err(D::Error::custom)
        }
    }
}

impl<'de> Deserialize<'de> for Prefixes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Prefixes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a list of at most {MAX_PREFIXES} prefixes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Prefixes, A::Error> {
                let mut prefixes = Vec::new();
                while let Some(prefix) = list.next_element()? {
                    if prefixes.len() == MAX_PREFIXES {
                        return Err(A::Error::invalid_length(MAX_PREFIXES + 1, &self));
                    }
                    prefixes.push(prefix);
                }
                Ok(Prefixes(prefixes))
            }
        }

        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_as_it_is_written() {
        let text = r#"["10.0.0.0/8","192.0.2.1/32","2001:db8::/32","::/0"]"#;
        let prefixes: Prefixes = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&prefixes).unwrap(), text);
        let message = postcard::to_stdvec(&prefixes).unwrap();
        assert_eq!(postcard::from_bytes::<Prefixes>(&message).unwrap(), prefixes);
        let alone: Prefixes = serde_json::from_str(r#"["192.0.2.1","2001:db8::1"]"#).unwrap();
        assert_eq!(serde_json::to_string(&alone).unwrap(), r#"["192.0.2.1/32","2001:db8::1/128"]"#);
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for (text, reason) in [
            (r#"["10.0.0.1/8"]"#, "write `10.0.0.0/8` for the prefix, `10.0.0.1` for the address"),
            (r#"["10.0.0.0/33"]"#, "is not a prefix"),
            (r#"["host"]"#, "is not a prefix"),
            (r#"[""]"#, "is not a prefix"),
            ("[1]", "a prefix as text"),
            (r#""10.0.0.0/8""#, "a list of at most 10000 prefixes"),
        ] {
            let found = serde_json::from_str::<Prefixes>(text).unwrap_err().to_string();
            assert!(found.contains(reason), "{text}: {found}");
        }
        let many = |count| format!("[{}]", vec!["\"::/0\""; count].join(","));
        assert!(serde_json::from_str::<Prefixes>(&many(MAX_PREFIXES)).is_ok());
        assert!(serde_json::from_str::<Prefixes>(&many(MAX_PREFIXES + 1)).is_err());
        let message = postcard::to_stdvec(&[("10.0.0.0".parse::<IpAddr>().unwrap(), 33u8)][..]).unwrap();
        assert!(postcard::from_bytes::<Prefixes>(&message).is_err());
    }
}
