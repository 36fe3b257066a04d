use super::*;

/// Recorded from Docker Engine 20.10.24.
const NETWORK: &str = include_str!("recorded/network.json");
const INGRESS: &str = include_str!("recorded/ingress.json");
const SERVICES: &str = include_str!("recorded/services.json");
const TASKS: &str = include_str!("recorded/tasks.json");
const INFO: &str = include_str!("recorded/info.json");
const NETWORKS: &str = include_str!("recorded/networks.json");

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_network_has_services_vips_and_tasks() {
    let network = inspected_network(serde_json::from_str(NETWORK).unwrap(), "192.0.2.77");
    assert_eq!((network.name.as_str(), network.ingress), ("n1", false));
    assert_eq!(network.subnet.to_string(), "10.0.1.0/24");
    assert_eq!(network.lb_address.to_string(), "10.0.1.5");
    assert_eq!(network.services.len(), 1);
    let web = &network.services["web"];
    assert_eq!((web.vip, web.ports.as_slice()), (address("10.0.1.2"), [].as_slice()));
    let tasks: Vec<_> = web.tasks.iter().map(|(address, task)| (*address, task.id.as_str(), task.local)).collect();
    assert_eq!(
        tasks,
        [
            (address("10.0.1.3"), "q9i5vcn2himvpuzal9dsay2dq", true),
            (address("10.0.1.4"), "inwpmzxu2rn8knq3c2tvo7x9d", true),
        ]
    );
}

#[test]
fn ingress_has_ports_and_no_service_without_a_name() {
    let ingress = inspected_network(serde_json::from_str(INGRESS).unwrap(), "");
    assert!(ingress.ingress);
    assert_eq!(ingress.lb_address.to_string(), "10.0.0.2");
    assert_eq!(ingress.services.keys().collect::<Vec<_>>(), ["web"]);
    let web = &ingress.services["web"];
    // The protocols of 8080, which are two, are not told.
    let ports = [(8080, 80), (8081, 81)].map(|(published, target)| InspectedPort { published, target });
    assert_eq!(web.ports, ports);
    assert_eq!(web.vip, address("10.0.0.3"));
    // They are local because their endpoints are, whatever this node's address is.
    assert!(web.tasks.values().all(|task| task.local));
}

#[test]
fn a_task_elsewhere_is_not_local() {
    let mut document: serde_json::Value = serde_json::from_str(NETWORK).unwrap();
    document["Containers"] = serde_json::json!({});
    let local = |node| {
        let network = inspected_network(serde_json::from_value(document.clone()).unwrap(), node);
        network.services["web"].tasks.values().all(|task| task.local)
    };
    assert!(local("192.0.2.77") && !local("192.0.2.78") && !local(""));
}

#[test]
fn what_has_no_vip_is_no_service() {
    let mut document: serde_json::Value = serde_json::from_str(NETWORK).unwrap();
    for vip in ["<nil>", "", "0.0.0.0"] {
        document["Services"]["web"]["VIP"] = vip.into();
        assert!(inspected_network(serde_json::from_value(document.clone()).unwrap(), "").services.is_empty(), "{vip}");
    }
    document["Services"] = serde_json::Value::Null;
    assert!(inspected_network(serde_json::from_value(document).unwrap(), "").services.is_empty());
}

#[test]
fn a_manager_knows_labels_protocols_and_phases() {
    let cluster = cluster(serde_json::from_str(SERVICES).unwrap(), serde_json::from_str(TASKS).unwrap());
    let [web] = cluster.services.as_slice() else { panic!("{:?}", cluster.services) };
    assert_eq!(web.facts.name, "web");
    assert_eq!(web.facts.labels["ringlb.weight"], "3");
    let port = |protocol, number, target| PublishedPort { published: Port { protocol, number }, target };
    assert_eq!(
        web.facts.ports,
        [port(Protocol::Tcp, 8080, 80), port(Protocol::Udp, 8080, 80), port(Protocol::Tcp, 8081, 81)]
    );
    assert_eq!(web.vips["fyhfrxn30hsy8onufsgm85c5q"], address("10.0.1.2"));
    assert_eq!(web.vips["cmrfzt1bujdde53immu9muisk"], address("10.0.0.3"));
    assert_eq!(cluster.tasks["q9i5vcn2himvpuzal9dsay2dq"], TaskPhase::Wanted);
}

#[test]
fn a_host_port_is_the_engines_own() {
    let mut services: serde_json::Value = serde_json::from_str(SERVICES).unwrap();
    services[0]["Endpoint"]["Ports"][0]["PublishMode"] = "host".into();
    services[0]["Endpoint"]["Ports"][2]["Protocol"] = "sctp".into();
    let cluster = cluster(serde_json::from_value(services).unwrap(), Vec::new());
    let protocols: Vec<_> = cluster.services[0].facts.ports.iter().map(|port| port.published.protocol).collect();
    assert_eq!(protocols, [Protocol::Udp]);
}

#[test]
fn a_task_is_wanted_stopping_or_over() {
    use TaskState::{FAILED, READY, REMOVE, RUNNING, SHUTDOWN, STARTING};
    for (desired, now, phase) in [
        (RUNNING, RUNNING, TaskPhase::Wanted),
        (RUNNING, STARTING, TaskPhase::Wanted),
        (READY, READY, TaskPhase::Wanted),
        (SHUTDOWN, RUNNING, TaskPhase::Stopping),
        (REMOVE, RUNNING, TaskPhase::Stopping),
        (SHUTDOWN, SHUTDOWN, TaskPhase::Over),
        (RUNNING, FAILED, TaskPhase::Over),
    ] {
        assert_eq!(task_phase(Some(desired), Some(now)), phase, "{desired} {now}");
    }
    assert_eq!(task_phase(None, None), TaskPhase::Wanted);
}

#[test]
fn a_node_says_how_it_stands() {
    let node = node(serde_json::from_str(INFO).unwrap());
    assert_eq!(node.swarm, "active");
    assert!(node.in_swarm() && node.manager);
    assert_eq!(node.address, "192.0.2.77");
    assert_eq!(node.managers, ["192.0.2.77:2377"]);
    assert!(!super::node(SystemInfo::default()).in_swarm());
}

#[test]
fn only_overlay_networks_are_listed() {
    let networks: Vec<Network> = serde_json::from_str(NETWORKS).unwrap();
    let listed = networks.into_iter().filter_map(listed_network);
    let mut names: Vec<_> = listed.map(|network| (network.name, network.ingress)).collect();
    names.sort();
    assert_eq!(names, [("ingress".to_owned(), true), ("n1".to_owned(), false)]);
}

#[test]
fn a_port_is_read_as_it_is_written() {
    assert_eq!(port("Target: 80, Publish: 8080"), Some(InspectedPort { published: 8080, target: 80 }));
    for text in ["", "Target: 80", "Target: 0, Publish: 1", "Target: 80, Publish: 70000", "Publish: 1, Target: 2"] {
        assert_eq!(port(text), None, "{text}");
    }
}
