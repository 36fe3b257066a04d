//! Answers for people to read.

use super::table::{Table, list, listing, published, state, text};
use super::{cleanup, status};
use serde_json::Value;
use std::io::{self, Write};

/// How an answer is shown.
#[derive(Debug)]
pub(super) enum Output {
    Nothing,
    Networks,
    NetworkMade,
    Attached {
        network: String,
    },
    ServiceMade {
        network: String,
    },
    Services,
    Service,
    BackendChanged {
        service: String,
        verb: &'static str,
    },
    Removed(String),
    Applied,
    Upgraded,
    Cleaned,
    /// As it is.
    Document,
    Status,
}

impl Output {
    pub(super) fn write(&self, answer: &Value, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Networks => networks(answer).write(out),
            Self::NetworkMade => {
                let network = &answer["network"];
                let (name, subnet, prefix) =
                    (text(&network["name"]), listing(&network["subnet"]), listing(&network["vip_prefix"]));
                writeln!(out, "network {name} has subnet {subnet}, VIPs come from {prefix}")
            }
            Self::Attached { network } => {
                let attachment = &answer["attachment"];
                writeln!(
                    out,
                    "{} is attached to network {network} as {}",
                    text(&attachment["name"]),
                    listing(&attachment["ip"])
                )
            }
            Self::ServiceMade { network } => {
                let service = &answer["service"];
                let (name, vip) = (text(&service["name"]), listing(&service["vip"]));
                let ports = match published(service) {
                    none if none == "-" => String::new(),
                    ports => format!(" and is published as {ports}"),
                };
                writeln!(out, "service {name} of network {network} has VIP {vip}{ports} ({})", acknowledged(answer))
            }
            Self::Services => services(answer).write(out),
            Self::Service => service(answer, out),
            Self::BackendChanged { service, verb } => {
                let backend = &answer["backend"];
                let (ip, weight) = (text(&backend["ip"]), text(&backend["weight"]));
                writeln!(out, "{ip} {verb} service {service} with weight {weight} ({})", acknowledged(answer))
            }
            Self::Removed(what) => writeln!(out, "{what} ({})", acknowledged(answer)),
            Self::Applied => {
                let mut table = Table::new(&["NETWORK", "OUTCOME", "GENERATION"]);
                for network in list(&answer["networks"]) {
                    table.row([text(&network["name"]), text(&network["outcome"]), text(&network["generation"])]);
                }
                table.write(out)?;
                writeln!(out, "acknowledged in {}", microseconds(&answer["acknowledged_in_us"]))
            }
            Self::Upgraded => upgraded(answer).write(out),
            Self::Cleaned => cleanup::write(answer, out),
            Self::Document => {
                serde_json::to_writer_pretty(&mut *out, answer)?;
                writeln!(out)
            }
            Self::Status => status::write(answer, out),
        }
    }
}

fn acknowledged(answer: &Value) -> String {
    format!("generation {}, {}", text(&answer["generation"]), microseconds(&answer["acknowledged_in_us"]))
}

fn microseconds(value: &Value) -> String {
    match value.as_u64() {
        Some(us) if us >= 10_000 => format!("{} ms", us / 1000),
        Some(us) => format!("{us} µs"),
        None => "-".to_owned(),
    }
}

fn upgraded(answer: &Value) -> Table {
    let mut table = Table::new(&["NETWORK", "PID", "VERSION", "REPLACED", "CONNECTIONS-KEPT", "SESSIONS-HANDED-OVER"]);
    for network in list(&answer["networks"]) {
        let replaced = &network["replaced"];
        let own = ["name", "pid", "version"].map(|field| text(&network[field]));
        let [name, pid, version] = own;
        let [old, kept, handed] = ["pid", "connections", "sessions_handed_over"].map(|field| text(&replaced[field]));
        table.row([name, pid, version, old, kept, handed]);
    }
    table
}

fn networks(answer: &Value) -> Table {
    let mut table = Table::new(&[
        "NETWORK",
        "SOURCE",
        "SUBNET",
        "VIP-PREFIX",
        "LB-ENDPOINT",
        "ATTACHMENTS",
        "SERVICES",
        "GENERATION",
    ]);
    for network in list(answer) {
        let fields = ["name", "source", "subnet", "vip_prefix", "lb_address", "attachments", "services", "generation"];
        table.row(fields.map(|field| text(&network[field])));
    }
    table
}

fn services(answer: &Value) -> Table {
    let mut table =
        Table::new(&["SERVICE", "VIP", "PUBLISHED", "ALGORITHM", "DRAIN-TIMEOUT", "CONNECT-TIMEOUT", "BACKENDS"]);
    for service in list(answer) {
        let [name, vip, algorithm, drain, connect] =
            ["name", "vip", "algorithm", "drain_timeout", "connect_timeout"].map(|field| text(&service[field]));
        let backends = list(&service["backends"]).len().to_string();
        table.row([name, vip, published(service), algorithm, drain, connect, backends]);
    }
    table
}

/// A setting, or each one of a group.
fn setting(label: &str, value: &Value, out: &mut impl Write) -> io::Result<()> {
    match value {
        Value::Object(group) => group
            .iter()
            .try_for_each(|(name, value)| setting(&format!("{label} {}", name.replace('_', " ")), value, out)),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(text).collect();
            writeln!(
                out,
                "{:24} {}",
                format!("{label}:"),
                if items.is_empty() { "-".to_owned() } else { items.join(", ") }
            )
        }
        value => writeln!(out, "{:24} {}", format!("{label}:"), text(value)),
    }
}

fn service(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    for (label, field) in [("service", "name"), ("VIP", "vip")] {
        writeln!(out, "{:24} {}", format!("{label}:"), listing(&answer[field]))?;
    }
    writeln!(out, "{:24} {}", "published:", published(answer))?;
    // All other fields are settings: a new one needs no line here.
    for (name, value) in answer.as_object().into_iter().flatten() {
        if !["name", "vip", "published", "backends"].contains(&name.as_str()) {
            setting(&name.replace('_', " "), value, out)?;
        }
    }
    let mut table = Table::new(&["BACKEND", "WEIGHT", "STATE"]);
    for backend in list(&answer["backends"]) {
        table.row([text(&backend["ip"]), text(&backend["weight"]), state(backend)]);
    }
    if table.is_empty() { writeln!(out, "no backends") } else { table.write(out) }
}
