//! What there is at most one of for each address family: a network's subnets, the addresses of an attachment or a
//! service.

use ipnet::IpNet;
use ringlb_proxy::control::settings::parsed;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Shown as `IPv4`.
    V4,
    /// Shown as `IPv6`.
    V6,
}

/// What is of one address family.
pub trait OfFamily {
    /// The family.
    fn family(&self) -> Family;
}

/// What documents list by family.
pub trait Listed: OfFamily + Sized {
    /// What a text should be, such as `an IP address`.
    const EXPECTED: &'static str;
    /// What two of are, such as `addresses`.
    const SEVERAL: &'static str;

    /// Takes `text` as one.
    ///
    /// # Errors
    /// The reason in plain language.
    fn read(text: &str) -> Result<Self, String>;
}

/// At most one for each address family.
///
/// A document has one as a string, and one of each family as a list; it can be read from a list of one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Families<T> {
    v4: Option<T>,
    v6: Option<T>,
}

impl<T> Families<T> {
    /// That of a family.
    #[must_use]
    pub fn get(&self, family: Family) -> Option<&T> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// That of a family, to be changed.
    pub(super) fn get_mut(&mut self, family: Family) -> Option<&mut T> {
        match family {
            Family::V4 => self.v4.as_mut(),
            Family::V6 => self.v6.as_mut(),
        }
    }

    /// Those there are, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.v4.iter().chain(&self.v6)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// These, and those of `others` in families that these lack.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self { v4: self.v4.or(others.v4), v6: self.v6.or(others.v6) }
    }

    /// The place of a family.
    fn place(&mut self, family: Family) -> &mut Option<T> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl<T: OfFamily> Families<T> {
    /// Puts `value` in; gives the one of its family that was there.
    pub fn put(&mut self, value: T) -> Option<T> {
        self.place(value.family()).replace(value)
    }
}

impl<T> Default for Families<T> {
    fn default() -> Self {
        Self { v4: None, v6: None }
    }
}

impl<T: OfFamily> From<T> for Families<T> {
    fn from(value: T) -> Self {
        Self::from_iter([value])
    }
}

impl<T: OfFamily> FromIterator<T> for Families<T> {
    /// Of several of one family the last one.
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut families = Self::default();
        for value in values {
            families.put(value);
        }
        families
    }
}

impl OfFamily for IpAddr {
    fn family(&self) -> Family {
        if self.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl OfFamily for IpNet {
    fn family(&self) -> Family {
        self.addr().family()
    }
}

impl Listed for IpAddr {
    const EXPECTED: &'static str = "an IP address";
    const SEVERAL: &'static str = "addresses";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not an IP address"))
    }
}

impl Listed for IpNet {
    const EXPECTED: &'static str = "a subnet in CIDR notation such as `10.1.0.0/16`";
    const SEVERAL: &'static str = "subnets";

    fn read(text: &str) -> Result<Self, String> {
        let reason = || format!("{text:?} is not a subnet in CIDR notation such as `10.1.0.0/16` or `fd00:1::/64`");
        text.parse().map_err(|_| reason())
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// `10.1.0.0/16 and fd00:1::/64`.
impl<T: fmt::Display> fmt::Display for Families<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.v4, &self.v6) {
            (Some(one), Some(two)) => write!(formatter, "{one} and {two}"),
            (Some(one), None) | (None, Some(one)) => one.fmt(formatter),
            (None, None) => formatter.write_str("none"),
        }
    }
}

impl<T: Serialize> Serialize for Families<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (&self.v4, &self.v6) {
            (Some(one), None) | (None, Some(one)) => one.serialize(serializer),
            (Some(_), Some(_)) | (None, None) => serializer.collect_seq(self.iter()),
        }
    }
}

impl<'de, T: Listed> Deserialize<'de> for Families<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrList<T>(PhantomData<T>);

        impl<'de, T: Listed> Visitor<'de> for OneOrList<T> {
            type Value = Families<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}, or a list with at most one for each address family", T::EXPECTED)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Families<T>, E> {
                T::read(text).map(Families::from).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Families<T>, A::Error> {
                let mut families = Families::default();
                while let Some(Entry(value)) = list.next_element::<Entry<T>>()? {
                    let family = value.family();
                    if families.put(value).is_some() {
                        let several = T::SEVERAL;
                        let reason =
                            format!("lists several {family} {several}, give at most one for each address family");
                        return Err(A::Error::custom(reason));
                    }
                }
                if families.is_empty() {
                    return Err(A::Error::custom(format!("is an empty list, expected {}", T::EXPECTED)));
                }
                Ok(families)
            }
        }

        deserializer.deserialize_any(OneOrList(PhantomData))
    }
}

/// One, as it is written.
pub(super) struct Entry<T>(pub(super) T);

impl<T: Listed> FromStr for Entry<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        T::read(text).map(Self)
    }
}

impl<'de, T: Listed> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, T::EXPECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Families<IpAddr>, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn one_is_a_string_and_two_are_a_list() {
        for (text, written, shown) in [
            (r#""10.1.0.1""#, r#""10.1.0.1""#, "10.1.0.1"),
            (r#"["10.1.0.1"]"#, r#""10.1.0.1""#, "10.1.0.1"),
            (r#"["fd00::1"]"#, r#""fd00::1""#, "fd00::1"),
            (r#"["10.1.0.1", "fd00::1"]"#, r#"["10.1.0.1","fd00::1"]"#, "10.1.0.1 and fd00::1"),
            (r#"["fd00:0::1", "10.1.0.1"]"#, r#"["10.1.0.1","fd00::1"]"#, "10.1.0.1 and fd00::1"),
        ] {
            let families = read(text).unwrap();
            assert_eq!(serde_json::to_string(&families).unwrap(), written);
            assert_eq!(read(written).unwrap(), families);
            assert_eq!(families.to_string(), shown);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for (text, reason) in [
            ("[]", "is an empty list, expected an IP address"),
            (r#"["10.1.0.1", "10.1.0.2"]"#, "lists several IPv4 addresses"),
            (r#"["fd00::1", "fd00::1"]"#, "lists several IPv6 addresses"),
            (r#"["10.1.0.1", 7]"#, "expected an IP address"),
            (r#"["10.1.0.1", "nine"]"#, "\"nine\" is not an IP address"),
            ("null", "expected an IP address, or a list with at most one for each address family"),
            ("{}", "or a list with at most one"),
            ("7", "or a list with at most one"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn those_that_are_lacking_come_from_others() {
        let both = Families::from_iter(["10.1.0.1", "fd00::1"].map(|text| text.parse::<IpAddr>().unwrap()));
        let one = Families::from("10.1.0.9".parse::<IpAddr>().unwrap());
        assert_eq!(one.or(both).to_string(), "10.1.0.9 and fd00::1");
        assert_eq!(Families::default().or(one), one);
        assert_eq!(both.get(Family::V6).unwrap().to_string(), "fd00::1");
        assert!(one.get(Family::V6).is_none() && Families::<IpAddr>::default().is_empty());
    }
}
