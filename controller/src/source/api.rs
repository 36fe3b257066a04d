//! Wishes out of the bodies of API calls.

use crate::model::document::AttachmentDocument;
use crate::model::limits::MAX_ERRORS;
use crate::model::{DesiredState, FieldError, Model, Rejection, shortened};
use ringlb_netns::Namespace;
use serde::de::DeserializeOwned;
use std::path::Path;
use thiserror::Error;

/// The form of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON (RFC 8259).
    Json,
    /// YAML 1.2.
    Yaml,
}

/// Why a body is not the document that it should be.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It is not in the format at all.
    #[error("{0}")]
    Malformed(String),
    /// It has other fields or values than it should.
    #[error("{0}")]
    Field(FieldError),
}

/// Reads a document. `place` is where it belongs in the whole state; it is put before the field in an error.
///
/// # Errors
/// Any [`ReadError`].
pub fn read<T: DeserializeOwned>(body: &[u8], format: Format, place: &str) -> Result<T, ReadError> {
    match format {
        Format::Json => read_json(body, place),
        // By way of a value, as only so both formats name fields the same way.
        Format::Yaml => {
            let text = std::str::from_utf8(body).map_err(|error| malformed("UTF-8", &error))?;
            let value: serde_json::Value =
                serde_saphyr::from_str_with_options(text, yaml_options()).map_err(|error| malformed("YAML", &error))?;
            serde_path_to_error::deserialize(value).map_err(|error| field_error(&error, place))
        }
    }
}

/// Checks that the namespaces of attachments are there: a wrong path is a mistake to be told of at once. Attachments are
/// given by network, name and path.
///
/// # Errors
/// The attachments whose namespace is not there.
pub fn check_namespaces<'a>(
    attachments: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>,
) -> Result<(), Rejection> {
    let mut wrong = attachments.into_iter().filter_map(|(network, name, netns)| {
        let reason = Namespace::open_path(Path::new(netns)).err()?.to_string();
        Some(Rejection::invalid(format!("networks.{network}.attachments.{name}.netns"), reason))
    });
    let Some(mut first) = wrong.next() else { return Ok(()) };
    first.errors.extend(wrong.take(MAX_ERRORS - 1).flat_map(|rejection| rejection.errors));
    Err(first)
}

/// The attachments of a desired state that `model` does not have, as [`check_namespaces`] takes them. That the namespace
/// of one that is there vanishes later is no mistake in a state.
pub fn new_attachments<'a>(
    model: &'a Model,
    state: &'a DesiredState,
) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
    let is_new = |network: &str, attachment: &AttachmentDocument| {
        let known = model.network(network).and_then(|network| network.attachments().get(attachment.name.as_str()));
        known.is_none_or(|known| known.netns != attachment.netns)
    };
    state.networks.iter().flat_map(move |network| {
        let added = network.attachments.iter().filter(move |attachment| is_new(&network.name, attachment));
        added.map(|attachment| (network.name.as_str(), attachment.name.as_str(), attachment.netns.as_str()))
    })
}

/// What aliases stand for may be this many nodes in all: enough for any state that somebody writes, and read in a moment. A
/// few lines of aliases to aliases would otherwise keep the daemon busy for seconds.
const MAX_ALIASED: usize = 100_000;

fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! { alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIASED } }
}

fn read_json<T: DeserializeOwned>(body: &[u8], place: &str) -> Result<T, ReadError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        if error.inner().is_data() { field_error(&error, place) } else { malformed("JSON", error.inner()) }
    })?;
    deserializer.end().map_err(|error| malformed("JSON", &error))?;
    Ok(value)
}

fn malformed(format: &str, error: &dyn std::fmt::Display) -> ReadError {
    ReadError::Malformed(shortened(format!("not {format}: {error}")))
}

fn field_error(error: &serde_path_to_error::Error<serde_json::Error>, place: &str) -> ReadError {
    let path = error.path().to_string();
    let field = match (place, path.as_str()) {
        // A field without a name is named by what it is in.
        ("", "." | "?" | "") => "(document)".to_owned(),
        ("", path) => path.to_owned(),
        (place, "." | "?" | "") => place.to_owned(),
        (place, path) => format!("{place}.{path}"),
    };
    let reason = error.inner().to_string();
    // Where it is in the text is said by the field.
    let reason = reason.split_once(" at line ").map_or(reason.as_str(), |(reason, _)| reason);
    ReadError::Field(FieldError::new(field, reason))
}
