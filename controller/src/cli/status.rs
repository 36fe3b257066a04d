//! `ringlb status` for people to read.

use super::table::{Table, list, listing, published, state, text};
use serde_json::Value;
use std::io::{self, Write};

/// Why datagrams are dropped, as the fields of the answer.
const DROPPED: [&str; 8] =
    ["no_service", "no_backend", "buffer_full", "too_large", "at_limit", "unsendable", "unanswerable", "refused"];

pub(super) fn write(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    let ready = if answer["ready"] == true { "ready" } else { "not ready" };
    writeln!(out, "ringlb {}, daemon pid {}, {ready}", text(&answer["version"]), text(&answer["daemon_pid"]))?;
    for source in list(&answer["sources"]) {
        write_source(source, out)?;
    }
    for network in list(&answer["networks"]) {
        writeln!(out)?;
        write_network(network, out)?;
    }
    if list(&answer["networks"]).is_empty() {
        writeln!(out, "no networks")?;
    }
    Ok(())
}

fn write_source(source: &Value, out: &mut impl Write) -> io::Result<()> {
    let reachable = if source["reachable"] == true { "reachable" } else { "NOT REACHABLE" };
    write!(out, "source {}  {reachable}", text(&source["name"]))?;
    let engine = &source["engine"];
    if engine.is_object() {
        let field = |field: &str| text(&engine[field]);
        write!(out, "  version {}  role {}  swarm {}", field("version"), field("role"), field("swarm"))?;
    }
    writeln!(out, "  labels from {}", text(&source["labels_from"]))?;
    if let Some(error) = source["labels_error"].as_str() {
        writeln!(out, "  labels between nodes: {error}")?;
    }
    if source["balancer"] == "ipvs" {
        let meaning = if source["takeover"] == true {
            "new connections are taken over from it"
        } else {
            "its sandboxes are left alone; --takeover serves in its place"
        };
        writeln!(out, "  Docker's own balancer (IPVS) is active: {meaning}")?;
    }
    if let Value::String(error) = &source["last_error"] {
        writeln!(out, "  ERROR: {error}")?;
    }
    for label in list(&source["invalid_labels"]) {
        let [service, label, reason] = ["service", "label", "reason"].map(|field| text(&label[field]));
        writeln!(out, "  INVALID LABEL of service {service}: {label}: {reason}")?;
    }
    for refused in list(&source["refused_networks"]) {
        writeln!(out, "  NOT SERVED: {}: {}", text(&refused["name"]), text(&refused["reason"]))?;
    }
    Ok(())
}

fn write_network(network: &Value, out: &mut impl Write) -> io::Result<()> {
    let (name, subnet, prefix) = (text(&network["name"]), listing(&network["subnet"]), listing(&network["vip_prefix"]));
    let source = text(&network["source"]);
    let (generation, acknowledged) = (&network["generation"], &network["acknowledged_generation"]);
    write!(out, "network {name}  source {source}  subnet {subnet}  VIPs {prefix}  generation {}", text(generation))?;
    if acknowledged == generation {
        writeln!(out)?;
    } else {
        writeln!(out, " (acknowledged: {})", text(acknowledged))?;
    }
    match &network["sandbox"] {
        Value::Null if source == "api" => {
            writeln!(out, "  no sandbox: it takes a service, and an attachment or a published port")?;
        }
        Value::Null => writeln!(out, "  no sandbox: it takes a service, and one that {source} makes")?,
        sandbox => write_sandbox(sandbox, out)?,
    }
    if network["proxy"].is_object() {
        write_proxy(network, out)?;
    }
    if let Value::String(error) = &network["error"] {
        writeln!(out, "  ERROR: {error}")?;
    }
    if let Value::Object(failed) = &network["failed_ports"] {
        for (port, reason) in failed {
            writeln!(out, "  published port {port} FAILED: {}", text(reason))?;
        }
    }
    write_attachments(network, out)?;
    write_services(network, out)
}

fn write_sandbox(sandbox: &Value, out: &mut impl Write) -> io::Result<()> {
    let (namespace, addresses) = (text(&sandbox["namespace"]), listing(&sandbox["lb_address"]));
    writeln!(out, "  sandbox {namespace}  LB endpoint {addresses}  steering {}", text(&sandbox["steering"]))?;
    let takeover = &sandbox["takeover"];
    if takeover.is_object() {
        let (vips, ports) = (text(&takeover["vips"]), text(&takeover["ports"]));
        writeln!(out, "  in the place of IPVS  VIPs {vips}  published ports {ports}")?;
    }
    if let Value::String(error) = &takeover["error"] {
        writeln!(out, "  TAKEOVER FAILED: {error}")?;
    }
    Ok(())
}

