//! A service's settings on the command line: one flag each.
//!
//! Values are not checked here but by the daemon, which says what is wrong with them in the same words to everybody.

use clap::{ArgAction, Args};
use serde_json::{Map, Value};

#[derive(Debug, Args)]
pub(super) struct SettingsArguments {
    /// How a backend is chosen: rr (each in turn), p2c (two random ones, the less busy), wrr (in turn, by weight), maglev or
    /// source-hash (by the client's address) [default: rr]
    #[arg(long)]
    algorithm: Option<String>,
    /// How many other backends are tried for a connection after the first, 0 to 10 [default: 2]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    retries: Option<i64>,
    /// Of the connections of the last ten seconds, so many percent may be retried [default: 100]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    retry_budget_percent: Option<i64>,
    /// And so many a second in any case [default: 10]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    retry_budget_minimum: Option<i64>,
    /// How long a draining backend keeps its connections, such as 30s, or never [default: 30s]
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// What becomes of its connections then: reset, or keep [default: reset]
    #[arg(long, value_name = "POLICY")]
    drain_policy: Option<String>,
    /// How long one attempt to connect to a backend may take [default: 2s]
    #[arg(long, value_name = "DURATION")]
    connect_timeout: Option<String>,
    /// How long a connection may be without any data, from 1s on, or never [default: never]
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<String>,
    /// How long a connection may last, from 1s on, or never; it ends in a quiet moment of the last tenth [default: never]
    #[arg(long, value_name = "DURATION")]
    max_lifetime: Option<String>,
    /// The silence before the first keepalive probe to client and backend, or never [default: 2m]
    #[arg(long, value_name = "DURATION")]
    keepalive_idle: Option<String>,
    /// The time between keepalive probes [default: 15s]
    #[arg(long, value_name = "DURATION")]
    keepalive_interval: Option<String>,
    /// So many probes without an answer end the connection, 1 to 127 [default: 4]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keepalive_probes: Option<i64>,
    /// How long data may be without an acknowledgement, or never: then the kernel decides [default: never]
    #[arg(long, value_name = "DURATION")]
    user_timeout: Option<String>,
    /// Most connections of the service at once; 0 for no limit [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_connections: Option<i64>,
    /// Most connections of each backend at once; a full one is not picked; 0 for no limit [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_connections_per_backend: Option<i64>,
    /// Most connections of a client (an IPv4 address, or the /64 of an IPv6 address) at once; 0 for no limit [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_connections_per_client: Option<i64>,
    /// So many connections may wait for a place when all backends are full [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    queue_length: Option<i64>,
    /// For so long [default: 5s]
    #[arg(long, value_name = "DURATION")]
    queue_timeout: Option<String>,
    /// So many new connections a second may a client open; 0 for no limit [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    client_rate_per_second: Option<i64>,
    /// And so many at once after a pause [default: 10]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    client_rate_burst: Option<i64>,
    /// Only clients with these addresses may come in; may be repeated [default: all]
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    allow: Option<Vec<String>>,
    /// Clients with these addresses may not come in, even if they are allowed; may be repeated
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    deny: Option<Vec<String>>,
    /// Tell backends who the client is by a PROXY protocol header: off, v1 or v2 [default: off]
    #[arg(long, value_name = "VERSION")]
    proxy_protocol: Option<String>,
    /// Connections from these addresses begin with a PROXY protocol header that is believed; may be repeated
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    accept_proxy_protocol: Option<Vec<String>>,
    /// How long the header may take [default: 5s]
    #[arg(long, value_name = "DURATION")]
    proxy_protocol_timeout: Option<String>,
    /// How long a UDP session may be idle [default: 60s]
    #[arg(long, value_name = "DURATION")]
    udp_idle_timeout: Option<String>,
    /// How many replies each datagram of a UDP client gets, after which its session ends at once: 1 for DNS, 0 to end sessions
    /// only by the idle timeout [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    udp_responses: Option<i64>,
    /// A line in the access log for each connection that ended: off, text or json [default: off]
    #[arg(long, value_name = "FORMAT")]
    access_log: Option<String>,
    /// One of so many connections gets a line, by chance, 1 to 1000000 [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    access_log_sample: Option<i64>,
    /// Over which time a new backend's share rises to its whole weight; 0s for at once [default: 0s]
    #[arg(long, value_name = "DURATION")]
    slow_start: Option<String>,
    /// Whether backends attached on this node come before others [default: false]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    prefer_local: Option<bool>,
    /// The share of the backends on this node that must be healthy for that, in percent [default: 50]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    local_threshold: Option<i64>,
    /// With a smaller share of healthy backends, in percent, and no healthy backup, use all; 0 for never [default: 50]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    panic_threshold: Option<i64>,
    #[command(flatten)]
    ejection: EjectionArguments,
    #[command(flatten)]
    health_check: HealthCheckArguments,
}

