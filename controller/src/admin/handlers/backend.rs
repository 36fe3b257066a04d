//! Backends.

use super::service::existing;
use super::{Answer, Mutation, Names, vanished};
use crate::admin::problem::Problem;
use crate::admin::resource::{BackendResource, Resource};
use crate::admin::{Context, body};
use crate::model::document::parse_address;
use crate::model::{BackendChange, Change, Model, Rejection, ServiceChange};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;

/// A backend's place in the path.
type Place = (String, String, String);

pub(in crate::admin) async fn show(State(context): State<Context>, Names(place): Names<Place>) -> Answer {
    let address = address(&place)?;
    let model = context.desired.model();
    Ok(Json(existing_backend(&model, &place, address)?).into_response())
}

pub(in crate::admin) async fn put(
    State(context): State<Context>,
    Names(place): Names<Place>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let mutation = Mutation::begin(&context, &place.0);
    let address = address(&place)?;
    let spec = body::json_or_default(&headers, body, &field(&place)).await?;
    make(&mutation, &place, address, BackendChange::Put(spec)).await
}

pub(in crate::admin) async fn drain(State(context): State<Context>, Names(place): Names<Place>) -> Answer {
    let mutation = Mutation::begin(&context, &place.0);
    make(&mutation, &place, address(&place)?, BackendChange::Drain).await
}

pub(in crate::admin) async fn remove(State(context): State<Context>, Names(place): Names<Place>) -> Answer {
    let mutation = Mutation::begin(&context, &place.0);
    let (_, generation) = mutation.make(&change(&place, address(&place)?, BackendChange::Remove)).await?;
    Ok(mutation.removed(generation))
}

async fn make(
    mutation: &Mutation<'_>,
    place: &Place,
    address: IpAddr,
    backend: BackendChange,
) -> Result<Response, Problem> {
    let (taken, generation) = mutation.make(&change(place, address, backend)).await?;
    let existed = existing_backend(&taken.before, place, address).is_ok();
    let resource = existing_backend(&taken.after, place, address).map_err(|_| vanished())?;
    Ok(mutation.changed(existed, generation, Resource::Backend(resource)))
}

fn change((_, service, _): &Place, address: IpAddr, change: BackendChange) -> Change {
    Change::Service { service: service.clone(), change: ServiceChange::Backend { address, change } }
}

fn address(place: &Place) -> Result<IpAddr, Rejection> {
    parse_address(&place.2).map_err(|reason| Rejection::invalid(field(place), reason))
}

fn existing_backend(model: &Model, place: &Place, address: IpAddr) -> Result<BackendResource, Rejection> {
    let service = existing(model, &place.0, &place.1)?;
    let backend = service.backends.get(&address).ok_or_else(|| Rejection::not_found(field(place)))?;
    Ok(BackendResource::new(address, *backend))
}

fn field((network, service, address): &Place) -> String {
    format!("networks.{network}.services.{service}.backends.{address}")
}
