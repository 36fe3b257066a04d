//! What each route does.

pub(super) mod attachment;
pub(super) mod backend;
pub(super) mod metrics;
pub(super) mod network;
pub(super) mod node;
pub(super) mod service;

use super::Context;
use super::problem::Problem;
use super::resource::{Changed, Removed, Resource};
use crate::model::{Change, Generation, Model, Network, Rejection, Shared};
use crate::source::Taken;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use std::sync::atomic::Ordering;
use std::time::Instant;

pub(super) type Answer = Result<Response, Problem>;

/// The names in a request's path.
pub(super) struct Names<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let malformed = |error: PathRejection| Problem::new(StatusCode::BAD_REQUEST, error.body_text());
        Path::from_request_parts(parts, state).await.map(|Path(names)| Self(names)).map_err(malformed)
    }
}

/// A change of one network on its way.
struct Mutation<'a> {
    context: &'a Context,
    network: &'a str,
    began: Instant,
}

impl<'a> Mutation<'a> {
    fn begin(context: &'a Context, network: &'a str) -> Self {
        Self { context, network, began: Instant::now() }
    }

    /// Makes the change and waits until it is in effect.
    async fn make(&self, change: &Change) -> Result<(Taken, Generation), Problem> {
        if !self.context.ready.load(Ordering::Relaxed) {
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting or shutting down"));
        }
        let mut taken = self.context.desired.change(self.network, change)?;
        let mut generation = 0;
        for (_, receipt) in std::mem::take(&mut taken.receipts) {
            generation = receipt.settled().await.map_err(|unsettled| Problem::unsettled(&[unsettled]))?;
        }
        await_disk(&mut taken).await?;
        Ok((taken, generation))
    }

    /// The answer of a change that leaves a resource.
    fn changed(&self, existed: bool, generation: Generation, resource: Resource) -> Response {
        let acknowledged_in_us = self.microseconds();
        let status = if existed { StatusCode::OK } else { StatusCode::CREATED };
        (status, Json(Changed { generation, acknowledged_in_us, resource })).into_response()
    }

    /// The answer of a change that leaves nothing.
    fn removed(&self, generation: Generation) -> Response {
        Json(Removed { generation, acknowledged_in_us: self.microseconds() }).into_response()
    }

    fn microseconds(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Waits until what was taken is kept for the next daemon. The proxies have been told meanwhile.
async fn await_disk(taken: &mut Taken) -> Result<(), Problem> {
    match taken.durable.take() {
        Some(durable) => durable.reached().await.map_err(Problem::from),
        None => Ok(()),
    }
}

fn existing_network<'a>(model: &'a Model, network: &str) -> Result<&'a Shared<Network>, Rejection> {
    model.network(network).ok_or_else(|| Rejection::not_found(format!("networks.{network}")))
}

/// The state after a change has what the change put there.
fn vanished() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "what was changed is not there after the change")
}