/// A backend that cannot be reached is left out for a while.
#[derive(Debug, Args)]
struct EjectionArguments {
    /// Eject a backend after so many failed attempts to connect in a row; 0 for never [default: 5]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    ejection_failures: Option<i64>,
    /// How long the first ejection lasts; the n-th in short order lasts n times as long [default: 10s]
    #[arg(long, value_name = "DURATION")]
    ejection_base: Option<String>,
    /// How long an ejection lasts at most [default: 5m]
    #[arg(long, value_name = "DURATION")]
    ejection_longest: Option<String>,
    /// The largest share of the backends that is ejected at a time, in percent [default: 50]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    ejection_max_share: Option<i64>,
}

/// Backends are asked whether they are well.
#[derive(Debug, Args)]
struct HealthCheckArguments {
    /// Check backends by connecting to this port; 0 for no checks [default: 0]
    #[arg(long, value_name = "PORT", allow_negative_numbers = true)]
    health_check_port: Option<i64>,
    /// Send this text in a check
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    health_check_send: Option<String>,
    /// Pass a check only if this text is in the answer
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    health_check_expect: Option<String>,
    /// The time between two checks of a backend [default: 5s]
    #[arg(long, value_name = "DURATION")]
    health_check_interval: Option<String>,
    /// How long a check may take [default: 2s]
    #[arg(long, value_name = "DURATION")]
    health_check_timeout: Option<String>,
    /// After how many passed checks in a row an unhealthy backend is healthy again [default: 2]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    health_check_rise: Option<i64>,
    /// After how many failed checks in a row a healthy backend is unhealthy [default: 3]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    health_check_fall: Option<i64>,
}

impl SettingsArguments {
    /// What was given, as the fields of a request.
    pub(super) fn fields(self) -> Map<String, Value> {
        let mut fields = Fields::default();
        fields.put("algorithm", self.algorithm);
        fields.put("drain_timeout", self.drain_timeout);
        fields.put("drain_policy", self.drain_policy);
        fields.put("connect_timeout", self.connect_timeout);
        fields.put("retries", self.retries);
        fields.put("retry_budget.percent", self.retry_budget_percent);
        fields.put("retry_budget.minimum", self.retry_budget_minimum);
        fields.put("idle_timeout", self.idle_timeout);
        fields.put("max_lifetime", self.max_lifetime);
        fields.put("keepalive.idle", self.keepalive_idle);
        fields.put("keepalive.interval", self.keepalive_interval);
        fields.put("keepalive.probes", self.keepalive_probes);
        fields.put("user_timeout", self.user_timeout);
        fields.put("max_connections", self.max_connections);
        fields.put("max_connections_per_backend", self.max_connections_per_backend);
        fields.put("max_connections_per_client", self.max_connections_per_client);
        fields.put("queue.length", self.queue_length);
        fields.put("queue.timeout", self.queue_timeout);
        fields.put("client_rate.per_second", self.client_rate_per_second);
        fields.put("client_rate.burst", self.client_rate_burst);
        fields.put("allow", self.allow);
        fields.put("deny", self.deny);
        fields.put("proxy_protocol", self.proxy_protocol);
        fields.put("accept_proxy_protocol", self.accept_proxy_protocol);
        fields.put("proxy_protocol_timeout", self.proxy_protocol_timeout);
        fields.put("udp.idle_timeout", self.udp_idle_timeout);
        fields.put("udp.responses", self.udp_responses);
        fields.put("access_log.format", self.access_log);
        fields.put("access_log.sample", self.access_log_sample);
        fields.put("slow_start", self.slow_start);
        fields.put("prefer_local", self.prefer_local);
        fields.put("local_threshold", self.local_threshold);
        fields.put("panic_threshold", self.panic_threshold);
        let ejection = self.ejection;
        fields.put("ejection.failures", ejection.ejection_failures);
        fields.put("ejection.base", ejection.ejection_base);
        fields.put("ejection.longest", ejection.ejection_longest);
        fields.put("ejection.max_share", ejection.ejection_max_share);
        let check = self.health_check;
        fields.put("health_check.port", check.health_check_port);
        fields.put("health_check.send", check.health_check_send);
        fields.put("health_check.expect", check.health_check_expect);
        fields.put("health_check.interval", check.health_check_interval);
        fields.put("health_check.timeout", check.health_check_timeout);
        fields.put("health_check.rise", check.health_check_rise);
        fields.put("health_check.fall", check.health_check_fall);
        fields.0
    }
}

/// The fields of a request.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    /// Puts the value of a flag that was given. `path` leads through groups: `group.setting`.
    fn put(&mut self, path: &str, value: Option<impl Into<Value>>) {
        let Some(value) = value else { return };
        match path.split_once('.') {
            None => {
                self.0.insert(path.to_owned(), value.into());
            }
            Some((group, setting)) => {
                let group = self.0.entry(group).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(fields) = group {
                    fields.insert(setting.to_owned(), value.into());
                }
            }
        }
    }
}
