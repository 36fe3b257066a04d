//! Why a change is refused.

use super::limits::MAX_ERRORS;
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// One field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Where, such as `networks.web.services.api.vip`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl FieldError {
    /// An error. What somebody sent may be repeated in it, but not at any length.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: shortened(field.into()), reason: shortened(reason.into()) }
    }
}

/// At most 500 characters of `text`.
pub(crate) fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(500) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.reason)
    }
}

/// The kind of a [`Rejection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionKind {
    /// Something that the change is about does not exist.
    NotFound,
    /// The change is well formed but does not go with what is there.
    Conflict,
    /// A value is wrong whatever is there.
    Invalid,
}

/// A refused change. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Rejection {
    /// What kind of refusal it is: that of the first error.
    pub kind: RejectionKind,
    /// What is wrong; at least one entry, at most [`MAX_ERRORS`].
    pub errors: Vec<FieldError>,
}

impl Rejection {
    /// A refusal because of one field.
    pub fn new(kind: RejectionKind, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { kind, errors: vec![FieldError::new(field, reason)] }
    }

    /// Something that is not there.
    pub fn not_found(field: impl Into<String>) -> Self {
        Self::new(RejectionKind::NotFound, field, "does not exist")
    }

    /// A change that does not go with what is there.
    pub fn conflict(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(RejectionKind::Conflict, field, reason)
    }

    /// A wrong value.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(RejectionKind::Invalid, field, reason)
    }
}

/// Gathers the errors of one document, so that its author sees them all at once.
#[derive(Debug, Default)]
pub(super) struct Rejections(Option<Rejection>);

impl Rejections {
    /// Notes an error; gives the value if there is none.
    pub(super) fn note<T>(&mut self, result: Result<T, Rejection>) -> Option<T> {
        match (result, &mut self.0) {
            (Ok(value), _) => return Some(value),
            (Err(rejection), Some(all)) => all.errors.extend(rejection.errors),
            (Err(rejection), none) => *none = Some(rejection),
        }
        if let Some(all) = &mut self.0 {
            all.errors.truncate(MAX_ERRORS);
        }
        None
    }

    /// Whether more errors would be dropped.
    pub(super) fn is_full(&self) -> bool {
        self.0.as_ref().is_some_and(|all| all.errors.len() >= MAX_ERRORS)
    }

    /// `value` if no error was noted.
    pub(super) fn or<T>(self, value: T) -> Result<T, Rejection> {
        self.0.map_or(Ok(value), Err)
    }
}
