//! The HTTP API.
//!
//! Over the admin socket, a file that only its owner can open, everything is allowed. Over TCP everything but
//! `/healthz` and `/readyz` needs the bearer token, reading included: what runs where is nobody else's business.

pub mod auth;
mod body;
mod handlers;
mod openapi;
pub mod problem;
pub mod resource;
mod router;
pub mod server;

pub use router::{ROUTES, Route, router};

use crate::source::Desired;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct Context {
    /// What should be.
    pub desired: Arc<Desired>,
    /// Whether the daemon takes changes: not before it is up, nor when it is about to end.
    pub ready: Arc<AtomicBool>,
}
