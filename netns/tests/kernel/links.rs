use crate::support::{ip, is_silent, net, ping};
use ringlb_netns::{Error, Links, Namespace};
use std::pin::pin;
use std::task::{Context, Waker};

async fn fresh(name: &str) -> (Namespace, Links) {
    let namespace = Namespace::create(&format!("ringlb-test-links-{name}")).unwrap();
    let links = namespace.links().await.unwrap();
    (namespace, links)
}

#[tokio::test]
async fn every_verb_can_be_repeated() {
    let (here, links) = fresh("verbs").await;
    let (there, there_links) = fresh("verbs-peer").await;
    for _twice in 0..2 {
        links.bridge("br0").await.unwrap();
        links.veth("port", "eth0", &there, Some(1400)).await.unwrap();
        links.set_master("port", "br0").await.unwrap();
        links.set_up("port").await.unwrap();
        links.set_mtu("br0", 1300).await.unwrap();
        links.add_address("br0", ip("10.5.0.1"), 24).await.unwrap();
        links.add_address("br0", ip("fd05::1"), 64).await.unwrap();
        for prefix in ["10.6.0.0/16", "10.7.0.1/32", "fd06::/64", "fd07::1/128"] {
            links.add_local_route(net(prefix)).await.unwrap();
        }
        there_links.set_mac("eth0", [2, 0, 0, 0, 0, 1]).await.unwrap();
        there_links.add_address("eth0", ip("10.5.0.2"), 24).await.unwrap();
        there_links.add_address("eth0", ip("fd05::2"), 64).await.unwrap();
        there_links.set_up("eth0").await.unwrap();
    }
    let bridge = links.link("br0").await.unwrap().unwrap();
    let port = links.link("port").await.unwrap().unwrap();
    let eth0 = there_links.link("eth0").await.unwrap().unwrap();
    assert!(bridge.is_bridge() && bridge.up && bridge.mtu == 1300, "{bridge:?}");
    assert!(port.is_veth() && port.up && port.mtu == 1400 && port.master == Some(bridge.index), "{port:?}");
    assert!(eth0.is_veth() && eth0.up && eth0.mtu == 1400 && eth0.mac == Some([2, 0, 0, 0, 0, 1]), "{eth0:?}");
    assert_eq!((port.peer_index, eth0.peer_index), (Some(eth0.index), Some(port.index)));
    let global = |mut addresses: Vec<ipnet::IpNet>| {
        addresses.retain(|address| !address.to_string().starts_with("fe80:"));
        addresses
    };
    assert_eq!(global(links.addresses("br0").await.unwrap()), [net("10.5.0.1/24"), net("fd05::1/64")]);
    assert_eq!(global(there_links.addresses("eth0").await.unwrap()), [net("10.5.0.2/24"), net("fd05::2/64")]);
    let names: Vec<_> = links.list().await.unwrap().into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["lo", "br0", "port"]);
    assert!(ping(&there, "10.5.0.1") && ping(&there, "fd05::1"));
    let prefixes = ["10.6.0.0/16", "10.7.0.1/32", "fd06::/64", "fd07::1/128"].map(net);
    assert_eq!(links.local_routes().await.unwrap(), prefixes);
    for local in ["10.6.0.1", "10.6.255.254", "10.7.0.1", "fd06::", "fd06::ffff:ffff:ffff:ffff", "fd07::1"] {
        assert!(ping(&here, local), "{local}");
    }
    for _twice in 0..2 {
        links.remove_local_route(net("10.6.0.0/16")).await.unwrap();
        links.remove_local_route(net("fd06::/64")).await.unwrap();
        links.delete_link("port").await.unwrap();
        assert!(!links.link_exists("port").await.unwrap());
        assert!(!there_links.link_exists("eth0").await.unwrap());
    }
    assert_eq!(links.local_routes().await.unwrap(), [net("10.7.0.1/32"), net("fd07::1/128")]);
    assert!(is_silent(&here, "10.6.0.1") && is_silent(&here, "fd06::1"));
    assert!(ping(&here, "10.7.0.1") && ping(&here, "fd07::1"));
    for namespace in [here, there] {
        Namespace::remove(namespace.name().unwrap()).unwrap();
    }
}

#[tokio::test]
async fn a_local_route_leaves_an_interfaces_own_address_alone() {
    let (here, links) = fresh("own").await;
    links.bridge("br0").await.unwrap();
    for (address, prefix_len, route) in [("10.5.0.1", 24, "10.5.0.1/32"), ("fd05::1", 64, "fd05::1/128")] {
        links.add_address("br0", ip(address), prefix_len).await.unwrap();
        for _twice in 0..2 {
            links.add_local_route(net(route)).await.unwrap();
        }
        for _twice in 0..2 {
            links.remove_local_route(net(route)).await.unwrap();
        }
        assert!(ping(&here, address));
    }
    Namespace::remove(here.name().unwrap()).unwrap();
}

