//! No change breaks a connection that does not go to a removed backend.

use crate::node::{Node, wait_until};
use ringlb_load::{LoadOptions, Workload};
use std::net::{IpAddr, SocketAddr};

/// 1,000 long connections, 10,000 changes of other backends and other services.
#[test]
fn long_connections_live_through_ten_thousand_changes() {
    let node = Node::with_network();
    let vip = IpAddr::from([10, 0, 200, 1]);
    let backends = [node.container(11), node.container(12)];
    let _servers = backends.each_ref().map(|backend| backend.serve(&backend.address.to_string(), 80));
    let client = node.container(100);
    node.service("web", vip, "rr", &[&backends[0], &backends[1]]);
    node.ringlb(&["service", "create", "net", "other"]);
    let mut options = LoadOptions::new(vec![SocketAddr::new(vip, 80)], Workload::Pingpong { size_bytes: 64 });
    options.connections = 1_000;
    // Steady work on every connection that leaves the machine time for the changes.
    options.rate = Some(4_000.0);
    // A machine that is busy with something else too is not what is looked for here.
    options.timeout = crate::node::PATIENCE;
    let load = client.load(options);
    wait_until("all connections are open and in use", || load.snapshot().requests > 1_000);
    let mut admin = node.admin();
    for round in 0..2_500u32 {
        let [_, _, high, low] = (0x4000 + round).to_be_bytes();
        let other = format!("/v1/networks/net/services/other/backends/10.0.{high}.{low}");
        // Nobody answers there: it must not be picked for a new connection, but the old ones are what counts here.
        let same = format!("/v1/networks/net/services/web/backends/10.0.{high}.{low}");
        admin.done("PUT", &other, r#"{"weight": 1}"#);
        admin.done("PUT", &same, r#"{"weight": 0}"#);
        admin.done("DELETE", &same, "");
        admin.done("DELETE", &other, "");
    }
    load.stop();
    let report = load.join().unwrap();
    assert_eq!(report.failures, 0, "{report}");
    assert_eq!(report.connections_opened, 1_000, "{report}");
    assert!(report.requests > 1_000, "{report}");
}
