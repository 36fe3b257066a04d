//! The description of the API.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// OpenAPI 3.1. A test compares it with the routes and with real answers.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn show() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
