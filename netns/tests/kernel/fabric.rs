use crate::support::{Stack, ip, is_silent, ping, plan, sysctl};
use ringlb_netns::{Addresses, Error, Fabric, Namespace, NetworkPlan, Subnets};
use std::fs;
use std::path::Path;

fn container(test: &str, number: u8) -> Namespace {
    Namespace::create(&format!("ringlb-test-{test}-container-{number}")).unwrap()
}

async fn interface(namespace: &Namespace) -> Option<ringlb_netns::Link> {
    namespace.links().await.unwrap().link("eth0").await.unwrap()
}

#[tokio::test]
async fn containers_reach_each_other() {
    let plan = NetworkPlan { mtu: 1450, ..plan("reach") };
    let fabric = Fabric::ensure(&plan).await.unwrap();
    let containers = [container("reach", 1), container("reach", 2)];
    fabric.connect("one", &containers[0], "eth0", ip("10.77.0.11")).await.unwrap();
    fabric.connect("a-port-with-a-long-name", &containers[1], "eth0", ip("10.77.0.12")).await.unwrap();
    assert!(ping(&containers[0], "10.77.0.12") && ping(&containers[1], "10.77.0.11"));
    assert_eq!(fabric.ports().await.unwrap(), ["one".to_owned(), Fabric::port_name("a-port-with-a-long-name")]);
    let eth0 = interface(&containers[0]).await.unwrap();
    assert!(eth0.up && eth0.mtu == 1450 && eth0.mac == Some([2, 0x42, 10, 77, 0, 11]), "{eth0:?}");
    for parameter in ["iptables", "ip6tables", "arptables"] {
        let value = sysctl(fabric.namespace(), &format!("net/bridge/bridge-nf-call-{parameter}"));
        assert!(value.is_none_or(|value| value == "0"), "{parameter}");
    }

    // A second daemon finds everything as it is.
    let again = Fabric::ensure(&plan).await.unwrap();
    again.connect("one", &containers[0], "eth0", ip("10.77.0.11")).await.unwrap();
    assert_eq!(interface(&containers[0]).await.unwrap(), eth0);
    assert_eq!(again.ports().await.unwrap().len(), 2);

    for _twice in 0..2 {
        again.disconnect("one").await.unwrap();
        assert_eq!(interface(&containers[0]).await, None);
    }
    drop(again);
    fabric.remove().await.unwrap();
    // Although the namespace may live on for a moment, the legs are gone.
    assert_eq!(interface(&containers[1]).await, None);
    assert!(!Namespace::list().unwrap().contains(&plan.bridge_namespace()));
    plan.remove().unwrap();
    for container in containers {
        Namespace::remove(container.name().unwrap()).unwrap();
    }
}

#[tokio::test]
async fn a_leg_that_is_not_as_wished_is_made_anew() {
    let plan = plan("repair");
    let fabric = Fabric::ensure(&plan).await.unwrap();
    let bridge_links = fabric.namespace().links().await.unwrap();
    let containers = [container("repair", 1), container("repair", 2)];
    let container_links = [containers[0].links().await.unwrap(), containers[1].links().await.unwrap()];
    let connect = || fabric.connect("port", &containers[0], "eth0", ip("10.77.0.11"));
    fabric.connect("other", &containers[1], "eth0", ip("10.77.0.12")).await.unwrap();

    // Killed after the pair was made and before it had an address.
    bridge_links.veth("port", "eth0", &containers[0], None).await.unwrap();
    connect().await.unwrap();
    assert!(ping(&containers[1], "10.77.0.11"));

    // The wrong hardware address, another address, down, not a port of the bridge.
    container_links[0].set_mac("eth0", [2, 0, 0, 0, 0, 9]).await.unwrap();
    connect().await.unwrap();
    assert!(ping(&containers[1], "10.77.0.11"));
    container_links[0].add_address("eth0", ip("10.77.0.99"), 24).await.unwrap();
    connect().await.unwrap();
    assert!(ping(&containers[1], "10.77.0.11") && is_silent(&containers[1], "10.77.0.99"));
    bridge_links.delete_link("port").await.unwrap();
    bridge_links.veth("port", "eth0", &containers[0], None).await.unwrap();
    container_links[0].add_address("eth0", ip("10.77.0.11"), 24).await.unwrap();
    connect().await.unwrap();
    assert!(ping(&containers[1], "10.77.0.11"));

    // The port leads to another container; it is moved.
    fabric.connect("port", &container("repair", 3), "eth0", ip("10.77.0.13")).await.unwrap();
    assert_eq!(interface(&containers[0]).await, None);
    assert!(ping(&containers[1], "10.77.0.13"));
    connect().await.unwrap();
    assert!(ping(&containers[1], "10.77.0.11"));
    // Another address on the same leg.
    fabric.connect("port", &containers[0], "eth0", ip("10.77.0.14")).await.unwrap();
    assert!(ping(&containers[1], "10.77.0.14") && is_silent(&containers[1], "10.77.0.11"));

    fabric.remove().await.unwrap();
    for number in 1..=3 {
        Namespace::remove(&format!("ringlb-test-repair-container-{number}")).unwrap();
    }
}

