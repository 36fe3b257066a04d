//! The VIP, its name, and the published port.

use super::{NETWORK, Plain, SERVER};
use crate::image::IMAGE;
use crate::requests::{ask, ask_all, ask_udp, wait_for_servers};
use crate::wait::{wait_until, wait_within};
use crate::wire::{ipv6_address_of, port_of};
use ringlb_netns::Namespace;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

const LABELS: [&str; 2] = ["ringlb.service=web", "ringlb.publish=8080:80,8080:80/udp"];
/// Much less than what passes before all is looked at without an event.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn labelled_containers_have_a_vip_a_name_and_a_published_port() {
    let plain = Plain::start();
    let engine = &plain.engine;
    let mut servers: Vec<String> = ["one", "two", "three"].map(|name| plain.run(name, &LABELS)).into();
    let client = plain.client();
    let daemon = plain.daemon();
    let vip = plain.target(&daemon, "web", 80);
    let port = |address: std::net::IpAddr| SocketAddr::new(address, 8080);
    let ways = [
        ("a container, by VIP", &client, vip),
        ("a container, by another port of the VIP", &client, SocketAddr::new(vip.ip(), 7777)),
        ("a container, by the node's address", &client, port_of(1, 8080)),
        ("the node, by localhost", plain.node(), port(Ipv4Addr::LOCALHOST.into())),
        ("the node, by IPv6 localhost", plain.node(), port(Ipv6Addr::LOCALHOST.into())),
        ("the node, by its address", plain.node(), port_of(1, 8080)),
        ("outside", plain.outside(), port_of(1, 8080)),
        ("outside, by IPv6", plain.outside(), port(ipv6_address_of(1))),
    ];
    for (way, from, target) in ways {
        wait_for_servers(from, target, &servers);
        let answers = ask_all(from, target, 30);
        assert_eq!(answers.values().copied().collect::<Vec<_>>(), [10; 3], "from {way}: {answers:?}");
        all_answer_datagrams(from, if target.port() == 7777 { vip } else { target }, &servers);
    }
    ask(&client, SocketAddr::new(vip.ip(), 9999)).unwrap_err();

    // By its name, as Docker's own DNS gives it.
    let by_name = ["tcp", "web:80", "--requests", "30", "--json", "--quiet", "--fail-on-error"];
    let asker = ["run", "--rm", "--cap-add", "IPC_LOCK", "--network", NETWORK, IMAGE];
    let report = engine.docker(&[&asker[..], &by_name].concat());
    for server in &servers {
        assert!(report.contains(server.as_str()), "{server} did not answer: {report}");
    }

    // The address is Docker's to give, and it gives it to nobody else.
    let address = vip.ip().to_string();
    let mut greedy = engine.cli();
    greedy.args(["run", "--rm", "--network", NETWORK, "--ip", &address, IMAGE]).args(SERVER);
    let refused = greedy.output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("already in use"), "{refused:?}");

    servers.push(plain.run("four", &LABELS));
    wait_for_servers(&client, vip, &servers);
    // Connected only after its start: no event of the container tells.
    engine.docker(&["network", "create", "elsewhere"]);
    servers.push(plain.run_with("five", &["ringlb.service=web"], &["--network", "elsewhere"], &SERVER));
    wait_until("it is served where it is", || daemon.network("elsewhere.web").is_some());
    engine.docker(&["network", "connect", NETWORK, "five"]);
    wait_within(SOON, "a container that is connected later is used", || {
        servers.iter().all(|server| (0..10).any(|_| ask(&client, vip).is_ok_and(|answered| answered == *server)))
    });

    // The holder goes with the last container; one that is stopped keeps it.
    engine.docker(&["rm", "--force", "two", "three", "four", "five"]);
    engine.docker(&["stop", "--time", "0", "one"]);
    wait_until("no backend is left", || ask(&client, vip).is_err());
    wait_until("the other network's holder is gone", || daemon.network("elsewhere.web").is_none());
    assert_eq!(plain.holder("web").unwrap()["State"], "running");
    engine.docker(&["start", "one"]);
    wait_for_servers(&client, vip, &servers[..1]);
    engine.docker(&["rm", "--force", "one", "client"]);
    wait_within(SOON, "the holder is gone", || plain.holder("web").is_none());
    wait_until("nothing of it is served any more", || daemon.network("shop.web").is_none());
    ask(plain.outside(), port_of(1, 8080)).unwrap_err();
    engine.docker(&["network", "rm", NETWORK, "elsewhere"]);
}

#[track_caller]
fn all_answer_datagrams(from: &Namespace, target: SocketAddr, servers: &[String]) {
    let expected: BTreeSet<&String> = servers.iter().collect();
    let mut seen = BTreeSet::new();
    wait_until(&format!("all answer datagrams to {target}"), || {
        seen.extend(ask_udp(from, target));
        seen.iter().eq(expected.iter().copied())
    });
}
