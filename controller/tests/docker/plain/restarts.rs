//! What is killed, started again, or removed comes back with the same VIP.

use super::{NETWORK, Plain, SERVER, backends};
use crate::load::SteadyLoad;
use crate::requests::{ask, wait_for_servers};
use crate::wait::wait_until;
use crate::wire::port_of;

const LABELS: [&str; 2] = ["ringlb.service=web", "ringlb.publish=8080:80"];

#[test]
fn after_a_restart_of_the_engine_or_the_daemon_everything_is_as_before() {
    let mut plain = Plain::start();
    // Two more services, started in another order by each Engine: addresses of the Engine's choice would change places.
    let options = ["--network", NETWORK, "--restart", "always"];
    let run = |plain: &Plain, name, labels: &[&str]| plain.run_with(name, labels, &options, &SERVER);
    let servers = ["one", "two"].map(|name| run(&plain, name, &LABELS));
    let others = [("three", "ringlb.service=b"), ("four", "ringlb.service=c")];
    let others = others.map(|(name, label)| run(&plain, name, &[label]));
    let client = plain.client();
    let mut daemon = plain.daemon();
    let vips = ["web", "b", "c"].map(|service| plain.target(&daemon, service, 80));
    wait_for_servers(&client, vips[0], &servers);
    wait_for_servers(plain.outside(), port_of(1, 8080), &servers);
    let proxies = daemon.proxies();
    assert_eq!(proxies.len(), 3, "{proxies:?}");

    // The daemon is killed, and the next one takes the proxies over.
    let loads = [SteadyLoad::start(&client, vips[0], 100), SteadyLoad::start(plain.outside(), port_of(1, 8080), 100)];
    let goes_on = || {
        let before = loads.each_ref().map(SteadyLoad::answered);
        wait_until("the load goes on", || {
            loads.iter().zip(before).all(|(load, before)| load.answered() > before + 100)
        });
    };
    goes_on();
    daemon.kill();
    goes_on();
    daemon = plain.daemon();
    wait_until("the proxies are taken over", || daemon.proxies() == proxies);
    assert_eq!(backends(&daemon, "shop.web").len(), 2);

    // The Engine is killed: VIPs and ports go on without one.
    plain.engine.kill();
    goes_on();
    for load in loads {
        let record = load.stop();
        println!("{record}");
        record.assert_no_failure();
    }
    plain.engine.start();
    plain.engine.wait_until_ready();
    wait_until("all are served by new proxies", || {
        let now = daemon.proxies();
        now.len() == 3 && now.iter().all(|proxy| !proxies.contains(proxy))
    });
    plain.engine.docker(&["start", "client"]);
    let client = plain.engine.namespace_of("client");
    wait_for_servers(&client, vips[0], &servers);
    wait_for_servers(&client, vips[1], &others[..1]);
    wait_for_servers(&client, vips[2], &others[1..]);
    wait_for_servers(plain.outside(), port_of(1, 8080), &servers);
    assert_eq!(["web", "b", "c"].map(|service| plain.target(&daemon, service, 80)), vips);

    // The holder is stopped, and removed, by hand.
    let id = plain.holder("web").unwrap()["Id"].as_str().unwrap().to_owned();
    plain.engine.docker(&["stop", &id]);
    wait_for_servers(&client, vips[0], &servers);
    assert_eq!(plain.holder("web").unwrap()["Id"], *id, "it is made anew where a start would do");
    plain.engine.docker(&["rm", "--force", &id]);
    wait_until("there is another holder", || plain.holder("web").is_some_and(|holder| holder["Id"] != *id));
    wait_for_servers(&client, vips[0], &servers);
    wait_for_servers(plain.outside(), port_of(1, 8080), &servers);
    assert_eq!(plain.target(&daemon, "web", 80), vips[0]);

    // It stopped, and its network is another one of that name: it cannot be started any more.
    daemon.kill();
    let id = plain.holder("web").unwrap()["Id"].as_str().unwrap().to_owned();
    for service in ["web", "b", "c"] {
        let id = plain.holder(service).unwrap()["Id"].as_str().unwrap().to_owned();
        plain.engine.docker(&["stop", &id]);
    }
    plain.engine.docker(&["rm", "--force", "one", "two", "three", "four", "client"]);
    plain.engine.docker(&["network", "rm", NETWORK]);
    plain.engine.docker(&["network", "create", "--subnet", super::SUBNET, NETWORK]);
    let servers = [run(&plain, "five", &LABELS)];
    let client = plain.client();
    daemon = plain.daemon();
    wait_for_servers(&client, vips[0], &servers);
    assert_ne!(plain.holder("web").unwrap()["Id"], *id);
    wait_until("the holders of services that are gone are gone", || plain.holder("b").is_none());
    assert!(ask(&client, vips[1]).is_err());
    drop(daemon);
}
