//! Services.

use super::{Answer, Mutation, Names, existing_network, vanished};
use crate::admin::resource::{Resource, ServiceResource};
use crate::admin::{Context, body};
use crate::model::{Change, Model, Rejection, Service, ServiceChange, Shared};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;

pub(in crate::admin) async fn list(State(context): State<Context>, Names(network): Names<String>) -> Answer {
    let model = context.desired.model();
    let services = existing_network(&model, &network)?.services().in_order();
    let services: Vec<_> = services.map(|service| ServiceResource::from(&**service)).collect();
    Ok(Json(services).into_response())
}

pub(in crate::admin) async fn show(
    State(context): State<Context>,
    Names((network, service)): Names<(String, String)>,
) -> Answer {
    let model = context.desired.model();
    Ok(Json(ServiceResource::from(&**existing(&model, &network, &service)?)).into_response())
}

pub(in crate::admin) async fn put(
    State(context): State<Context>,
    Names((network, service)): Names<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let mutation = Mutation::begin(&context, &network);
    let spec = body::json_or_default(&headers, body, &format!("networks.{network}.services.{service}")).await?;
    let change = Change::Service { service: service.clone(), change: ServiceChange::Put(Box::new(spec)) };
    let (taken, generation) = mutation.make(&change).await?;
    let existed = existing(&taken.before, &network, &service).is_ok();
    let resource = ServiceResource::from(&**existing(&taken.after, &network, &service).map_err(|_| vanished())?);
    Ok(mutation.changed(existed, generation, Resource::Service(Box::new(resource))))
}

pub(in crate::admin) async fn remove(
    State(context): State<Context>,
    Names((network, service)): Names<(String, String)>,
) -> Answer {
    let mutation = Mutation::begin(&context, &network);
    let (_, generation) = mutation.make(&Change::Service { service, change: ServiceChange::Remove }).await?;
    Ok(mutation.removed(generation))
}

pub(super) fn existing<'a>(model: &'a Model, network: &str, service: &str) -> Result<&'a Shared<Service>, Rejection> {
    existing_network(model, network)?
        .services()
        .get(service)
        .ok_or_else(|| Rejection::not_found(format!("networks.{network}.services.{service}")))
}
