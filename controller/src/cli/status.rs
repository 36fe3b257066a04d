//! `ringlb status` for people to read.

use super::table::{Table, list, listing, state, text};
use serde_json::Value;
use std::io::{self, Write};

pub(super) fn write(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    let ready = if answer["ready"] == true { "ready" } else { "not ready" };
    writeln!(out, "ringlb {}, daemon pid {}, {ready}", text(&answer["version"]), text(&answer["daemon_pid"]))?;
    for network in list(&answer["networks"]) {
        writeln!(out)?;
        write_network(network, out)?;
    }
    if list(&answer["networks"]).is_empty() {
        writeln!(out, "no networks")?;
    }
    Ok(())
}

fn write_network(network: &Value, out: &mut impl Write) -> io::Result<()> {
    let (name, subnet, prefix) = (text(&network["name"]), listing(&network["subnet"]), listing(&network["vip_prefix"]));
    let (generation, acknowledged) = (&network["generation"], &network["acknowledged_generation"]);
    write!(out, "network {name}  subnet {subnet}  VIPs {prefix}  generation {}", text(generation))?;
    if acknowledged == generation {
        writeln!(out)?;
    } else {
        writeln!(out, " (acknowledged: {})", text(acknowledged))?;
    }
    match &network["sandbox"] {
        Value::Null => writeln!(out, "  no sandbox: it takes an attachment and a service")?,
        sandbox => writeln!(
            out,
            "  sandbox {}  LB endpoint {}  steering {}",
            text(&sandbox["namespace"]),
            listing(&sandbox["lb_address"]),
            text(&sandbox["steering"])
        )?,
    }
    if network["proxy"].is_object() {
        write_proxy(network, out)?;
    }
    if let Value::String(error) = &network["error"] {
        writeln!(out, "  ERROR: {error}")?;
    }
    write_attachments(network, out)?;
    write_services(network, out)
}

fn write_proxy(network: &Value, out: &mut impl Write) -> io::Result<()> {
    let proxy = &network["proxy"];
    match &proxy["pid"] {
        Value::Null => write!(out, "  proxy not running")?,
        pid => write!(out, "  proxy pid {pid}")?,
    }
    write!(out, "  restarts {}", text(&proxy["restarts"]))?;
    if let Value::String(version) = &proxy["version"] {
        write!(out, "  version {version}")?;
    }
    writeln!(out)?;
    if let Value::Object(features) = &proxy["features"] {
        let used = features.iter().filter(|(_, value)| **value == true).map(|(name, _)| name.replace('_', "-"));
        let (used, kernel) = (used.collect::<Vec<_>>().join(", "), text(&proxy["features"]["kernel"]));
        let limit = text(&proxy["features"]["max_connections"]);
        let threads = text(&proxy["features"]["threads"]);
        writeln!(out, "  features {used}  kernel {kernel}  limit {limit} connections  data threads {threads}")?;
    }
    let connections = &network["connections"];
    if connections.is_object() {
        let count = |field: &str| text(&connections[field]);
        writeln!(
            out,
            "  connections active {}  accepted {}  no service {}  no backend {}  connect failures {}  retries {}  refused at limit {}",
            count("active"),
            count("accepted"),
            count("no_service"),
            count("no_backend"),
            count("connect_failures"),
            count("retries"),
            count("refused_at_limit")
        )?;
    }
    Ok(())
}

fn write_attachments(network: &Value, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(&["ATTACHMENT", "IP", "NETNS", ""]).indented(2);
    for attachment in list(&network["attachments"]) {
        let name = text(&attachment["name"]);
        let failed = match &network["failed_attachments"][&name] {
            Value::String(reason) => format!("FAILED: {reason}"),
            _ => String::new(),
        };
        table.row([name, text(&attachment["ip"]), text(&attachment["netns"]), failed]);
    }
    if table.is_empty() { Ok(()) } else { table.write(out) }
}

fn write_services(network: &Value, out: &mut impl Write) -> io::Result<()> {
    let header = ["SERVICE", "VIP", "ALGORITHM", "BACKEND", "WEIGHT", "STATE", "ACTIVE", "CONNECTIONS", "FAILURES"];
    let mut table = Table::new(&header).indented(2);
    for service in list(&network["services"]) {
        let [name, vip, algorithm] = ["name", "vip", "algorithm"].map(|field| text(&service[field]));
        let backends = list(&service["backends"]);
        if backends.is_empty() {
            let connections = text(&service["connections"]);
            let none = || "-".to_owned();
            table.row([name, vip, algorithm, "none".to_owned(), none(), none(), none(), connections, none()]);
            continue;
        }
        for (index, backend) in backends.iter().enumerate() {
            let first = |text: &String| if index == 0 { text.clone() } else { String::new() };
            let field = |field: &str| text(&backend[field]);
            table.row([
                first(&name),
                first(&vip),
                first(&algorithm),
                field("ip"),
                field("weight"),
                state(backend).to_owned(),
                field("active"),
                field("connections"),
                field("connect_failures"),
            ]);
        }
    }
    if table.is_empty() { Ok(()) } else { table.write(out) }
}
