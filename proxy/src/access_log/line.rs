//! What a line says.

use super::Record;
use crate::control::settings::AccessLogFormat;
use serde::Serialize;
use std::io::{self, Write};
use std::net::SocketAddr;

/// Writes the record's line to `out`.
///
/// # Errors
/// Those of `out`.
pub fn write_line(network: &str, record: &Record, out: &mut impl Write) -> io::Result<()> {
    let line = Line::new(network, record);
    match record.format {
        AccessLogFormat::Off => Ok(()),
        AccessLogFormat::Json => {
            serde_json::to_writer(&mut *out, &line)?;
            writeln!(out)
        }
        AccessLogFormat::Text => line.write_text(out),
    }
}

/// The fields of a line, in their order. What is not known is `null`, and `-` in text.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    network: &'a str,
    service: &'a str,
    client: Option<SocketAddr>,
    vip: SocketAddr,
    backend: Option<SocketAddr>,
    termination: String,
    attempts: u8,
    connect_us: Option<u64>,
    duration_us: u64,
    bytes_to_backend: u64,
    bytes_to_client: u64,
}

impl<'a> Line<'a> {
    fn new(network: &'a str, record: &'a Record) -> Self {
        let microseconds = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            time: humantime::format_rfc3339_millis(record.time).to_string(),
            network,
            service: &record.service,
            client: record.client,
            vip: record.vip,
            backend: record.backend,
            termination: record.termination.to_string(),
            attempts: record.attempts,
            connect_us: record.connect.map(microseconds),
            duration_us: microseconds(record.duration),
            bytes_to_backend: record.bytes_to_backend,
            bytes_to_client: record.bytes_to_client,
        }
    }

    /// `key=value`, separated by blanks. No value can have a blank in it: names of networks and services cannot.
    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let or_dash =
            |address: Option<SocketAddr>| address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        writeln!(
            out,
            "{} network={} service={} client={} vip={} backend={} termination={} attempts={} connect_us={} duration_us={} bytes_to_backend={} bytes_to_client={}",
            self.time,
            self.network,
            self.service,
            or_dash(self.client),
            self.vip,
            or_dash(self.backend),
            self.termination,
            self.attempts,
            self.connect_us.map_or_else(|| "-".to_owned(), |time| time.to_string()),
            self.duration_us,
            self.bytes_to_backend,
            self.bytes_to_client,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Ending;
    use crate::flow::termination::{Cause, Stage, TerminationCode};
    use std::time::{Duration, SystemTime};

    fn line(record: &Record) -> String {
        let mut line = Vec::new();
        write_line("web", record, &mut line).unwrap();
        String::from_utf8(line).unwrap()
    }

    fn record(format: AccessLogFormat) -> Record {
        Record {
            format,
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            service: "api".into(),
            client: Some("10.1.0.2:40000".parse().unwrap()),
            vip: "10.1.0.200:80".parse().unwrap(),
            backend: Some("[fd00::3]:80".parse().unwrap()),
            termination: TerminationCode::new(Ending::Completed, None, Stage::LastData),
            attempts: 1,
            connect: Some(Duration::from_micros(153)),
            duration: Duration::from_millis(12),
            bytes_to_backend: 64,
            bytes_to_client: u64::MAX,
        }
    }

    #[test]
    fn a_line_of_text() {
        assert_eq!(
            line(&record(AccessLogFormat::Text)),
            "2023-11-14T22:13:20.123Z network=web service=api client=10.1.0.2:40000 vip=10.1.0.200:80 \
             backend=[fd00::3]:80 termination=-- attempts=1 connect_us=153 duration_us=12000 bytes_to_backend=64 \
             bytes_to_client=18446744073709551615\n"
        );
    }

    #[test]
    fn a_line_of_json() {
        let refused = Record {
            client: None,
            backend: None,
            connect: None,
            attempts: 0,
            termination: TerminationCode::new(Ending::NoBackend, Some(Cause::NoBackend), Stage::Connecting),
            ..record(AccessLogFormat::Json)
        };
        let line: serde_json::Value = serde_json::from_str(&line(&refused)).unwrap();
        let expected = serde_json::json!({
            "time": "2023-11-14T22:13:20.123Z", "network": "web", "service": "api", "client": null,
            "vip": "10.1.0.200:80", "backend": null, "termination": "PC", "attempts": 0, "connect_us": null,
            "duration_us": 12000, "bytes_to_backend": 64, "bytes_to_client": u64::MAX,
        });
        assert_eq!(line, expected);
    }
}
