//! From a service's labels to what is set for it.

use crate::model::Weight;
use ringlb_proxy::control::message::ServiceSettings;
use ringlb_proxy::control::settings::{DrainPolicy, EjectionBase, Retries, RetryPercent};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// What all of the labels begin with.
const PREFIX: &str = "ringlb.";

/// What the labels of a service say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labels {
    /// Whether the service is to be served at all.
    pub(super) enabled: bool,
    /// The weight of each of its backends.
    pub(super) weight: Weight,
    /// Its settings.
    pub(super) settings: ServiceSettings,
    /// The labels that are not valid, and why. Without them the rest is as it would be.
    pub(super) invalid: Vec<(String, String)>,
}

impl Default for Labels {
    fn default() -> Self {
        read(&BTreeMap::new())
    }
}

/// Takes the labels that are ringlb's.
pub(super) fn read(labels: &BTreeMap<String, String>) -> Labels {
    let mut read =
        Labels { enabled: true, weight: Weight::default(), settings: ServiceSettings::default(), invalid: Vec::new() };
    let mut settings = Vec::new();
    for (label, value) in labels {
        let Some(path) = label.strip_prefix(PREFIX) else { continue };
        let invalid = match path {
            "enable" => take(value, &mut read.enabled),
            "weight" => take(value, &mut read.weight),
            path => {
                settings.push(Setting { label, path: setting_path(path), value });
                Ok(())
            }
        };
        read.invalid.extend(invalid.err().map(|reason| (label.clone(), reason)));
    }
    loop {
        let (document, invalid) = document(&settings);
        read.invalid.extend(invalid);
        read.settings = serde_json::from_value(document.clone()).unwrap_or_default();
        settle_defaults(&document, &mut read.settings);
        let Err((field, reason)) = read.settings.check() else { break };
        // Settings that do not go together: those of the same kind are left out, and named.
        let group = field.split('.').next().unwrap_or(field);
        let before = settings.len();
        settings.retain(|setting| {
            let of_group = setting.path.first().is_some_and(|first| first == group);
            if of_group {
                read.invalid.push((setting.label.to_owned(), format!("{field} {reason}")));
            }
            !of_group
        });
        read.invalid.sort();
        read.invalid.dedup();
        if settings.len() == before {
            read.settings = without_labels();
            break;
        }
    }
    read.invalid.sort();
    read.invalid.dedup_by(|(one, _), (other, _)| one == other);
    read
}

struct Setting<'a> {
    label: &'a str,
    path: Vec<String>,
    value: &'a str,
}

/// What no label says is as containers need it. The Engine says when a task ends: until then a draining one keeps its
/// connections, unless a deadline is asked for. And it lists a task before its program listens: of the ten of a service that
/// had one, nine refuse for a while, and a connection must be able to try them all.
fn settle_defaults(document: &Value, settings: &mut ServiceSettings) {
    let given = |field: &str| document.get(field).is_some();
    if !given("drain_policy") && !given("drain_timeout") {
        settings.drain_policy = DrainPolicy::Keep;
    }
    if !given("retries") {
        settings.retries = Retries(10);
    }
    // Refused for that while, it would be left out for longer than it needs: the Engine says soon of one that is gone.
    if document.pointer("/ejection/base").is_none() {
        settings.ejection.base = EjectionBase(Duration::from_millis(100));
    }
    if document.pointer("/retry_budget/percent").is_none() {
        settings.retry_budget.percent = RetryPercent(1000);
    }
}

fn without_labels() -> ServiceSettings {
    let mut settings = ServiceSettings::default();
    settle_defaults(&Value::Null, &mut settings);
    settings
}

/// `health.interval` is `health_check`, `interval`.
fn setting_path(path: &str) -> Vec<String> {
    let mut path: Vec<_> = path.split('.').map(|part| part.replace('-', "_")).collect();
    if let Some(first) = path.first_mut()
        && first == "health"
    {
        "health_check".clone_into(first);
    }
    path
}

/// The document of those settings that are valid, and the labels that are not. Each is tried by itself: all have
/// defaults, and what they are together is checked afterwards.
fn document(settings: &[Setting<'_>]) -> (Value, Vec<(String, String)>) {
    let mut document = Value::Object(Map::new());
    let mut invalid = Vec::new();
    for setting in settings {
        let tried = attempt(setting.value, |value| {
            let mut with = document.clone();
            put(&mut with, &setting.path, value);
            reasoned::<ServiceSettings>(&with).map(|_| with)
        });
        match tried {
            Ok(with) => document = with,
            Err(reason) => invalid.push((setting.label.to_owned(), reason)),
        }
    }
    (document, invalid)
}

fn put(document: &mut Value, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *document = value;
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    if let Value::Object(fields) = document {
        put(fields.entry(first.clone()).or_insert(Value::Null), rest, value);
    }
}

fn take<T: DeserializeOwned>(text: &str, place: &mut T) -> Result<(), String> {
    *place = attempt(text, |value| reasoned(&value))?;
    Ok(())
}

/// Tries `text` as each kind of value that it can be. Gives the reason that says most if it is none.
fn attempt<T>(text: &str, mut take: impl FnMut(Value) -> Result<T, Reason>) -> Result<T, String> {
    let mut wrong: Option<Reason> = None;
    for value in values(text) {
        match take(value) {
            Ok(taken) => return Ok(taken),
            // That a setting is of another kind says less than what is wrong with a value of its kind; and of those the
            // first, as the text looks most like it.
            Err(reason) if wrong.as_ref().is_none_or(|wrong| wrong.other_kind && !reason.other_kind) => {
                wrong = Some(reason);
            }
            Err(_) => {}
        }
    }
    Err(wrong.map_or_else(|| "is empty".to_owned(), |reason| reason.text))
}

fn values(text: &str) -> Vec<Value> {
    let trimmed = text.trim();
    let number = trimmed.parse::<u64>().map(Number::from).ok();
    let number = number.or_else(|| trimmed.parse::<i64>().map(Number::from).ok());
    let truth = match trimmed {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    };
    let parts = trimmed.split(',').map(str::trim).filter(|part| !part.is_empty());
    let list = parts.map(|part| Value::String(part.to_owned())).collect();
    let known = [number.map(Value::Number), truth.map(Value::Bool)].into_iter().flatten();
    known.chain([Value::String(text.to_owned()), Value::Array(list)]).collect()
}

struct Reason {
    text: String,
    other_kind: bool,
}

fn reasoned<T: for<'de> Deserialize<'de>>(document: &Value) -> Result<T, Reason> {
    T::deserialize(document).map_err(|error| {
        let text = error.to_string();
        let other_kind = text.starts_with("invalid type");
        let text = if text.starts_with("unknown field") { "there is no such setting".to_owned() } else { text };
        Reason { text, other_kind }
    })
}

#[cfg(test)]
mod tests;
