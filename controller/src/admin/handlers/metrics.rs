//! The metrics.

use super::Answer;
use crate::admin::metrics::{CONTENT_TYPE, Metrics, MetricsError};
use crate::admin::problem::Problem;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

pub(in crate::admin) async fn show(State(metrics): State<Metrics>) -> Answer {
    match metrics.text().await {
        Ok(text) => Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()),
        Err(error) => {
            let status = match error {
                MetricsError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
                MetricsError::Text(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Err(Problem::new(status, error.to_string()))
        }
    }
}
