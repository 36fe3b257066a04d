//! Texts that are keys of maps.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A text that never changes, such as a name.
///
/// All but long ones lie where they are used, and not behind a pointer: whoever looks for one in a large map, or copies a branch
/// of it, would touch as many places in memory, which no cache has. One that took its greatest length everywhere would make
/// the nodes of the daemon's ordered maps larger than what an allocator has at hand.
#[derive(Clone)]
pub struct Text(Form);

#[derive(Clone)]
enum Form {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Arc<str>),
}

/// The longest text, in bytes, that lies where it is used.
const SHORT: usize = 30;

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        Self(match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text.as_bytes());
                Form::Short { length, bytes }
            }
            _ => Form::Long(text.into()),
        })
    }
}

impl Text {
    /// Its bytes, which are UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Form::Long(text) => text.as_bytes(),
        }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            // It was made from a text, of which these are all bytes.
            Form::Short { .. } => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Form::Long(text) => text,
        }
    }
}

// As a `str` is compared and hashed, so that a map can be asked with one.

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// A node of a persistent map of the daemon has sixteen entries, of a text and a pointer; the allocator has those of up to
    /// 1,032 bytes at hand (glibc's per-thread cache).
    #[test]
    fn a_text_is_small() {
        assert!(size_of::<Text>() <= 32);
    }

    #[test]
    fn texts_of_all_lengths_are_what_they_were_made_from() {
        let texts: Vec<_> = (0..300).map(|length| format!("{}ü", "a".repeat(length))).chain([String::new()]).collect();
        let all: HashSet<Text> = texts.iter().map(|text| Text::from(text.as_str())).collect();
        assert_eq!(all.len(), texts.len());
        for text in &texts {
            let found = all.get(text.as_str()).unwrap();
            assert_eq!(
                (&**found, found.as_bytes(), format!("{found:?}")),
                (text.as_str(), text.as_bytes(), format!("{text:?}"))
            );
            let later = Text::from(format!("{text}b").as_str());
            assert!(*found == found.clone() && *found != later && *found < later);
        }
    }
}