#[tokio::test]
async fn what_exists_and_differs_is_an_error() {
    let (here, links) = fresh("differs").await;
    let (there, there_links) = fresh("differs-peer").await;
    let (elsewhere, elsewhere_links) = fresh("differs-elsewhere").await;
    links.veth("a", "b", &there, None).await.unwrap();
    elsewhere_links.veth("c", "b", &elsewhere, None).await.unwrap();
    for result in [
        links.bridge("a").await,
        links.veth("a", "c", &there, None).await,
        links.veth("new", "b", &there, None).await,
        links.veth("a", "b", &elsewhere, None).await,
    ] {
        assert!(matches!(result, Err(Error::LinkDiffers { .. })), "{result:?}");
    }
    assert!(!links.link_exists("new").await.unwrap());
    assert!(there_links.link_exists("b").await.unwrap());
    for namespace in [here, there, elsewhere] {
        Namespace::remove(namespace.name().unwrap()).unwrap();
    }
}

/// Two pairs whose indexes are the same and whose namespaces are not.
#[tokio::test]
async fn pairs_that_look_alike_are_told_apart() {
    let (bridge_1, links_1) = fresh("alike-1").await;
    let (bridge_2, links_2) = fresh("alike-2").await;
    let (peer_1, peer_links_1) = fresh("alike-peer-1").await;
    let (peer_2, peer_links_2) = fresh("alike-peer-2").await;
    links_1.veth("port", "eth0", &peer_1, None).await.unwrap();
    links_2.veth("port", "eth0", &peer_2, None).await.unwrap();
    let (one, other) = (links_1.link("port").await.unwrap().unwrap(), links_2.link("port").await.unwrap().unwrap());
    let ends = (peer_links_1.link("eth0").await.unwrap().unwrap(), peer_links_2.link("eth0").await.unwrap().unwrap());
    assert_eq!((one.index, ends.0.index), (other.index, ends.1.index));
    let result = links_1.veth("port", "eth0", &peer_2, None).await;
    assert!(matches!(result, Err(Error::LinkDiffers { .. })), "{result:?}");
    links_1.veth("port", "eth0", &peer_1, None).await.unwrap();
    for namespace in [bridge_1, bridge_2, peer_1, peer_2] {
        Namespace::remove(namespace.name().unwrap()).unwrap();
    }
}

#[tokio::test]
async fn a_pair_can_be_within_one_namespace() {
    let (here, links) = fresh("within").await;
    for _twice in 0..2 {
        links.veth("a", "b", &here, None).await.unwrap();
    }
    Namespace::remove(here.name().unwrap()).unwrap();
}

#[tokio::test]
async fn errors_say_what_was_attempted_and_on_what() {
    let (here, links) = fresh("errors").await;
    links.bridge("br0").await.unwrap();
    let missing = [
        links.set_up("none").await,
        links.set_mtu("none", 1500).await,
        links.set_mac("none", [2, 0, 0, 0, 0, 1]).await,
        links.set_master("none", "br0").await,
        links.set_master("br0", "none").await,
        links.add_address("none", ip("10.0.0.1"), 8).await,
        links.addresses("none").await.map(drop),
    ];
    for result in missing {
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::LinkMissing { link, .. } if link == "none"), "{error}");
        assert!(error.to_string().contains("ringlb-test-links-errors"), "{error}");
    }
    // The kernel's own explanation is passed on.
    let error = links.set_mtu("br0", 1).await.unwrap_err().to_string();
    assert!(
        error.contains("set the MTU of interface br0") && error.contains("mtu less than device minimum"),
        "{error}"
    );
    let error = links.delete_link("lo").await.unwrap_err().to_string();
    assert!(error.contains("delete interface lo"), "{error}");
    for name in ["", "a/b", "sixteen-bytes-xx"] {
        for result in [links.bridge(name).await, links.delete_link(name).await, links.set_up(name).await] {
            assert!(matches!(result, Err(Error::InvalidName { .. })), "{result:?}");
        }
    }
    for (address, prefix_len) in [("10.0.0.1", 33), ("fd00::1", 129)] {
        let result = links.add_address("br0", ip(address), prefix_len).await;
        assert!(matches!(result, Err(Error::InvalidPrefixLength { .. })), "{result:?}");
    }
    Namespace::remove(here.name().unwrap()).unwrap();
}

#[test]
fn links_need_a_runtime_that_lives() {
    let namespace = Namespace::create("ringlb-test-links-runtime").unwrap();
    let mut outside = pin!(namespace.links());
    let polled = outside.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, std::task::Poll::Ready(Err(Error::NoRuntime { .. }))));

    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let links = first.block_on(namespace.links()).unwrap();
    first.block_on(links.bridge("br0")).unwrap();
    drop(first);
    let error = runtime().block_on(links.set_up("br0")).unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
    Namespace::remove("ringlb-test-links-runtime").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_on_a_runtime_with_threads() {
    let (here, links) = fresh("at-once").await;
    let tasks: Vec<_> = (0..64u8)
        .map(|number| {
            let links = links.clone();
            tokio::spawn(async move { links.add_local_route(net(&format!("10.6.{number}.0/24"))).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(ping(&here, "10.6.0.9") && ping(&here, "10.6.63.9"));
    Namespace::remove(here.name().unwrap()).unwrap();
}
