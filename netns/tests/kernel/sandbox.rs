use crate::support::{LB, Network, Stack, VIPS, ip, is_silent, net, ping, plan, sysctl};
use ringlb_netns::{Error, Fabric, Namespace, Sandbox};
use std::fs;
use std::path::Path;

#[tokio::test]
async fn vips_answer_pings_while_they_have_a_route() {
    let network = Network::new("vips").await;
    assert!(ping(&network.client, LB));
    for vip in VIPS {
        assert!(ping(&network.client, vip), "{vip}");
        assert!(ping(network.sandbox.namespace(), vip), "{vip} from the sandbox");
    }
    assert!(is_silent(&network.client, "10.99.1.2"));
    for _twice in 0..2 {
        network.sandbox.remove_vip_route(net("10.99.1.1/32")).await.unwrap();
        assert!(is_silent(&network.client, "10.99.1.1"));
    }
    for _twice in 0..2 {
        network.sandbox.add_vip_route(net("10.99.1.1/32")).await.unwrap();
        assert!(ping(&network.client, "10.99.1.1"));
    }
    let plan = network.fabric.plan().clone();
    network.sandbox.remove(&network.fabric).await.unwrap();
    assert!(is_silent(&network.client, LB));
    assert_eq!(network.fabric.ports().await.unwrap(), ["client"]);
    network.fabric.remove().await.unwrap();
    Namespace::remove(network.client.name().unwrap()).unwrap();
    assert!(!Namespace::list().unwrap().iter().any(|name| name.starts_with("ringlb-test-vips")));
    plan.remove().unwrap();
}

#[tokio::test]
async fn a_sandbox_that_is_there_is_taken_over_with_its_vips() {
    let network = Network::new("adopt").await;
    let before = network.sandbox.namespace().links().await.unwrap().link("eth0").await.unwrap().unwrap();
    let plan = network.fabric.plan();
    let fabric = Fabric::ensure(plan).await.unwrap();
    let sandbox = Sandbox::ensure(plan, &fabric, ip(LB)).await.unwrap();
    assert_eq!(sandbox.addresses(), Stack::V4.lb());
    assert_eq!(sandbox.vip_routes().await.unwrap(), [net("10.77.0.128/25"), net("10.99.1.1/32")]);
    assert_eq!(sandbox.namespace().identity().unwrap(), network.sandbox.namespace().identity().unwrap());
    assert_eq!(sandbox.namespace().links().await.unwrap().link("eth0").await.unwrap().unwrap(), before);
    assert!(ping(&network.client, VIPS[0]));
    plan.remove().unwrap();
    Namespace::remove(network.client.name().unwrap()).unwrap();
}

#[tokio::test]
async fn kernel_parameters_suit_a_proxy() {
    let network = Network::new("parameters").await;
    let namespace = network.sandbox.namespace();
    let required = [
        ("net/ipv4/ip_local_port_range", "1024 65535"),
        ("net/ipv4/tcp_tw_reuse", "1"),
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/conf/eth0/rp_filter", "0"),
        ("net/ipv4/conf/eth0/arp_ignore", "0"),
    ];
    for (path, value) in required {
        assert_eq!(sysctl(namespace, path).as_deref(), Some(value), "{path}");
    }
    for (path, value) in [("net/ipv4/tcp_tw_reuse_delay", "1"), ("net/core/somaxconn", "16384")] {
        assert!(sysctl(namespace, path).is_none_or(|found| found == value), "{path}");
    }
    network.fabric.plan().remove().unwrap();
    Namespace::remove(network.client.name().unwrap()).unwrap();
}

#[tokio::test]
async fn an_address_that_is_not_the_subnets_is_refused() {
    let plan = plan("outside");
    let fabric = Fabric::ensure(&plan).await.unwrap();
    for address in ["10.78.0.1", "fd00::1"] {
        let error = Sandbox::ensure(&plan, &fabric, ip(address)).await.unwrap_err();
        assert!(matches!(error, Error::AddressOutsideSubnet { .. }), "{error}");
    }
    assert!(!Namespace::list().unwrap().contains(&plan.sandbox_namespace()));
    plan.remove().unwrap();
}

#[tokio::test]
async fn removing_reports_every_error_and_does_the_rest() {
    let plan = plan("lb-errors");
    let fabric = Fabric::ensure(&plan).await.unwrap();
    let sandbox = Sandbox::ensure(&plan, &fabric, ip(LB)).await.unwrap();
    Namespace::remove(&plan.sandbox_namespace()).unwrap();
    let path = Path::new("/run/netns").join(plan.sandbox_namespace());
    fs::create_dir(&path).unwrap();
    let errors = sandbox.remove(&fabric).await.unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].to_string().contains(&plan.sandbox_namespace()), "{errors:?}");
    assert!(fabric.ports().await.unwrap().is_empty());
    fs::remove_dir(&path).unwrap();
    plan.remove().unwrap();
}
