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
    let missing = check_namespaces([(&*network, &*attachment, &*spec.netns)]);
    let change = Change::PutAttachment { attachment: attachment.clone(), spec };
    if let Err(missing) = missing {
        // What is wrong with the change itself is told first.
        context.desired.model().change(&network, &change)?;
        return Err(missing.into());
    }
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
