//! Attachments.

use super::{Answer, Mutation, Names, existing_network, vanished};
use crate::admin::resource::{AttachmentResource, Resource};
use crate::admin::{Context, body};
use crate::model::{AttachmentSpec, Change, Rejection};
use crate::source::api::check_namespaces;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;

pub(in crate::admin) async fn list(State(context): State<Context>, Names(network): Names<String>) -> Answer {
    let model = context.desired.model();
    let attachments = existing_network(&model, &network)?.attachments().values();
    let attachments: Vec<_> = attachments.map(|attachment| AttachmentResource::from(&**attachment)).collect();
    Ok(Json(attachments).into_response())
}

pub(in crate::admin) async fn show(
    State(context): State<Context>,
    Names((network, attachment)): Names<(String, String)>,
) -> Answer {
    let model = context.desired.model();
    let shown = existing_network(&model, &network)?
        .attachments()
        .get(attachment.as_str())
        .ok_or_else(|| Rejection::not_found(format!("networks.{network}.attachments.{attachment}")))?;
    Ok(Json(AttachmentResource::from(&**shown)).into_response())
}

pub(in crate::admin) async fn put(
    State(context): State<Context>,
    Names((network, attachment)): Names<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let mutation = Mutation::begin(&context, &network);
    let place = format!("networks.{network}.attachments.{attachment}");
    let spec: AttachmentSpec = body::json(&headers, body, &place).await?;
    check(&context, &network, &attachment, &spec)?;
    let change = Change::PutAttachment { attachment: attachment.clone(), spec };
    let (taken, generation) = mutation.make(&change).await?;
    let find = |model: &crate::model::Model| model.network(&network)?.attachments().get(attachment.as_str()).cloned();
    let existed = find(&taken.before).is_some();
    let resource = AttachmentResource::from(&*find(&taken.after).ok_or_else(vanished)?);
    Ok(mutation.changed(existed, generation, Resource::Attachment(resource)))
}

pub(in crate::admin) async fn remove(
    State(context): State<Context>,
    Names((network, attachment)): Names<(String, String)>,
) -> Answer {
    let mutation = Mutation::begin(&context, &network);
    let (_, generation) = mutation.make(&Change::RemoveAttachment { attachment }).await?;
    Ok(mutation.removed(generation))
}

/// First whether the change could be made at all, so that the first thing that is wrong is named first.
fn check(context: &Context, network: &str, attachment: &str, spec: &AttachmentSpec) -> Result<(), Rejection> {
    let model = context.desired.model();
    let change = Change::PutAttachment { attachment: attachment.to_owned(), spec: spec.clone() };
    model.change(network, &change)?;
    check_namespaces([(network, attachment, spec.netns.as_str())])
}
