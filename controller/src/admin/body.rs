//! The reading of bodies.

use super::problem::Problem;
use crate::model::limits::{MAX_BODY, MAX_STATE};
use crate::source::api::{Format, read};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long a body may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the body of a request as a JSON document. See [`read`] for `place`.
pub(super) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body, place: &str) -> Result<T, Problem> {
    format(headers, &[Format::Json])?;
    let body = collect(headers, body, MAX_BODY).await?;
    if body.is_empty() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the body is empty, a JSON document is needed"));
    }
    Ok(read(&body, Format::Json, place)?)
}

/// As [`json`], with the default for an empty body.
pub(super) async fn json_or_default<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Body,
    place: &str,
) -> Result<T, Problem> {
    format(headers, &[Format::Json])?;
    let body = collect(headers, body, MAX_BODY).await?;
    if body.is_empty() { Ok(T::default()) } else { Ok(read(&body, Format::Json, place)?) }
}

/// Reads the body of a request as a state document, in JSON or YAML.
pub(super) async fn state<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let format = format(headers, &[Format::Json, Format::Yaml])?;
    let body = collect(headers, body, MAX_STATE).await?;
    Ok(read(&body, format, "")?)
}

/// JSON if nothing is said.
fn format(headers: &HeaderMap, accepted: &[Format]) -> Result<Format, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Format::Json) };
    let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let format = match media_type.to_ascii_lowercase().as_str() {
        "application/json" => Some(Format::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Some(Format::Yaml),
        _ => None,
    };
    format.filter(|format| accepted.contains(format)).ok_or_else(|| {
        let yaml = if accepted.contains(&Format::Yaml) { " or application/yaml" } else { "" };
        let detail = format!("{media_type:.80?} cannot be read here, send application/json{yaml}");
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    })
}

/// A body that says that it is too large is not read at all; one that does not say it, up to the limit.
async fn collect(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    match tokio::time::timeout(TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(error)) => Err(Problem::new(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}"))),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the body took longer than {TIMEOUT:?}"))),
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body may have {limit} bytes at most"))
}
