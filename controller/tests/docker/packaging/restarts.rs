//! The service's daemon ends in all the ways there are, and its proxies go on.

use super::unit::Unit;
use crate::cluster::Cluster;
use crate::lasting::Lasting;
use crate::load::SteadyLoad;
use crate::requests::wait_for_servers;
use crate::state::{assert_same, state_of};
use crate::wait::{finish, wait_until};
use crate::wire::port_of;

#[test]
fn connections_outlive_the_daemon_of_the_service_however_it_ends() {
    let cluster = Cluster::boot(1);
    cluster.create_network("net");
    cluster.create_service("web", &["--network", "net", "--replicas", "2", "--publish", "80:80"]);
    cluster.wait_for_replicas("web", 2);
    let engine = cluster.manager();
    let client = engine.client("client", "net");
    let namespaces = [&engine.machine.namespace, &engine.overlay_sandbox("net"), &engine.sandbox("ingress_sbox")];
    let untouched = namespaces.map(state_of);
    let unit = Unit::start(engine);
    let (vip, published) = (cluster.target("web", "net", 80), port_of(1, 80));
    let outside = &cluster.wire.namespace;
    let servers = cluster.servers_of("web");
    wait_for_servers(&client, vip, &servers);
    wait_for_servers(outside, published, &servers);

    let proxies = unit.admin.proxies();
    assert_eq!(proxies.len(), 2, "{proxies:?}");
    let lasting = [Lasting::open(&client, vip, &servers, 4), Lasting::open(outside, published, &servers, 4)];
    let loads = [SteadyLoad::start(&client, vip, 50), SteadyLoad::start(outside, published, 50)];
    let goes_on = || {
        let before = loads.each_ref().map(SteadyLoad::answered);
        wait_until("the load goes on", || loads.iter().zip(before).all(|(load, before)| load.answered() > before + 50));
    };
    let is_taken_over_by_another_than = |daemon: u32| {
        wait_until("there is another daemon", || ![0, daemon].contains(&unit.main_pid()));
        unit.wait_until_it_answers();
        wait_until("the proxies are taken over", || unit.admin.proxies() == proxies);
    };
    goes_on();

    let daemon = unit.main_pid();
    engine.machine.systemctl(&["kill", "--signal=SIGKILL", "--kill-whom=main", "ringlb"]);
    is_taken_over_by_another_than(daemon);
    assert_eq!(unit.property("NRestarts"), "1");
    goes_on();

    let daemon = unit.main_pid();
    unit.systemctl("restart");
    is_taken_over_by_another_than(daemon);
    goes_on();

    let daemon = unit.main_pid();
    unit.systemctl("stop");
    assert_eq!((unit.property("ActiveState").as_str(), unit.main_pid()), ("inactive", 0));
    goes_on();
    let mut left: Vec<i64> = proxies.iter().map(|(_, pid)| *pid).collect();
    left.sort_unstable();
    assert_eq!(unit.running_proxies(), left);
    unit.systemctl("start");
    is_taken_over_by_another_than(daemon);

    // Taken over, and not only left alone.
    cluster.update_service("web", &["--replicas", "3"]);
    cluster.wait_for_replicas("web", 3);
    let servers = cluster.servers_of("web");
    wait_for_servers(&client, vip, &servers);
    wait_for_servers(outside, published, &servers);
    goes_on();
    for load in loads {
        let record = load.stop();
        println!("{record}");
        record.assert_no_failure();
    }
    for lasting in lasting {
        let ends = lasting.close();
        assert!(ends.is_empty(), "{ends:?}");
    }
    assert_eq!(unit.admin.proxies(), proxies);

    // What README says about how to leave nothing.
    engine.machine.systemctl(&["disable", "--quiet", "--now", "ringlb"]);
    assert_eq!(unit.running_proxies(), left);
    finish(engine.machine.command("ringlb").arg("cleanup"));
    assert_eq!(unit.running_proxies(), [0; 0]);
    for ((name, namespace), before) in ["the node", "the sandbox", "the ingress"].iter().zip(namespaces).zip(&untouched)
    {
        assert_same(name, &state_of(namespace), before);
    }
}
