//! What is made of an Engine's answers, recorded from version 20.10.24.

use super::*;
use std::net::IpAddr;

fn bridges(networks: &str) -> Vec<Bridge> {
    let networks: Vec<Network> = serde_json::from_str(networks).unwrap();
    networks.into_iter().filter_map(bridge).collect()
}

/// The newest first: `web-2`, whose health check has not answered yet, and `web-1`.
fn summaries() -> Vec<ContainerSummary> {
    serde_json::from_str(include_str!("recorded/containers.json")).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn only_bridges_made_by_users_count() {
    let bridges = bridges(include_str!("recorded/networks.json"));
    let names: Vec<_> = bridges.into_iter().map(|bridge| (bridge.name, bridge.subnet.to_string())).collect();
    assert_eq!(names, [("shop_default".to_owned(), "10.77.0.0/24".to_owned())]);
}

#[test]
fn a_bridge_may_keep_addresses_for_others() {
    let network = r#"[{"Name":"n","Driver":"bridge","IPAM":{"Config":[
        {"Subnet":"10.1.0.0/24","Gateway":"10.1.0.254","AuxiliaryAddresses":{"router":"10.1.0.253"}},
        {"Subnet":"fd00::/64","Gateway":"fd00::1"}]}}]"#;
    let bridge = bridges(network).remove(0);
    assert_eq!(bridge.subnet.to_string(), "10.1.0.0/24 and fd00::/64");
    assert_eq!(bridge.reserved, ["10.1.0.253", "10.1.0.254", "fd00::1"].map(ip).into());
}

#[test]
fn a_container_has_labels_and_addresses() {
    let containers: Vec<_> = summaries().into_iter().filter_map(container).collect();
    let [newest, oldest] = containers.as_slice() else { panic!("{containers:?}") };
    assert_eq!((newest.name.as_str(), oldest.name.as_str()), ("web-2", "web-1"));
    assert!(newest.created >= oldest.created && newest.running && oldest.running);
    assert_eq!(oldest.labels["ringlb.service"], "web");
    assert_eq!(oldest.networks["shop_default"], ip("10.77.0.2").into());
    assert!(oldest.fixed["shop_default"].is_empty());
    let mut summary = summaries().remove(1);
    let endpoint = summary.network_settings.as_mut().unwrap().networks.as_mut().unwrap().values_mut().next().unwrap();
    endpoint.ipam_config =
        Some(serde_json::from_str(r#"{"IPv4Address":"10.77.0.9","IPv6Address":"fd00::9"}"#).unwrap());
    assert_eq!(container(summary).unwrap().fixed["shop_default"].to_string(), "10.77.0.9 and fd00::9");
}

#[test]
fn whether_a_container_is_ready_is_read_from_its_state_and_status() {
    let mut summaries = summaries();
    let state = |summary: &ContainerSummary| {
        let container = container(summary.clone()).unwrap();
        (container.running, container.ready)
    };
    assert_eq!(state(&summaries[0]), (true, false), "its health check has not answered");
    assert_eq!(state(&summaries[1]), (true, true), "nobody checks it");
    for (status, is_ready) in [("Up 2 minutes (healthy)", true), ("Up 2 minutes (unhealthy)", false)] {
        summaries[0].status = Some(status.to_owned());
        assert_eq!(state(&summaries[0]), (true, is_ready), "{status}");
    }
    summaries[1].state = Some(ContainerSummaryStateEnum::PAUSED);
    assert_eq!(state(&summaries[1]), (true, false));
    summaries[1].state = Some(ContainerSummaryStateEnum::EXITED);
    assert!(!state(&summaries[1]).0);
}

#[test]
fn a_container_that_does_not_run_has_no_address() {
    let inspected = |text: &str| place(serde_json::from_str(text).unwrap(), "net");
    let running = inspected(
        r#"{"NetworkSettings":{"SandboxKey":"/run/docker/netns/01","Networks":{"net":{"IPAddress":"10.1.0.9"}}}}"#,
    );
    assert_eq!((running.addresses, running.sandbox_key.as_str()), (ip("10.1.0.9").into(), "/run/docker/netns/01"));
    let ended = inspected(
        r#"{"NetworkSettings":{"SandboxKey":"","Networks":{"net":{"IPAddress":"","GlobalIPv6Address":""}}}}"#,
    );
    assert!(ended.addresses.is_empty());
    assert!(inspected("{}").addresses.is_empty());
}