/// Neighbours still know the hardware address of the container that had the address before.
#[tokio::test]
async fn an_address_that_moves_to_another_container_is_reached_at_once() {
    let fabric = Fabric::ensure(&plan("moves")).await.unwrap();
    let containers = [container("moves", 1), container("moves", 2), container("moves", 3)];
    fabric.connect("client", &containers[0], "eth0", ip("10.77.0.10")).await.unwrap();
    fabric.connect("before", &containers[1], "eth0", ip("10.77.0.11")).await.unwrap();
    assert!(ping(&containers[0], "10.77.0.11"));
    fabric.disconnect("before").await.unwrap();
    fabric.connect("after", &containers[2], "eth0", ip("10.77.0.11")).await.unwrap();
    assert!(ping(&containers[0], "10.77.0.11"));
    fabric.remove().await.unwrap();
    for container in containers {
        Namespace::remove(container.name().unwrap()).unwrap();
    }
}

#[tokio::test]
async fn an_interface_that_is_someone_elses_is_left_alone() {
    let fabric = Fabric::ensure(&plan("foreign")).await.unwrap();
    let container = container("foreign", 1);
    let links = container.links().await.unwrap();
    links.veth("eth0", "elsewhere", &container, None).await.unwrap();
    let before = interface(&container).await;
    let result = fabric.connect("port", &container, "eth0", ip("10.77.0.11")).await;
    assert!(matches!(result, Err(Error::LinkDiffers { .. })), "{result:?}");
    assert_eq!(interface(&container).await, before);
    assert!(fabric.ports().await.unwrap().is_empty());
    fabric.remove().await.unwrap();
    Namespace::remove(container.name().unwrap()).unwrap();
}

#[tokio::test]
async fn plans_that_cannot_be_carried_out_change_nothing() {
    let good = plan("refused");
    let refused = |plan: NetworkPlan| async move { Fabric::ensure(&plan).await.unwrap_err() };
    let error = refused(NetworkPlan { subnets: Subnets::default(), ..good.clone() }).await;
    assert!(matches!(error, Error::NoSubnet { .. }), "{error}");
    for (stack, mtu) in [(Stack::V4, 0), (Stack::V4, 67), (Stack::V4, 65536), (Stack::V6, 1279), (Stack::Dual, 1279)] {
        let error = refused(NetworkPlan { subnets: stack.subnets(), mtu, ..good.clone() }).await;
        assert!(matches!(error, Error::InvalidMtu { .. }), "{error}");
    }
    for network in ["a/b", "a b", &"x".repeat(250)] {
        let error = refused(NetworkPlan { network: network.to_owned(), ..good.clone() }).await;
        assert!(matches!(error, Error::InvalidName { .. }), "{error}");
    }
    assert!(!Namespace::list().unwrap().iter().any(|name| name.starts_with("ringlb-test-refused")));

    let fabric = Fabric::ensure(&good).await.unwrap();
    let container = container("refused", 1);
    let error = fabric.connect("port", &container, "eth0", ip("10.78.0.1")).await.unwrap_err();
    assert!(matches!(error, Error::AddressOutsideSubnet { .. }), "{error}");
    let error =
        fabric.connect("port", &container, "eth0", Stack::Dual.addresses("10.77.0.1", "fd77::1")).await.unwrap_err();
    assert!(matches!(error, Error::AddressOutsideSubnet { .. }), "{error}");
    let error = fabric.connect("port", &container, "eth0", Addresses::default()).await.unwrap_err();
    assert!(matches!(error, Error::NoAddress { .. }), "{error}");
    let error = fabric.connect("port", &container, "not/a/name", ip("10.77.0.1")).await.unwrap_err();
    assert!(matches!(error, Error::InvalidName { .. }), "{error}");
    assert!(fabric.ports().await.unwrap().is_empty());
    fabric.remove().await.unwrap();
    Namespace::remove(container.name().unwrap()).unwrap();
}

#[tokio::test]
async fn removing_reports_every_error_and_does_the_rest() {
    let plan = plan("errors");
    let fabric = Fabric::ensure(&plan).await.unwrap();
    let container = container("errors", 1);
    fabric.connect("port", &container, "eth0", ip("10.77.0.11")).await.unwrap();
    // Directories in the place of both names cannot be removed as files.
    Namespace::remove(&plan.bridge_namespace()).unwrap();
    for name in [plan.bridge_namespace(), plan.sandbox_namespace()] {
        fs::create_dir(Path::new("/run/netns").join(name)).unwrap();
    }
    let errors = fabric.remove().await.unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(interface(&container).await, None);
    let errors = plan.remove().unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
    for name in [plan.bridge_namespace(), plan.sandbox_namespace()] {
        fs::remove_dir(Path::new("/run/netns").join(name)).unwrap();
    }
    plan.remove().unwrap();
    Namespace::remove(container.name().unwrap()).unwrap();
}
