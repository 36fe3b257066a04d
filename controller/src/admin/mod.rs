//! The HTTP API.
//!
//! Over the admin socket, a file that only its owner can open, everything is allowed. Over TCP everything but
//! `/healthz` and `/readyz` needs the bearer token, reading included: what runs where is nobody else's business. The listener for scrapers, which has `/metrics` and
//! `/healthz` only, needs no token: whoever opens it means it to be read.

pub mod auth;
mod body;
mod handlers;
pub mod host;
pub mod metrics;
mod openapi;
pub mod problem;
pub mod resource;
mod router;
pub mod server;

pub use router::{ROUTES, Route, guarded_router, router};

use crate::source::Desired;
use crate::source::status::SharedStatus;
use axum::extract::FromRef;
use metrics::Metrics;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct Context {
    /// What should be.
    pub desired: Arc<Desired>,
    /// The sources besides the API.
    pub sources: Arc<[SharedStatus]>,
    /// Whether the daemon takes changes: not before it is up, nor when it is about to end.
    pub ready: Arc<AtomicBool>,
    /// What can be scraped.
    pub metrics: Metrics,
}

impl FromRef<Context> for Metrics {
    fn from_ref(context: &Context) -> Self {
        context.metrics.clone()
    }
}
