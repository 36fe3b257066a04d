//! Names of networks, attachments and services.

use super::limits::MAX_NAME;
use ringlb_proxy::table::text::Text;
use serde::{Serialize, Serializer};
use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

/// A valid name: a lower-case letter or digit, then up to 62 lower-case letters, digits, `_`, `.` and `-`.
///
/// Such a name is safe as a file name and as a part of a namespace's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Text);

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
        Ok(Self(Text::from(text)))
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
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

    #[test]
    fn names_have_a_length() {
        assert!(Name::new(&"a".repeat(MAX_NAME)).is_ok_and(|name| *name == *"a".repeat(MAX_NAME)));
        assert!(Name::new(&"a".repeat(MAX_NAME + 1)).is_err() && Name::new("").is_err());
    }
}
