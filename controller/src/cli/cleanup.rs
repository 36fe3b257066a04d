//! `ringlb cleanup`.

use super::CommandError;
use super::arguments::EngineArguments;
use super::table::{list, text};
use crate::cleanup;
use serde_json::Value;
use std::io::{self, Write};
use std::path::Path;

/// Cleans up; gives what was done, and what could not be.
pub(super) async fn run(run_dir: &Path, engine: EngineArguments) -> Result<(Value, Vec<String>), CommandError> {
    let report = cleanup::run(run_dir, engine.location()?).await.map_err(crate::daemon::DaemonError::RunDir)?;
    let value = serde_json::to_value(&report).map_err(|error| CommandError::Write(error.into()))?;
    Ok((value, report.errors))
}

/// Shows what was done, a line each.
pub(super) fn write(report: &Value, out: &mut impl Write) -> io::Result<()> {
    let mut lines = Vec::new();
    for proxy in list(&report["proxies"]) {
        lines.push(format!("ended the proxy of network {}, pid {}", text(&proxy["network"]), text(&proxy["pid"])));
    }
    for sandbox in list(&report["sandboxes"]) {
        let taken = ["routes", "tables", "parameters"].map(|what| (what, list(&sandbox[what]).len()));
        let taken = taken.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what}: {count}"));
        let taken: Vec<_> = taken.collect();
        lines.push(format!("took back in {}: {}", text(&sandbox["namespace"]), taken.join(", ")));
    }
    let removed = [("container", &report["holders"]), ("namespace", &report["namespaces"]), ("file", &report["files"])];
    for (what, names) in removed {
        lines.extend(list(names).iter().map(|name| format!("removed {what} {}", text(name))));
    }
    if let Value::String(image) = &report["image"] {
        lines.push(format!("removed image {image}"));
    }
    for left in list(&report["left"]) {
        lines.push(format!("left {} alone: {}", text(&left["what"]), text(&left["reason"])));
    }
    if lines.is_empty() && list(&report["errors"]).is_empty() {
        lines.push("nothing of ringlb was there".to_owned());
    }
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))
}
