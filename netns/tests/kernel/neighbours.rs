use crate::support::{
    CLIENT, CLIENT_V6, LB, LB_V6, Network, Stack, VIPS, VIPS_V6, accept, connect, ip, iproute2, is_silent, net, ping,
    plan, sysctl, threads, to, until,
};
use ringlb_netns::{Error, Fabric, Namespace, NetworkPlan, Sandbox, SteeredSockets};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;
use std::time::Duration;

#[tokio::test]
async fn ipv6_vips_answer_while_they_have_a_route() {
    let network = Network::of("vips-v6", Stack::V6).await;
    assert!(ping(&network.client, LB_V6) && ping(network.sandbox.namespace(), CLIENT_V6));
    for vip in VIPS_V6 {
        assert!(ping(&network.client, vip), "{vip}");
        assert!(ping(network.sandbox.namespace(), vip), "{vip} from the sandbox");
    }
    // Neither on the link nor anywhere.
    for nobody in ["fd77::2:0", "fd99::1:2"] {
        assert!(is_silent(&network.client, nobody), "{nobody}");
        assert!(!has_neighbour(&network.client, nobody), "{nobody}");
    }
    for _twice in 0..2 {
        network.sandbox.remove_vip_route(net("fd99::1:1/128")).await.unwrap();
        assert!(is_silent(&network.client, "fd99::1:1"));
    }
    network.sandbox.add_vip_route(net("fd99::1:1/128")).await.unwrap();
    assert!(ping(&network.client, "fd99::1:1"));
    network.remove();
}

/// What a machine asks that has known the VIP for a while: a solicitation to the VIP itself, not to a group.
#[tokio::test]
async fn a_known_neighbour_is_found_to_be_still_there() {
    let network = Network::of("probe-v6", Stack::V6).await;
    let vip = VIPS_V6[1];
    assert!(ping(&network.client, vip));
    network.client.set_sysctl("net/ipv6/neigh/eth0/delay_first_probe_time", "0").unwrap();
    iproute2(&network.client, &["neigh", "change", vip, "dev", "eth0", "nud", "stale"]);
    assert!(neighbour(&network.client, vip).contains("STALE"));
    assert!(ping(&network.client, vip));
    until("the neighbour is reachable", || neighbour(&network.client, vip).contains("REACHABLE").then_some(()));
    network.remove();
}

#[tokio::test]
async fn the_neighbour_is_the_sandboxs_interface() {
    let network = Network::of("mac-v6", Stack::V6).await;
    let eth0 = network.sandbox.namespace().links().await.unwrap().link("eth0").await.unwrap().unwrap();
    let mac = eth0.mac.unwrap().map(|byte| format!("{byte:02x}")).join(":");
    for address in VIPS_V6.into_iter().chain([LB_V6]) {
        assert!(ping(&network.client, address), "{address}");
        assert!(neighbour(&network.client, address).contains(&mac), "{address} is not at {mac}");
    }
    network.remove();
}

/// It has asked before the VIP was there, and would ask again only after a minute.
#[tokio::test]
async fn a_client_that_asked_in_vain_is_told_of_a_new_vip() {
    let network = Network::of("announced", Stack::Dual).await;
    for (vip, family) in [("10.99.2.1", "ipv4"), ("fd99::2:1", "ipv6")] {
        let parameter = format!("net/{family}/neigh/eth0/retrans_time_ms");
        network.client.set_sysctl(&parameter, "60000").unwrap();
        let known = || iproute2(&network.client, &["neigh", "show", vip, "dev", "eth0"]);
        assert!(is_silent(&network.client, vip));
        assert!(known().contains("INCOMPLETE"), "{}", known());
        network.sandbox.add_vip_route(ip(vip).into()).await.unwrap();
        until("the client knows where the VIP is", || known().contains("lladdr").then_some(()));
        assert!(ping(&network.client, vip));
    }
    network.remove();
}

/// No tentative phase, also where IPv6 is switched off.
#[tokio::test]
async fn an_ipv6_address_is_usable_at_once() {
    let network = Network::of("at-once-v6", Stack::Dual).await;
    let namespace = Namespace::create("ringlb-test-at-once-v6-container").unwrap();
    // As in a container that knows nothing of IPv6.
    namespace.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    namespace.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    network.fabric.connect("port", &namespace, "eth0", Stack::Dual.addresses("10.77.0.20", "fd77::20")).await.unwrap();
    namespace.run(|| TcpListener::bind(to("fd77::20", 80)).unwrap()).unwrap();
    let addresses = iproute2(&namespace, &["-6", "-oneline", "address", "show", "dev", "eth0"]);
    let address = addresses.lines().find(|line| line.contains("fd77::20/64")).unwrap();
    assert!(!address.contains("tentative") && !address.contains("dadfailed"), "{address}");
    assert!(addresses.contains("fe80::"), "{addresses}");
    assert_eq!(sysctl(&namespace, "net/ipv6/conf/eth0/accept_ra").as_deref(), Some("0"));
    assert!(ping(&network.client, "fd77::20") && ping(&namespace, VIPS_V6[0]) && ping(&namespace, LB));
    // A second daemon leaves it as it is.
    let index = namespace.links().await.unwrap().link("eth0").await.unwrap().unwrap().index;
    network.fabric.connect("port", &namespace, "eth0", Stack::Dual.addresses("10.77.0.20", "fd77::20")).await.unwrap();
    assert_eq!(namespace.links().await.unwrap().link("eth0").await.unwrap().unwrap().index, index);
    // An attachment of one family on a network of both.
    network.fabric.connect("port", &namespace, "eth0", ip("10.77.0.20")).await.unwrap();
    assert!(is_silent(&network.client, "fd77::20") && ping(&network.client, "10.77.0.20"));
    assert_eq!(iproute2(&namespace, &["-6", "address", "show", "dev", "eth0"]), "");
    network.remove();
    Namespace::remove(namespace.name().unwrap()).unwrap();
}