fn write_proxy(network: &Value, out: &mut impl Write) -> io::Result<()> {
    let proxy = &network["proxy"];
    match &proxy["pid"] {
        Value::Null => write!(out, "  proxy not running")?,
        pid => write!(out, "  proxy pid {pid}")?,
    }
    write!(out, "  restarts {}", text(&proxy["restarts"]))?;
    if let Some(pause) = proxy["starts_in_ms"].as_u64() {
        write!(out, "  ended soon {} times in a row, starts in {pause} ms", text(&proxy["quick_ends"]))?;
    }
    if let Value::String(version) = &proxy["version"] {
        write!(out, "  version {version}")?;
    }
    writeln!(out)?;
    if let Value::String(end) = &proxy["last_end"] {
        writeln!(out, "  the last one ended by itself: {end}")?;
    }
    write_privileges(&proxy["privileges"], out)?;
    write_memory(&proxy["memory"], out)?;
    if let Value::Object(features) = &proxy["features"] {
        let used = features.iter().filter(|(_, value)| **value == true).map(|(name, _)| name.replace('_', "-"));
        let (used, kernel) = (used.collect::<Vec<_>>().join(", "), text(&proxy["features"]["kernel"]));
        let limit = text(&proxy["features"]["max_connections"]);
        let threads = text(&proxy["features"]["threads"]);
        writeln!(out, "  features {used}  kernel {kernel}  limit {limit} connections  data threads {threads}")?;
    }
    if let Value::String(reason) = &proxy["upgrade_error"] {
        writeln!(out, "  NOT UPGRADED: {reason}")?;
    }
    for draining in list(&network["draining"]) {
        let [pid, connections, sessions] = ["pid", "connections", "sessions"].map(|field| text(&draining[field]));
        write!(out, "  replaced proxy pid {pid}  connections {connections}  UDP sessions {sessions}")?;
        match draining["deadline_in_ms"].as_u64() {
            Some(left) => writeln!(out, "  ends in {} s at the latest", left.div_ceil(1000))?,
            None => writeln!(out, "  no deadline")?,
        }
    }
    let connections = &network["connections"];
    if connections.is_object() {
        let count = |field: &str| text(&connections[field]);
        writeln!(
            out,
            "  connections active {}  waiting {}  accepted {}  no service {}  no backend {}  connect failures {}  retries {}  ports exhausted {}  refused at limit {}",
            count("active"),
            count("waiting"),
            count("accepted"),
            count("no_service"),
            count("no_backend"),
            count("connect_failures"),
            count("retries"),
            count("ports_exhausted"),
            count("refused_at_limit")
        )?;
        // By a setting of a service; most have none that does.
        let refusals = connections.as_object().into_iter().flatten().filter_map(|(name, value)| {
            let reason = name.strip_prefix("refused_").filter(|reason| *reason != "at_limit")?;
            (*value != 0).then(|| format!("  {} {}", reason.replace('_', " "), text(value)))
        });
        let refusals: String = refusals.collect();
        if !refusals.is_empty() {
            writeln!(out, "  refused{refusals}")?;
        }
    }
    let datagrams = &network["datagrams"];
    if datagrams.is_object() {
        let count = |field: &str| text(&datagrams[field]);
        let dropped = DROPPED.iter().filter_map(|field| datagrams[*field].as_u64()).sum::<u64>();
        writeln!(
            out,
            "  UDP sessions active {}  begun {}  moved {}  evicted {}  datagrams to backends {}  to clients {}  dropped {dropped}",
            count("active"),
            count("sessions"),
            count("moved"),
            count("evicted"),
            count("to_backends"),
            count("to_clients")
        )?;
        if dropped > 0 {
            let reasons = DROPPED.iter().filter(|field| datagrams[**field] != 0);
            let reasons: Vec<_> =
                reasons.map(|field| format!("{} {}", field.replace('_', " "), count(field))).collect();
            writeln!(out, "  datagrams dropped: {}", reasons.join("  "))?;
        }
    }
    Ok(())
}

fn write_privileges(privileges: &Value, out: &mut impl Write) -> io::Result<()> {
    let Some(user) = privileges["user"].as_u64() else { return Ok(()) };
    let [capabilities, gain, calls] =
        ["capabilities", "may_gain", "all_system_calls"].map(|what| privileges[what] == true);
    writeln!(
        out,
        "  user {user}  capabilities {}  new privileges {}  system calls {}",
        if capabilities { "SOME" } else { "none" },
        if gain { "POSSIBLE" } else { "none" },
        if calls { "ALL" } else { "those that it needs" }
    )
}

/// The memory of a proxy that has a limit, in MiB.
fn write_memory(memory: &Value, out: &mut impl Write) -> io::Result<()> {
    let Some(limit) = memory["limit"].as_u64() else { return Ok(()) };
    let used = memory["used"].as_u64().map_or_else(|| "unknown".to_owned(), |used| format!("{} MiB", used >> 20));
    writeln!(out, "  memory {used} of {} MiB", limit >> 20)?;
    if let Value::String(error) = &memory["error"] {
        writeln!(out, "  MEMORY LIMIT FAILED: {error}")?;
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
    let header =
        ["SERVICE", "VIP", "PUBLISHED", "ALGORITHM", "BACKEND", "WEIGHT", "STATE", "ACTIVE", "CONNECTIONS", "FAILURES"];
    let mut table = Table::new(&header).indented(2);
    for service in list(&network["services"]) {
        let [name, vip, algorithm] = ["name", "vip", "algorithm"].map(|field| text(&service[field]));
        let ports = published(service);
        let backends = list(&service["backends"]);
        if backends.is_empty() {
            let connections = text(&service["connections"]);
            let none = || "-".to_owned();
            table.row([name, vip, ports, algorithm, "none".to_owned(), none(), none(), none(), connections, none()]);
            continue;
        }
        for (index, backend) in backends.iter().enumerate() {
            let first = |text: &String| if index == 0 { text.clone() } else { String::new() };
            let field = |field: &str| text(&backend[field]);
            table.row([
                first(&name),
                first(&vip),
                first(&ports),
                first(&algorithm),
                field("ip"),
                field("weight"),
                state(backend),
                field("active"),
                field("connections"),
                field("connect_failures"),
            ]);
        }
    }
    if table.is_empty() { Ok(()) } else { table.write(out) }
}
