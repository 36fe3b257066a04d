//! Envoy's TCP and UDP proxies, with one worker thread.

use super::Found;
use crate::bench::BenchError;
use crate::bench::topology::{BACKENDS, PORT};
use crate::instruments::process::Process;
use ringlb_netns::Namespace;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

pub(super) fn start(program: &Found, sandbox: &Namespace, directory: &Path) -> Result<Process, BenchError> {
    let file = directory.join("envoy.json");
    fs::write(&file, configuration().to_string()).map_err(BenchError::file("write", &file))?;
    let mut command = Command::new(&program.path);
    command.args(["--concurrency", "1", "--log-level", "warning", "--disable-hot-restart", "-c"]).arg(&file);
    Process::start(&mut command, Some(sandbox), &directory.join("envoy.log"))
}

const ENDLESS: &str = "0s";
/// Envoy's defaults are 1,024 connections and requests.
const UNLIMITED: u32 = 1_000_000;

fn configuration() -> Value {
    json!({
        "static_resources": {
            "listeners": [tcp_listener(), udp_listener()],
            "clusters": [cluster()],
        },
        // What it says of limits that are not set.
        "overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": UNLIMITED,
            },
        }]},
    })
}

fn tcp_listener() -> Value {
    json!({
        "name": "tcp",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": PORT}},
        "tcp_backlog_size": 4096,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "tcp",
                "cluster": "backends",
                "idle_timeout": ENDLESS,
            },
        }]}],
    })
}

fn udp_listener() -> Value {
    json!({
        "name": "udp",
        "address": {"socket_address": {"protocol": "UDP", "address": "0.0.0.0", "port_value": PORT}},
        // SOL_SOCKET and SO_RCVBUF: as nginx has it, as far as `net.core.rmem_max` allows.
        "socket_options": [{"level": 1, "name": 8, "int_value": 4_194_304, "state": "STATE_PREBIND"}],
        "udp_listener_config": {"downstream_socket_config": {"max_rx_datagram_size": 9000}},
        "listener_filters": [{
            "name": "envoy.filters.udp_listener.udp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
                "stat_prefix": "udp",
                "matcher": {"on_no_match": {"action": {
                    "name": "route",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.Route",
                        "cluster": "backends",
                    },
                }}},
                "upstream_socket_config": {"max_rx_datagram_size": 9000},
            },
        }],
    })
}

fn cluster() -> Value {
    let endpoints: Vec<_> = BACKENDS
        .iter()
        .map(|backend| {
            let address = json!({"address": backend.address.to_string(), "port_value": PORT});
            json!({"endpoint": {"address": {"socket_address": address}}})
        })
        .collect();
    json!({
        "name": "backends",
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [{
            "max_connections": UNLIMITED, "max_pending_requests": UNLIMITED, "max_requests": UNLIMITED,
        }]},
        "load_assignment": {"cluster_name": "backends", "endpoints": [{"lb_endpoints": endpoints}]},
    })
}
