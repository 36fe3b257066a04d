//! What metrics there are. `METRICS.md` lists the same; a test compares them.

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its whole name, as it is written.
    pub name: &'static str,
    /// How its value moves.
    pub kind: Kind,
    /// What its value is counted in.
    pub unit: Unit,
    /// The names of its labels, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// How a metric's value moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from 0 at the start of the process that counts.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts of values by size, and their sum.
    Histogram,
}

/// What a metric's value is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things of the metric's own kind.
    One,
    /// 1 for yes, 0 for no.
    Flag,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl Kind {
    /// Its name in the text format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Unit {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Flag => "0 or 1",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }
}

const NODE: &[&str] = &[];
const NETWORK: &[&str] = &["network"];
const SERVICE: &[&str] = &["network", "service"];
const BACKEND: &[&str] = &["network", "service", "backend"];

const fn counter(name: &'static str, unit: Unit, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit, labels, help }
}

const fn gauge(name: &'static str, unit: Unit, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels, help }
}

const fn histogram(name: &'static str, unit: Unit, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit, labels, help }
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident($name:literal, $unit:ident, $labels:expr, $help:literal);)*) => {
        $(pub(super) const $constant: Metric = $kind($name, Unit::$unit, $labels, $help);)*

        /// All metrics, in the order in which `METRICS.md` lists them.
        pub const METRICS: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD_INFO = gauge("ringlb_build_info", One, &["version"], "Always 1; the daemon's version is in the label");
    PROCESS_START_TIME = gauge("process_start_time_seconds", Seconds, NODE, "When the daemon started, since the Unix epoch");

    PROXY_UP = gauge("ringlb_proxy_up", Flag, NETWORK, "Whether the network's proxy answered in time; only for networks that need a proxy on this node");
    NETWORK_GENERATION = gauge("ringlb_network_generation", One, NETWORK, "The generation of the table that should be in use");
    NETWORK_ACKNOWLEDGED_GENERATION = gauge("ringlb_network_acknowledged_generation", One, NETWORK, "The newest generation that the proxy has acknowledged; the network's own while it needs no proxy");
    PROXY_RESTARTS = counter("ringlb_proxy_restarts_total", One, NETWORK, "Times that the proxy was started again after it had ended by itself");

    PROXY_ACCEPTED = counter("ringlb_proxy_connections_accepted_total", One, NETWORK, "Client connections accepted");
    PROXY_ACTIVE = gauge("ringlb_proxy_connections_active", One, NETWORK, "Client connections open now");
    PROXY_REFUSED_AT_LIMIT = counter("ringlb_proxy_connections_refused_at_limit_total", One, NETWORK, "Client connections refused because the proxy had its maximum of connections, or no descriptor or memory for one more");
    PROXY_NO_SERVICE = counter("ringlb_proxy_connections_no_service_total", One, NETWORK, "Client connections reset because no service has the address that they were for");
    PROXY_NO_BACKEND = counter("ringlb_proxy_connections_no_backend_total", One, NETWORK, "Client connections reset because the service had no eligible backend, or all that were tried refused");
    PROXY_CONNECT_FAILURES = counter("ringlb_proxy_connect_failures_total", One, NETWORK, "Attempts to connect to a backend that failed, and UDP sessions that a backend refused");
    PROXY_CONNECT_RETRIES = counter("ringlb_proxy_connect_retries_total", One, NETWORK, "Failed attempts to connect that were followed by one to another backend");
    PROXY_PORTS_EXHAUSTED = counter("ringlb_proxy_source_ports_exhausted_total", One, NETWORK, "Attempts to connect that failed because all source ports towards the backend's port were in use");
    PROXY_RETRIES_DENIED = counter("ringlb_proxy_connect_retries_denied_total", One, NETWORK, "Client connections reset because no further attempt was allowed, by the service's limit or its retry budget");
    PROXY_WAITING = gauge("ringlb_proxy_connections_waiting", One, NETWORK, "Client connections that wait for a place at a backend now");
    PROXY_REFUSED = counter("ringlb_proxy_connections_refused_total", One, &["network", "reason"], "Client connections and UDP sessions refused by a setting of their service, by reason: denied, client-rate, client-full, service-full, backends-full, queue-full, queue-timeout, header-invalid, header-timeout (both of the PROXY protocol)");
    PROXY_RESETS = counter("ringlb_proxy_connections_reset_total", One, &["network", "cause"], "Connections that ended by a reset, by cause: client, backend, removed (the backend or its service), drain (its deadline passed), idle, lifetime");

    PROXY_ACCESS_LOG_DROPPED = counter("ringlb_proxy_access_log_dropped_total", One, NETWORK, "Lines of the access log that were dropped because they could not be written fast enough");
    UDP_SESSIONS = counter("ringlb_proxy_udp_sessions_total", One, NETWORK, "UDP sessions begun");
    UDP_ACTIVE = gauge("ringlb_proxy_udp_sessions_active", One, NETWORK, "UDP sessions open now");
    UDP_MOVED = counter("ringlb_proxy_udp_sessions_moved_total", One, NETWORK, "Times that a UDP session went on with another backend, as its own was removed, had drained long enough, or refused");
    UDP_EVICTED = counter("ringlb_proxy_udp_sessions_evicted_total", One, NETWORK, "UDP sessions ended to make room for another session or a connection, as the descriptor limit was reached");
    UDP_DATAGRAMS = counter("ringlb_proxy_udp_datagrams_total", One, &["network", "to"], "Datagrams sent to backends and to clients");
    UDP_BYTES = counter("ringlb_proxy_udp_bytes_total", Bytes, &["network", "to"], "Bytes of the datagrams sent to backends and to clients");
    UDP_DROPPED = counter("ringlb_proxy_udp_datagrams_dropped_total", One, &["network", "reason"], "Datagrams that were not sent on");

    RING_ENTERS = counter("ringlb_ring_enters_total", One, NETWORK, "Calls of io_uring_enter by the proxy's data threads");
    RING_BUFFERS_EXHAUSTED = counter("ringlb_ring_buffers_exhausted_total", One, NETWORK, "Receives that found no free shared buffer");
    RING_COMPLETION_OVERFLOWS = counter("ringlb_ring_completion_overflows_total", One, NETWORK, "Times that completions did not fit into the completion queue");
    RING_SPLICED_DIRECTIONS = counter("ringlb_ring_spliced_directions_total", One, NETWORK, "Directions of connections that were switched to splice");
    RING_SPLICED_BYTES = counter("ringlb_ring_spliced_bytes_total", Bytes, NETWORK, "Bytes moved by splice");

    SERVICE_CONNECTIONS = counter("ringlb_service_connections_total", One, SERVICE, "Connections and UDP sessions given to one of the service's backends");
    SERVICE_UDP_SESSIONS = counter("ringlb_service_udp_sessions_total", One, SERVICE, "UDP sessions given to one of the service's backends");

    SERVICE_CONNECT_TIMES = histogram("ringlb_service_connect_seconds", Seconds, SERVICE, "What connecting to one of the service's backends took, where it succeeded");
    SERVICE_SESSION_TIMES = histogram("ringlb_service_session_seconds", Seconds, SERVICE, "How long connections lasted that were given to one of the service's backends and have ended");

    BACKEND_EJECTIONS = counter("ringlb_backend_ejections_total", One, BACKEND, "Times that the backend was ejected");
    BACKEND_CHECK_FAILURES = counter("ringlb_backend_check_failures_total", One, BACKEND, "Health checks of the backend that failed");
    BACKEND_EJECTED = gauge("ringlb_backend_ejected", Flag, BACKEND, "Whether the backend is left out because it could not be reached");
    BACKEND_UNHEALTHY = gauge("ringlb_backend_unhealthy", Flag, BACKEND, "Whether the backend does not pass its health checks");
    BACKEND_WARMTH = gauge("ringlb_backend_warmth_percent", One, BACKEND, "The share of its weight that the backend has now, in percent: less than 100 in its slow start");
    BACKEND_CONNECTIONS = counter("ringlb_backend_connections_total", One, BACKEND, "Connections established to the backend, and UDP sessions given to it");
    BACKEND_ACTIVE = gauge("ringlb_backend_connections_active", One, BACKEND, "Connections to the backend and UDP sessions with it open now, connections being established included");
    BACKEND_CONNECT_FAILURES = counter("ringlb_backend_connect_failures_total", One, BACKEND, "Attempts to connect to the backend that failed, and UDP sessions that it refused");
    BACKEND_UDP_SESSIONS = counter("ringlb_backend_udp_sessions_total", One, BACKEND, "UDP sessions given to the backend");
    BACKEND_UDP_ACTIVE = gauge("ringlb_backend_udp_sessions_active", One, BACKEND, "UDP sessions with the backend open now");
    BACKEND_SENT_DATAGRAMS = counter("ringlb_backend_sent_datagrams_total", One, BACKEND, "Datagrams sent to the backend");
    BACKEND_RECEIVED_DATAGRAMS = counter("ringlb_backend_received_datagrams_total", One, BACKEND, "Datagrams received from the backend");
    BACKEND_SENT = counter("ringlb_backend_sent_bytes_total", Bytes, BACKEND, "Bytes sent to the backend");
    BACKEND_RECEIVED = counter("ringlb_backend_received_bytes_total", Bytes, BACKEND, "Bytes received from the backend");
    BACKEND_WEIGHT = gauge("ringlb_backend_weight", One, BACKEND, "The backend's share of new connections, as it should be");
    BACKEND_DRAINING = gauge("ringlb_backend_draining", Flag, BACKEND, "Whether the backend keeps its connections and should get no new ones");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_follow_the_conventions() {
        let mut names = HashSet::new();
        for metric in METRICS {
            let name = metric.name;
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(name.starts_with("ringlb_") || *metric == PROCESS_START_TIME, "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            let stem = name.trim_end_matches("_total");
            assert_eq!(stem.ends_with("_bytes"), metric.unit == Unit::Bytes, "{name}");
            assert_eq!(stem.ends_with("_seconds"), metric.unit == Unit::Seconds, "{name}");
            assert!(!metric.help.is_empty() && !metric.help.contains(['\n', '|']), "{name}");
        }
    }

    #[test]
    fn the_document_lists_the_same() {
        let document = include_str!("../../../../METRICS.md");
        let rows: Vec<_> = document.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<_> = METRICS
            .iter()
            .map(|metric| {
                let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
                let (name, kind, unit, help) = (metric.name, metric.kind.name(), metric.unit.name(), metric.help);
                let row = format!("| `{name}` | {kind} | {unit} | {} | {help} |", labels.join(", "));
                row.replace("|  |", "| |")
            })
            .collect();
        for (row, expected) in rows.iter().zip(&expected) {
            assert_eq!(row, expected);
        }
        assert_eq!(rows.len(), expected.len());
    }
}
