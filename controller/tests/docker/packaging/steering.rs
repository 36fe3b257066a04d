//! A service that systemd does not let load BPF programs.

use super::unit::Unit;
use crate::cluster::Cluster;
use crate::requests::{ask, wait_for_servers};
use crate::state::state_of;

/// What there is instead, in namespaces that are Docker's, is gone when the daemon is.
#[test]
fn where_bpf_is_refused_rules_serve_and_none_stays() {
    let cluster = Cluster::boot(1);
    cluster.create_network("net");
    cluster.create_service("web", &["--network", "net", "--replicas", "2"]);
    cluster.wait_for_replicas("web", 2);
    let engine = cluster.manager();
    let client = engine.client("client", "net");
    let vip = cluster.target("web", "net", 80);
    let unit = Unit::install(engine);
    let without_keep = "ExecStart=\nExecStart=/usr/local/bin/ringlb daemon --source docker\n";
    let without_bpf = "SystemCallFilter=~bpf\nSystemCallErrorNumber=EPERM\n";
    unit.change(&format!("[Service]\n{without_keep}{without_bpf}"));
    let sandbox = engine.overlay_sandbox("net");
    let before = state_of(&sandbox);

    unit.systemctl("start");
    wait_for_servers(&client, vip, &cluster.servers_of("web"));
    assert_eq!(unit.admin.network("net").unwrap()["sandbox"]["steering"], "tproxy");
    assert_ne!(state_of(&sandbox), before);

    unit.systemctl("stop");
    assert_eq!(unit.running_proxies(), [0; 0]);
    assert_eq!(state_of(&sandbox), before);
    ask(&client, vip).unwrap_err();
}
