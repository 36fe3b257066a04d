//! Names of networks, attachments and services.

use super::limits::MAX_NAME;
use serde::{Serialize, Serializer};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A valid name: a lower-case letter or digit, then up to 62 lower-case letters, digits, `_`, `.` and `-`.
///
/// Such a name is safe as a file name and as a part of a namespace's name.
///
/// All but long ones lie where they are used, and not behind a pointer: a change of a persistent map copies some nodes with all
/// their keys, and with pointers it would touch as many places in memory, which in a large map no cache has. A name that took
/// its greatest length everywhere would make those nodes so large that the allocator has to search for them.
#[derive(Clone)]
pub struct Name(Text);

#[derive(Clone)]
enum Text {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Arc<str>),
}

/// The longest name that lies where it is used.
const SHORT: usize = 30;

impl Name {
    /// Takes `text` as a name.
    ///
    /// # Errors
    /// The reason in plain language.
    pub fn new(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = text.len() <= MAX_NAME
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|byte| plain(byte) || matches!(byte, b'_' | b'.' | b'-'));
        if !valid {
            return Err(format!(
                "{text:?} is not a valid name: 1 to {MAX_NAME} characters out of a-z, 0-9, `_`, `.` and `-`, the first a letter or digit"
            ));
        }
        let mut bytes = [0; SHORT];
        Ok(Self(match bytes.get_mut(..text.len()) {
            Some(place) => {
                place.copy_from_slice(text.as_bytes());
                Text::Short { length: u8::try_from(text.len()).unwrap_or_default(), bytes }
            }
            None => Text::Long(text.into()),
        }))
    }

    fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Text::Long(text) => text.as_bytes(),
        }
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            // It was made from a text of ASCII characters.
            Text::Short { .. } => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Text::Long(text) => text,
        }
    }
}

// As a text is compared and hashed, so that a map can be asked with one.

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node of a persistent map has sixteen entries, of a name and a pointer; the allocator has those of up to 1,032 bytes
    /// at hand (glibc's per-thread cache).
    #[test]
    fn a_name_is_small() {
        assert!(size_of::<Name>() <= 32);
    }

    #[test]
    fn names_of_all_lengths_are_what_they_were_made_from() {
        for length in 1..=MAX_NAME {
            let (text, next) = ("a".repeat(length), format!("{}b", "a".repeat(length - 1)));
            let (name, later) = (Name::new(&text).unwrap(), Name::new(&next).unwrap());
            assert_eq!((&*name, name.as_bytes()), (text.as_str(), text.as_bytes()));
            assert!(name == name.clone() && name != later && name < later);
        }
        assert!(Name::new(&"a".repeat(MAX_NAME + 1)).is_err() && Name::new("").is_err());
    }
}
