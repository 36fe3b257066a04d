//! Networks.

use super::{Answer, Mutation, Names, existing_network, vanished};
use crate::admin::problem::Problem;
use crate::admin::resource::{NetworkResource, Resource};
use crate::admin::{Context, body};
use crate::model::Change;
use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;

pub(in crate::admin) async fn list(State(context): State<Context>) -> Answer {
    let model = context.desired.model();
    let networks: Vec<_> = model.networks().values().map(|network| NetworkResource::from(&**network)).collect();
    Ok(Json(networks).into_response())
}

pub(in crate::admin) async fn show(State(context): State<Context>, Names(network): Names<String>) -> Answer {
    let model = context.desired.model();
    Ok(Json(NetworkResource::from(&**existing_network(&model, &network)?)).into_response())
}

pub(in crate::admin) async fn put(
    State(context): State<Context>,
    Names(network): Names<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let mutation = Mutation::begin(&context, &network);
    let spec = body::json(&headers, body, &format!("networks.{network}")).await?;
    let (taken, generation) = mutation.make(&Change::PutNetwork(spec)).await?;
    let existed = taken.before.network(&network).is_some();
    let resource = NetworkResource::from(&**taken.after.network(&network).ok_or_else(vanished)?);
    Ok(mutation.changed(existed, generation, Resource::Network(resource)))
}

pub(in crate::admin) async fn remove(
    State(context): State<Context>,
    Names(network): Names<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let mutation = Mutation::begin(&context, &network);
    let remove_lb = match query.as_deref() {
        None | Some("" | "remove_lb=false") => false,
        Some("remove_lb=true") => true,
        Some(other) => {
            let detail = format!("{other:.80?} is not a query of this: `remove_lb=true` or `remove_lb=false` is");
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
    };
    let (_, generation) = mutation.make(&Change::RemoveNetwork { remove_lb }).await?;
    Ok(mutation.removed(generation))
}
