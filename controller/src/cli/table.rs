//! The pieces that answers are shown with.

use serde_json::Value;
use std::io::{self, Write};

/// Columns that are as wide as what stands in them.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    indent: usize,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|name| (*name).to_owned()).collect()], indent: 0 }
    }

    /// With `indent` spaces before each line.
    pub(super) fn indented(mut self, indent: usize) -> Self {
        self.indent = indent;
        self
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(out, "{:indent$}{}", "", line.trim_end(), indent = self.indent)?;
        }
        Ok(())
    }
}

/// A value as people write it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        // Without a space, so that a column stays one for programs that split lines.
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// One value, or several in a sentence.
pub(super) fn listing(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" and "),
        value => text(value),
    }
}

/// The published ports of a service: `8080:80/tcp`, as they are given, without spaces.
pub(super) fn published(service: &Value) -> String {
    let ports = list(&service["published"]).iter();
    let ports = ports.map(|port| {
        let [published, target, protocol] = ["port", "target", "protocol"].map(|field| text(&port[field]));
        format!("{published}:{target}/{protocol}")
    });
    let ports: Vec<_> = ports.collect();
    if ports.is_empty() { "-".to_owned() } else { ports.join(",") }
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What a backend gets, and why.
pub(super) fn state(backend: &Value) -> String {
    let number = |field: &str| backend[field].as_u64();
    let state = match (&backend["drain"], number("weight"), &backend["health"]) {
        (Value::Bool(true), ..) => "draining".to_owned(),
        (_, Some(0), _) => "weight 0".to_owned(),
        (_, _, Value::String(health)) if health == "ejected" => {
            let seconds = number("ejected_for_ms").unwrap_or_default().div_ceil(1000);
            format!("ejected, {seconds} s left")
        }
        (_, _, Value::String(health)) if health == "unhealthy" => "unhealthy".to_owned(),
        _ => match number("warmth_percent") {
            Some(percent) if percent < 100 => format!("warming, {percent} %"),
            _ => "active".to_owned(),
        },
    };
    if backend["backup"] == true { format!("{state} (backup)") } else { state }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_backends_state_is_the_strongest_reason_that_holds() {
        for (backend, expected) in [
            (json!({"weight": 1, "drain": false}), "active"),
            (
                json!({"weight": 1, "drain": false, "backup": true, "health": "healthy", "warmth_percent": 100}),
                "active (backup)",
            ),
            (json!({"weight": 0, "drain": false, "health": "unhealthy"}), "weight 0"),
            (json!({"weight": 0, "drain": true, "health": "ejected", "ejected_for_ms": 1}), "draining"),
            (json!({"weight": 1, "drain": false, "health": "ejected", "ejected_for_ms": 1001}), "ejected, 2 s left"),
            (json!({"weight": 1, "drain": false, "health": "unhealthy", "warmth_percent": 5}), "unhealthy"),
            (json!({"weight": 1, "drain": false, "health": "healthy", "warmth_percent": 45}), "warming, 45 %"),
        ] {
            assert_eq!(state(&backend), expected, "{backend}");
        }
    }
}
