//! A service's settings on the command line: one flag each.
//!
//! Values are not checked here but by the daemon, which says what is wrong with them in the same words to everybody.

use clap::Args;
use serde_json::{Map, Value};

#[derive(Debug, Args)]
pub(super) struct SettingsArguments {
    /// How a backend is chosen: rr (each in turn), p2c (two random ones, the less busy), wrr (in turn, by weight), maglev or
    /// source-hash (by the client's address) [default: rr]
    #[arg(long)]
    algorithm: Option<String>,
    /// How long a draining backend keeps its connections, such as 30s, or never [default: 30s]
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// How long one attempt to connect to a backend may take [default: 2s]
    #[arg(long, value_name = "DURATION")]
    connect_timeout: Option<String>,
    /// How long a UDP session may be idle [default: 60s]
    #[arg(long, value_name = "DURATION")]
    udp_idle_timeout: Option<String>,
    /// How many replies each datagram of a UDP client gets, after which its session ends at once: 1 for DNS, 0 to end sessions
    /// only by the idle timeout [default: 0]
    #[arg(long, value_name = "NUMBER")]
    udp_responses: Option<u64>,
}

impl SettingsArguments {
    /// What was given, as the fields of a request.
    pub(super) fn fields(self) -> Map<String, Value> {
        let mut fields = Fields::default();
        fields.put("algorithm", self.algorithm);
        fields.put("drain_timeout", self.drain_timeout);
        fields.put("connect_timeout", self.connect_timeout);
        fields.put("udp.idle_timeout", self.udp_idle_timeout);
        fields.put("udp.responses", self.udp_responses);
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
