//! What holds for every name and body that a request of the API may have.

use super::model::{check_model, check_problem, content};
use ringlb::model::document::parse_address;
use ringlb::model::{
    AttachmentSpec, BackendChange, BackendSpec, Change, Model, NetworkSpec, ServiceChange, ServiceSpec,
};
use ringlb::source::api::{Format, read};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Takes the first line of `input` as a name, the rest as the body of each kind of request in turn. Whether one of them
/// would be made true. Panics if anything does not hold.
pub(crate) fn check(input: &[u8]) -> bool {
    let line = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (Ok(name), body) = (std::str::from_utf8(&input[..line]), input.get(line + 1..).unwrap_or_default()) else {
        return false;
    };
    let before = existing();
    let make = |network: &str, change: &Change| made(&before, network, change);
    let on_web = |change| make("web", &change);
    let service = |change| Change::Service { service: name.to_owned(), change };

    let network = read_spec::<NetworkSpec>(body).map(Change::PutNetwork);
    let attachment = |spec| Change::PutAttachment { attachment: name.to_owned(), spec };
    let attachment = read_spec::<AttachmentSpec>(body).map(attachment);
    let named_service = or_default::<ServiceSpec>(body).map(|spec| service(ServiceChange::Put(Box::new(spec))));
    let backend = parse_address(name).ok().zip(or_default::<BackendSpec>(body)).map(|(address, spec)| {
        let change = ServiceChange::Backend { address, change: BackendChange::Put(spec) };
        Change::Service { service: "api".to_owned(), change }
    });
    let results = [
        network.is_some_and(|change| make(name, &change)),
        attachment.is_some_and(on_web),
        named_service.is_some_and(on_web),
        backend.is_some_and(on_web),
        // Requests without a body of their own.
        on_web(Change::RemoveAttachment { attachment: name.to_owned() }),
        on_web(service(ServiceChange::Remove)),
        make(name, &Change::RemoveNetwork { remove_lb: true }),
    ];
    results.contains(&true)
}

/// A network with something of everything, so that names and addresses of a request can meet others.
fn existing() -> Model {
    let spec = |text: &str| serde_json::from_str(text).ok();
    let changes = [
        ("web", spec(r#"{"subnet":"10.1.0.0/24"}"#).map(Change::PutNetwork)),
        ("db", spec(r#"{"subnet":"10.2.0.0/29"}"#).map(Change::PutNetwork)),
        ("web", attachment("c1", r#"{"netns":"/run/netns/c1","ip":"10.1.0.9"}"#)),
        ("web", put_service("api", r#"{"vip":"10.1.0.200","backends":[{"ip":"10.1.0.9","weight":3}]}"#)),
        ("web", put_service("queue", r#"{"algorithm":"maglev","drain_timeout":"never"}"#)),
    ];
    changes.into_iter().fold(Model::default(), |model, (network, change)| {
        let change = change.unwrap_or_else(|| panic!("a document of this file is not understood"));
        model.change(network, &change).unwrap_or_else(|rejection| panic!("{rejection}"))
    })
}

fn attachment(name: &str, spec: &str) -> Option<Change> {
    Some(Change::PutAttachment { attachment: name.to_owned(), spec: serde_json::from_str(spec).ok()? })
}

fn put_service(name: &str, spec: &str) -> Option<Change> {
    let change = ServiceChange::Put(serde_json::from_str(spec).ok()?);
    Some(Change::Service { service: name.to_owned(), change })
}

/// Reads a body; what is understood means the same when it is written and read again.
fn read_spec<T>(body: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let spec: T = read(body, Format::Json, "networks.web").map_err(check_problem).ok()?;
    let text = serde_json::to_vec(&spec).unwrap_or_else(|error| panic!("{error}: {spec:?}"));
    assert_eq!(read::<T>(&text, Format::Json, "").ok().as_ref(), Some(&spec));
    Some(spec)
}

/// As the API reads the bodies that may be empty.
fn or_default<T>(body: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + Default,
{
    if body.is_empty() { Some(T::default()) } else { read_spec(body) }
}

/// Whether the change is taken. One that is taken leads to the same again when it is made again, unless it took something
/// away; one that is refused has changed nothing.
fn made(before: &Model, network: &str, change: &Change) -> bool {
    let content_before = content(before);
    let result = before.change(network, change);
    assert_eq!(content(before), content_before, "the old model has changed");
    match result {
        Ok(model) => {
            check_model(&model);
            match model.change(network, change) {
                Ok(again) => assert_eq!(content(&again), content(&model), "{change:?} twice"),
                Err(rejection) => assert!(is_removal(change), "{change:?} twice: {rejection}"),
            }
            true
        }
        Err(rejection) => {
            check_problem(rejection);
            false
        }
    }
}

fn is_removal(change: &Change) -> bool {
    matches!(
        change,
        Change::RemoveNetwork { .. }
            | Change::RemoveAttachment { .. }
            | Change::Service { change: ServiceChange::Remove, .. }
    )
}
