//! Problem documents (RFC 9457).

use crate::model::{FieldError, Rejection, RejectionKind};
use crate::reconcile::Unsettled;
use crate::source::api::ReadError;
use crate::source::{DiskError, WishError};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which kind of problem it is: `urn:ringlb:problem:` and a word.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in plain language.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The fields that are wrong, or the networks that have not got there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem of its status's own kind.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = match status {
            StatusCode::BAD_REQUEST => "The request is malformed",
            StatusCode::UNAUTHORIZED => "A bearer token is needed",
            StatusCode::NOT_FOUND => "It does not exist",
            StatusCode::METHOD_NOT_ALLOWED => "The method is not allowed here",
            StatusCode::REQUEST_TIMEOUT => "The body did not arrive in time",
            StatusCode::CONFLICT => "It does not go with what is there",
            StatusCode::MISDIRECTED_REQUEST => "The request is for another host",
            StatusCode::PAYLOAD_TOO_LARGE => "The body is too large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "The body's type is not supported",
            StatusCode::UNPROCESSABLE_ENTITY => "A field is invalid",
            StatusCode::SERVICE_UNAVAILABLE => "It is not as it should be yet",
            StatusCode::INSUFFICIENT_STORAGE => "The state cannot be written",
            StatusCode::GATEWAY_TIMEOUT => "A proxy has not acknowledged in time",
            _ => "Something went wrong",
        };
        let word = status.canonical_reason().unwrap_or("error").to_ascii_lowercase().replace(' ', "-");
        let kind = format!("urn:ringlb:problem:{word}");
        Self { kind, title: title.to_owned(), status: status.as_u16(), detail: detail.into(), errors: Vec::new() }
    }

    /// With the fields that are wrong.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// The problem of networks that have not become what they should be. What should be stays, so this is no refusal.
    #[must_use]
    pub fn unsettled(all: &[Unsettled]) -> Self {
        let status = match all {
            [Unsettled::Removed { .. }, ..] => StatusCode::CONFLICT,
            all if all.iter().any(|one| matches!(one, Unsettled::Late { .. })) => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let kept = match status {
            StatusCode::CONFLICT => "",
            _ => "; the change is kept and will be made as soon as it can be",
        };
        Self::of_networks(status, all, kept)
    }

    /// The problem of networks with which something has failed that is not tried again.
    #[must_use]
    pub fn failed(all: &[Unsettled]) -> Self {
        Self::of_networks(StatusCode::SERVICE_UNAVAILABLE, all, "")
    }

    fn of_networks(status: StatusCode, all: &[Unsettled], kept: &str) -> Self {
        let details: Vec<_> = all.iter().map(ToString::to_string).collect();
        let errors = all.iter().filter_map(|one| {
            Some(FieldError { field: format!("networks.{}", one.network()?), reason: one.to_string() })
        });
        let errors = errors.collect();
        Self::new(status, format!("{}{kept}", details.join("; "))).with_errors(errors)
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let status = match rejection.kind {
            RejectionKind::NotFound => StatusCode::NOT_FOUND,
            RejectionKind::Conflict => StatusCode::CONFLICT,
            RejectionKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, rejection.to_string()).with_errors(rejection.errors)
    }
}

impl From<WishError> for Problem {
    fn from(error: WishError) -> Self {
        match error {
            WishError::Rejected(rejection) => rejection.into(),
            WishError::Journal(_) => {
                tracing::error!("{error}");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
        }
    }
}

impl From<DiskError> for Problem {
    fn from(error: DiskError) -> Self {
        let detail = format!("the change is made, but not kept for the next daemon: {error}; make it again");
        Self::new(StatusCode::INSUFFICIENT_STORAGE, detail)
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Malformed(reason) => Self::new(StatusCode::BAD_REQUEST, format!("the body is {reason}")),
            ReadError::Field(error) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).with_errors(vec![error])
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}
