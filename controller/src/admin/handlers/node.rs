//! The node as a whole.

use super::{Answer, await_disk, existing_network};
use crate::admin::problem::Problem;
use crate::admin::resource::{
    Applied, AppliedNetwork, NetworkStatusResource, NodeResource, Outcome, UpgradedNetwork, UpgradedNode,
};
use crate::admin::{Context, body};
use crate::model::{DesiredState, Model, Name, Network, Shared};
use crate::reconcile::NetworkStatus;
use crate::source::api::{check_namespaces, new_attachments};
use crate::source::status::SharedStatus;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::future::join_all;
use ringlb_proxy::control::memory;
use ringlb_proxy::control::settings::DrainTimeout;
use serde::Deserialize;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a network's task or its proxy may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

pub(in crate::admin) async fn apply(State(context): State<Context>, headers: HeaderMap, body: Body) -> Answer {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let answer = replace(&context, &headers, body).await;
    // The text, what was read of it, and the state before: all of it is gone now.
    if length.is_none_or(|length| length > memory::LARGE) {
        memory::give_back();
    }
    answer
}

async fn replace(context: &Context, headers: &HeaderMap, body: Body) -> Answer {
    let began = Instant::now();
    let state: DesiredState = body::state(headers, body).await?;
    if !context.ready.load(Ordering::Relaxed) {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting or shutting down"));
    }
    let model = context.desired.model();
    if let Err(missing) = check_namespaces(new_attachments(&model, &state)) {
        // What is wrong with the state itself is told first.
        model.desired(&state)?;
        return Err(missing.into());
    }
    let mut taken = context.desired.replace(&state)?;
    let settled =
        std::mem::take(&mut taken.receipts).into_iter().map(async |(name, receipt)| (name, receipt.settled().await));
    let mut networks = Vec::new();
    let mut unsettled = Vec::new();
    for (name, result) in join_all(settled).await {
        match result {
            Ok(generation) => {
                let outcome = outcome(&taken.before, &taken.after, &name);
                let generation = (outcome != Outcome::Removed).then_some(generation);
                networks.push(AppliedNetwork { name: name.to_string(), outcome, generation });
            }
            Err(error) => unsettled.push(error),
        }
    }
    if !unsettled.is_empty() {
        return Err(Problem::unsettled(&unsettled));
    }
    await_disk(&mut taken).await?;
    let acknowledged_in_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(Json(Applied { acknowledged_in_us, networks }).into_response())
}

/// What is to be upgraded.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UpgradeSpec {
    /// This network only.
    network: Option<String>,
    /// How long the proxies that are replaced keep their connections.
    drain_timeout: Option<DrainTimeout>,
}

/// Replaces the proxies of all networks at the same time, or that of one.
pub(in crate::admin) async fn upgrade(State(context): State<Context>, headers: HeaderMap, body: Body) -> Answer {
    let UpgradeSpec { network, drain_timeout } = body::json_or_default(&headers, body, "").await?;
    if !context.ready.load(Ordering::Relaxed) {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting or shutting down"));
    }
    let model = context.desired.model();
    let names: Vec<_> = match network {
        Some(network) => vec![existing_network(&model, &network)?.name().clone()],
        None => model.networks().keys().cloned().collect(),
    };
    let drain = drain_timeout.and_then(|DrainTimeout(drain)| drain);
    let reconcilers = context.desired.reconcilers();
    let upgrades = names.iter().map(async |name| (name, reconcilers.upgrade(name, drain).await));
    let (mut networks, mut failed) = (Vec::new(), Vec::new());
    for (name, upgraded) in join_all(upgrades).await {
        match upgraded {
            Ok(upgraded) => networks.push(UpgradedNetwork { name: name.to_string(), upgraded }),
            Err(error) => failed.push(error),
        }
    }
    if failed.is_empty() { Ok(Json(UpgradedNode { networks }).into_response()) } else { Err(Problem::failed(&failed)) }
}

/// What is made here, with all addresses that were chosen.
pub(in crate::admin) async fn export(State(context): State<Context>) -> Answer {
    Ok(Json(context.desired.model().keep().state).into_response())
}

pub(in crate::admin) async fn status(State(context): State<Context>) -> Answer {
    let model = context.desired.model();
    let networks = join_all(model.networks().values().map(|network| network_status(&context, network))).await;
    let ready = context.ready.load(Ordering::Relaxed);
    let sources = context.sources.iter().map(SharedStatus::get).collect();
    let node =
        NodeResource { version: env!("CARGO_PKG_VERSION"), daemon_pid: std::process::id(), ready, sources, networks };
    Ok(Json(node).into_response())
}

pub(in crate::admin) async fn health() -> Answer {
    Ok(Json(json!({ "alive": true })).into_response())
}

pub(in crate::admin) async fn ready(State(context): State<Context>) -> Answer {
    if context.ready.load(Ordering::Relaxed) {
        Ok(Json(json!({ "ready": true })).into_response())
    } else {
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting or shutting down"))
    }
}

fn outcome(before: &Model, after: &Model, name: &Name) -> Outcome {
    match (before.network(name), after.network(name)) {
        (None, _) => Outcome::Created,
        (Some(_), None) => Outcome::Removed,
        (Some(before), Some(after)) if before == after => Outcome::Unchanged,
        (Some(_), Some(_)) => Outcome::Changed,
    }
}

async fn network_status(context: &Context, network: &Shared<Network>) -> NetworkStatusResource {
    let asked = timeout(STATUS_TIMEOUT, context.desired.reconcilers().status(network.name())).await;
    let Ok(Some((mut status, statistics))) = asked else {
        let error = Some("the network is being made or removed".to_owned());
        let status = NetworkStatus { error, ..NetworkStatus::default() };
        return NetworkStatusResource::new(network, status, None);
    };
    let statistics = match timeout(STATUS_TIMEOUT, statistics).await {
        Ok(statistics) => statistics.ok(),
        Err(_) => {
            status.error.get_or_insert_with(|| "the proxy does not answer".to_owned());
            None
        }
    };
    NetworkStatusResource::new(network, status, statistics)
}