/// Neighbours still know the hardware address of the container that had the address before.
#[tokio::test]
async fn an_ipv6_address_that_moves_is_reached_at_once() {
    let network = Network::of("moves-v6", Stack::V6).await;
    let containers = [1, 2].map(|number| Namespace::create(&format!("ringlb-test-moves-v6-{number}")).unwrap());
    for (container, port) in containers.iter().zip(["before", "after"]) {
        network.fabric.connect(port, container, "eth0", ip("fd77::20")).await.unwrap();
        assert!(ping(&network.client, "fd77::20"));
        network.fabric.disconnect(port).await.unwrap();
    }
    network.remove();
    for container in containers {
        Namespace::remove(container.name().unwrap()).unwrap();
    }
}

/// With a multicast querier on the link, a bridge that snoops keeps solicitations from those that have not joined their
/// group. Here the bridge itself is the querier, which needs an address.
#[tokio::test]
async fn a_multicast_querier_does_not_hide_vips() {
    let network = Network::of("querier", Stack::V6).await;
    let bridge = network.fabric.namespace();
    bridge.set_sysctl("net/ipv6/conf/br0/disable_ipv6", "0").unwrap();
    iproute2(bridge, &["address", "add", "fe80::b/64", "dev", "br0", "nodad"]);
    // In this order: it becomes the querier after the interval, here 10 ms, in which nothing that could be waited for
    // changes.
    for option in [["mcast_query_response_interval", "1"], ["mcast_querier", "1"]] {
        iproute2(bridge, &[["link", "set", "br0", "type", "bridge"].as_slice(), &option].concat());
    }
    thread::sleep(Duration::from_millis(100));
    for vip in VIPS_V6 {
        assert!(ping(&network.client, vip), "{vip}");
    }
    network.remove();
}

#[tokio::test]
async fn a_dual_stack_sandbox_is_taken_over_with_its_vips() {
    let network = Network::of("adopt-dual", Stack::Dual).await;
    let plan = network.fabric.plan();
    let before = network.sandbox.namespace().links().await.unwrap().link("eth0").await.unwrap();
    let again = Sandbox::ensure(plan, &Fabric::ensure(plan).await.unwrap(), Stack::Dual.lb()).await.unwrap();
    assert_eq!(again.namespace().links().await.unwrap().link("eth0").await.unwrap(), before);
    assert_eq!(again.addresses(), Stack::Dual.lb());
    let routes = ["10.77.0.128/25", "10.99.1.1/32", "fd77::1:0/112", "fd99::1:1/128"].map(net);
    assert_eq!(again.vip_routes().await.unwrap(), routes);
    for vip in Stack::Dual.vips() {
        assert!(ping(&network.client, &vip.to_string()), "{vip}");
    }
    for (path, value) in [("forwarding", "0"), ("accept_ra", "0"), ("disable_ipv6", "0")] {
        let path = format!("net/ipv6/conf/eth0/{path}");
        assert_eq!(sysctl(again.namespace(), &path).as_deref(), Some(value), "{path}");
    }
    network.remove();
}

#[tokio::test]
async fn an_lb_endpoint_needs_an_address_of_each_family() {
    let plan = NetworkPlan { subnets: Stack::Dual.subnets(), ..plan("families") };
    let fabric = Fabric::ensure(&plan).await.unwrap();
    for address in [LB, LB_V6] {
        let error = Sandbox::ensure(&plan, &fabric, ip(address)).await.unwrap_err();
        assert!(matches!(error, Error::AddressMissing { .. }), "{error}");
    }
    assert!(!Namespace::list().unwrap().contains(&plan.sandbox_namespace()));
    plan.remove().unwrap();
}

/// A backend that is a client of its own VIP: for it, the LB endpoint is the client.
#[tokio::test]
async fn a_backend_reaches_its_own_vip() {
    let network = Network::of("hairpin", Stack::Dual).await;
    let namespace = network.sandbox.namespace();
    let steered = SteeredSockets::open(namespace, Stack::Dual.lb(), threads(1), None).unwrap();
    for ((vip, backend, lb), listener) in
        [(VIPS[0], CLIENT, LB), (VIPS_V6[0], CLIENT_V6, LB_V6)].into_iter().zip(&steered.threads[0].listeners)
    {
        let backend_listener = network.client.run(|| TcpListener::bind(to(backend, 80)).unwrap()).unwrap();
        let mut client = connect(&network.client, to(vip, 80)).unwrap();
        let mut accepted = accept(listener);
        assert_eq!(accepted.peer_addr().unwrap().ip(), ip(backend));
        let mut onward = connect(namespace, to(backend, 80)).unwrap();
        let (mut served, from) = backend_listener.accept().unwrap();
        assert_eq!(from.ip(), ip(lb));
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        accepted.set_nonblocking(false).unwrap();
        io::copy(&mut accepted, &mut onward).unwrap();
        onward.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        served.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"hello");
    }
    network.remove();
}

fn neighbour(namespace: &Namespace, address: &str) -> String {
    iproute2(namespace, &["-6", "neigh", "show", address, "dev", "eth0"])
}

fn has_neighbour(namespace: &Namespace, address: &str) -> bool {
    neighbour(namespace, address).contains("lladdr")
}
