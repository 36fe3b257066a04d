//! Names of networks, attachments and services.

use super::limits::MAX_NAME;
use serde::{Serialize, Serializer};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// A valid name: a lower-case letter or digit, then up to 62 lower-case letters, digits, `_`, `.` and `-`.
///
/// Such a name is safe as a file name and as a part of a namespace's name.
///
/// It lies where it is used, and not behind a pointer: a change of a persistent map copies some nodes with all their keys,
/// and with pointers it would touch as many places in memory, which in a large map no cache has.
#[derive(Clone)]
pub struct Name {
    length: u8,
    bytes: [u8; MAX_NAME],
}

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
        if valid {
            let mut bytes = [0; MAX_NAME];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            Ok(Self { length: u8::try_from(text.len()).unwrap_or_default(), bytes })
        } else {
            Err(format!(
                "{text:?} is not a valid name: 1 to {MAX_NAME} characters out of a-z, 0-9, `_`, `.` and `-`, the first a letter or digit"
            ))
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        // It was made from a text of ASCII characters.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
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
