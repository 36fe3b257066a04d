//! Daemons that are killed at any moment.

use super::site::{Site, settled_proxy};
use super::stream::{Stream, vip_index};
use super::{chance, number, print_times};
use crate::node::{Admin, Node, PATIENCE, Process};
use ringlb_load::{LoadHandle, LoadOptions, Workload};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const NETWORKS: u8 = 3;
const SERVICES: usize = 1_000;
/// The published ports of the service that does not change, one for each network behind this one.
const FIRST_PORT: u16 = 18_100;

/// A daemon is killed again and again in the middle of a stream of changes, and at times before it is ready. What was
/// acknowledged is there after each start, in the proxies too; no proxy and no connection notices.
#[test]
fn a_daemon_that_is_killed_again_and_again_loses_nothing() {
    let mut chance = chance();
    let kills: u32 = number("RINGLB_KILLS", 200);
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--state-dir", state_dir.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments);
    let sites: Vec<_> = (1..=NETWORKS).map(|number| Site::make(&node, number)).collect();
    let each = SERVICES / usize::from(NETWORKS);
    let mut streams: Vec<_> = sites.iter().map(|site| Stream::new(site, each, chance.fork())).collect();
    apply(&node, &sites, &mut streams);
    let steady: Vec<_> = sites.iter().enumerate().flat_map(|(index, site)| steady_loads(site, index)).collect();
    let proxies = proxies(&sites, &node.admin().get("/v1/status")).unwrap();

    let socket = node.run_dir.path().join("admin.sock");
    let (mut times, mut killed, mut early) = (Vec::new(), 0, 0);
    while killed < kills {
        let mut admins: Vec<_> = streams.iter().map(|_| Admin::connect(&socket)).collect();
        std::thread::scope(|scope| {
            for (stream, admin) in streams.iter_mut().zip(&mut admins) {
                scope.spawn(|| stream.run(admin));
            }
            std::thread::sleep(Duration::from_millis(chance.u64(..150)));
            kill(&mut node.daemon);
        });
        killed += 1;
        let mut started = Instant::now();
        node.daemon = Node::spawn_daemon(node.run_dir.path(), &arguments, Stdio::null());
        while chance.u8(..4) == 0 {
            std::thread::sleep(Duration::from_millis(chance.u64(..100)));
            kill(&mut node.daemon);
            (killed, early, started) = (killed + 1, early + 1, Instant::now());
            node.daemon = Node::spawn_daemon(node.run_dir.path(), &arguments, Stdio::null());
        }
        times.push(converged(&mut node.daemon, &socket, &sites, &proxies, started));
        let exported = Admin::connect(&socket).get("/v1/export");
        for (site, stream) in sites.iter().zip(&mut streams) {
            stream.settle(&exported);
            check_service(site, stream, stream.last);
            check_service(site, stream, chance.usize(..each));
        }
    }
    for load in steady {
        load.stop();
        let report = load.join().unwrap();
        assert_eq!((report.failures, report.connections_opened), (0, report.connections), "{report}");
        assert!(report.requests > u64::from(kills), "{report}");
    }
    let acknowledged: u64 = streams.iter().map(|stream| stream.acknowledged).sum();
    println!("{killed} daemons killed, {early} of them soon after their start; {acknowledged} changes acknowledged");
    print_times(format!("from the start to {SERVICES} services being as they should"), &mut times);
    assert!(acknowledged > u64::from(kills), "{acknowledged} changes");
}

/// The first state: the services of the streams, and on each network one that does not change.
fn apply(node: &Node, sites: &[Site], streams: &mut [Stream<'_>]) {
    let mut admin = node.admin();
    let mut state = admin.get("/v1/export");
    for (index, (site, stream)) in sites.iter().zip(streams).enumerate() {
        let networks = state["networks"].as_array_mut().unwrap();
        let network = networks.iter_mut().find(|network| network["name"] == site.network.as_str()).unwrap();
        let mut services = stream.first_services();
        services.push(json!({
            "name": "steady",
            "vip": site.vip(0),
            "published": [{"port": published(index), "target": super::site::PORT}],
            "backends": [{"ip": site.server(0)}, {"ip": site.server(1)}],
        }));
        network["services"] = Value::Array(services);
    }
    admin.done("POST", "/v1/apply", &state.to_string());
}

fn published(index: usize) -> u16 {
    FIRST_PORT + u16::try_from(index).unwrap()
}

/// Connections that stay open, with a byte going back and forth: by VIP and by published port.
fn steady_loads(site: &Site, index: usize) -> [LoadHandle; 2] {
    let options = |target: SocketAddr| {
        let mut options = LoadOptions::new(vec![target], Workload::Pingpong { size_bytes: 1 });
        (options.connections, options.rate) = (8, Some(80.0));
        options
    };
    let by_port = SocketAddr::from((Ipv4Addr::LOCALHOST, published(index)));
    [site.client.load(options(site.target(0))), ringlb_load::Load::start(options(by_port)).unwrap()]
}

/// The processes of all proxies, if all networks are as they should be.
fn proxies(sites: &[Site], status: &Value) -> Option<Vec<i32>> {
    sites.iter().map(|site| settled_proxy(site.of(status))).collect()
}

/// Waits until all is as it should be, with the proxies that were there; gives how long it has taken.
fn converged(daemon: &mut Process, socket: &Path, sites: &[Site], proxies: &[i32], started: Instant) -> Duration {
    loop {
        assert!(started.elapsed() < PATIENCE, "the daemon does not settle");
        assert!(daemon.0.try_wait().unwrap().is_none(), "the daemon ended");
        let admin = Admin::try_connect(socket);
        let Ok(mut admin) = admin else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let status = admin.get("/v1/status");
        if let Some(now) = self::proxies(sites, &status) {
            assert_eq!(now, proxies, "a proxy was replaced");
            return started.elapsed();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The proxy serves the service by the servers that were acknowledged, and by none if there are none.
fn check_service(site: &Site, stream: &Stream<'_>, index: usize) {
    let eligible = stream.eligible(index);
    let mut answer = String::new();
    let asked = site.client.run(|| {
        let mut connection = std::net::TcpStream::connect(site.target(vip_index(index)))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(b"ID\n")?;
        connection.read_to_string(&mut answer)
    });
    let served = asked.is_ok().then(|| answer.trim().to_owned()).filter(|name| !name.is_empty());
    match served {
        Some(server) => assert!(eligible.contains(&server), "{server} serves, {eligible:?} may"),
        None => assert!(eligible.is_empty(), "{asked:?}, but {eligible:?} may serve"),
    }
}

fn kill(daemon: &mut Process) {
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
}
