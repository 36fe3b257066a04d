//! What is made of an Engine's answers, recorded from version 20.10.24.

use super::decode::{self, Bridge, Container};
use super::holders::{Held, Step, steps};
use super::services::{Key, Services, published};
use crate::model::{Families, ObservedNetwork, Weight};
use bollard::models::{ContainerSummary, Network};
use ringlb_proxy::control::message::{Port, Protocol, PublishedPort};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

fn bridges() -> Vec<Bridge> {
    let networks: Vec<Network> = serde_json::from_str(include_str!("recorded/networks.json")).unwrap();
    networks.into_iter().filter_map(decode::bridge).collect()
}

/// The newest first: `web-2`, whose health check has not answered yet, and `web-1`.
fn containers() -> Vec<Container> {
    let containers: Vec<ContainerSummary> = serde_json::from_str(include_str!("recorded/containers.json")).unwrap();
    containers.into_iter().filter_map(decode::container).collect()
}

fn key() -> Key {
    Key { network: "shop_default".to_owned(), service: "web".to_owned() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn held() -> BTreeMap<Key, Held> {
    let held = Held { addresses: ip("10.77.0.9").into(), path: "/run/docker/netns/0123".into(), identity: (4, 5) };
    [(key(), held)].into()
}

fn observe(containers: Vec<Container>, stopping: &[&str]) -> Vec<ObservedNetwork> {
    let stopping = stopping.iter().map(|id| (*id).to_owned()).collect();
    Services::of(bridges(), containers).observe(&held(), &stopping)
}

fn set(container: &mut Container, label: &str, value: &str) {
    container.labels.insert(label.to_owned(), value.to_owned());
}

#[test]
fn only_bridges_made_by_users_count() {
    let names: Vec<_> = bridges().into_iter().map(|bridge| (bridge.name, bridge.subnet.to_string())).collect();
    assert_eq!(names, [("shop_default".to_owned(), "10.77.0.0/24".to_owned())]);
}

#[test]
fn a_service_has_the_containers_that_run_and_are_not_unwell() {
    let mut containers = containers();
    let networks = observe(containers.clone(), &[]);
    let [network] = networks.as_slice() else { panic!("{networks:?}") };
    assert_eq!((&*network.name, network.subnet.to_string().as_str()), ("shop_default.web", "10.77.0.0/24"));
    let sandbox = network.sandbox.as_ref().unwrap();
    assert_eq!((sandbox.identity, sandbox.lb_address), ((4, 5), ip("10.77.0.9").into()));
    let [service] = network.services.as_slice() else { panic!("{networks:?}") };
    assert_eq!((&*service.name, service.vip), ("web", Families::from(ip("10.77.0.9"))));
    let backends: Vec<_> = service.backends.iter().map(|it| (it.address, it.weight.0, it.draining)).collect();
    assert_eq!(backends, [(ip("10.77.0.2"), 3, false)], "the other one is not healthy yet");

    containers[0].healthy = true;
    let backends = |containers: Vec<Container>| observe(containers, &[])[0].services[0].backends.clone();
    let both = backends(containers.clone());
    assert_eq!(both.len(), 2);
    assert_eq!((both[1].address, both[1].weight), (ip("10.77.0.3"), Weight::default()));
    containers[0].running = false;
    assert_eq!(backends(containers).len(), 1);
}

#[test]
fn health_is_read_from_the_status() {
    let mut summaries: Vec<ContainerSummary> = serde_json::from_str(include_str!("recorded/containers.json")).unwrap();
    let healthy = |summary: &ContainerSummary| decode::container(summary.clone()).unwrap().healthy;
    assert!(!healthy(&summaries[0]), "it is starting");
    assert!(healthy(&summaries[1]), "nobody checks it");
    for (status, is_healthy) in [("Up 2 minutes (healthy)", true), ("Up 2 minutes (unhealthy)", false)] {
        summaries[0].status = Some(status.to_owned());
        assert_eq!(healthy(&summaries[0]), is_healthy, "{status}");
    }
}

#[test]
fn a_container_that_is_told_to_stop_drains() {
    let containers = containers();
    let id = containers[1].id.clone();
    let backends = &observe(containers, &[&id])[0].services[0].backends;
    assert_eq!((backends.len(), backends[0].draining), (1, true));
}

#[test]
fn the_newest_container_says_what_is_set_and_published() {
    let mut containers = containers();
    set(&mut containers[0], "ringlb.algorithm", "p2c");
    set(&mut containers[0], "ringlb.publish", "9000:90/udp, 9000:80");
    set(&mut containers[1], "ringlb.algorithm", "maglev");
    containers.reverse();
    let service = &observe(containers.clone(), &[])[0].services[0];
    assert_eq!(service.settings.algorithm, ringlb_proxy::control::message::Algorithm::P2c);
    let port = |protocol, target| PublishedPort { published: Port { protocol, number: 9000 }, target };
    assert_eq!(service.published, [port(Protocol::Udp, 90), port(Protocol::Tcp, 80)]);
    containers[0].created = containers[1].created + 1;
    let service = &observe(containers, &[])[0].services[0];
    assert_eq!(service.settings.algorithm, ringlb_proxy::control::message::Algorithm::Maglev);
}

#[test]
fn wrong_labels_are_told_by_container_and_label_and_the_rest_is_served() {
    let mut containers = containers();
    set(&mut containers[0], "ringlb.publish", "80");
    set(&mut containers[0], "ringlb.weight", "much");
    set(&mut containers[1], "ringlb.service", "no name");
    let services = Services::of(bridges(), containers);
    let invalid = services.invalid_labels();
    let labels: Vec<_> = invalid.iter().map(|invalid| (invalid.service.as_str(), invalid.label.as_str())).collect();
    assert_eq!(labels, [("web-1", "ringlb.service"), ("web-2", "ringlb.publish"), ("web-2", "ringlb.weight")]);
    assert_eq!(services.keys().collect::<Vec<_>>(), [&key()]);
}

#[test]
fn a_container_without_a_bridge_of_a_user_and_one_that_is_off_belong_to_no_service() {
    let mut containers = containers();
    containers[0].networks = [("bridge".to_owned(), Families::default())].into();
    set(&mut containers[1], "ringlb.enable", "false");
    let services = Services::of(bridges(), containers);
    assert_eq!(services.keys().count(), 0);
    let invalid = services.invalid_labels();
    assert!(invalid.len() == 1 && invalid[0].service == "web-2" && invalid[0].reason.contains("bridge"), "{invalid:?}");
}

#[test]
fn a_service_on_two_networks_is_two_services() {
    let mut containers = containers();
    containers[1].networks.insert("back".to_owned(), ip("10.78.0.2").into());
    let mut bridges = bridges();
    bridges.push(Bridge { name: "back".to_owned(), subnet: Families::default() });
    let services = Services::of(bridges, containers);
    let keys: Vec<_> = services.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["back.web", "shop_default.web"]);
}

#[test]
fn published_ports_are_understood() {
    let port = |protocol, number, target| PublishedPort { published: Port { protocol, number }, target };
    assert_eq!(published("8080:80"), Ok(vec![port(Protocol::Tcp, 8080, 80)]));
    assert_eq!(
        published("53:5353/udp, 53:5353/tcp"),
        Ok(vec![port(Protocol::Udp, 53, 5353), port(Protocol::Tcp, 53, 5353)])
    );
    for text in ["", "80", "0:80", "80:0", "80:65536", "80:80/sctp", "80:80,", "a:b", "80:81,80:82", "1.2.3.4:80:80"] {
        assert!(published(text).is_err(), "{text}");
    }
}

/// A holder of a service on a network to which it is connected.
fn holder(id: &str, network: &str, service: &str) -> Container {
    let mut holder = containers().remove(1);
    holder.id = id.to_owned();
    holder.labels = BTreeMap::new();
    set(&mut holder, "ringlb.holder", service);
    set(&mut holder, "ringlb.network", network);
    holder
}

#[test]
fn holders_are_made_kept_started_and_removed() {
    let wanted = BTreeSet::from([key()]);
    let remove = |id: &str| Step::Remove { id: id.to_owned() };
    let make = |stopped: Option<&str>| Step::Make { key: key(), stopped: stopped.map(str::to_owned) };
    let keep = Step::Keep { key: key(), id: "a".to_owned() };
    let right = holder("a", "shop_default", "web");
    assert_eq!(steps(&wanted, &[]), [make(None)]);
    assert_eq!(steps(&wanted, std::slice::from_ref(&right)), std::slice::from_ref(&keep));
    assert_eq!(steps(&BTreeSet::new(), std::slice::from_ref(&right)), [remove("a")]);
    let stopped = Container { running: false, ..right.clone() };
    assert_eq!(steps(&wanted, &[stopped]), [make(Some("a"))]);
    let disconnected = Container { networks: BTreeMap::new(), ..right.clone() };
    assert_eq!(steps(&wanted, &[disconnected]), [remove("a"), make(None)]);
    let others = [right, holder("b", "shop_default", "web"), holder("c", "shop_default", "gone")];
    assert_eq!(steps(&wanted, &others), [remove("b"), remove("c"), keep]);
}

#[test]
fn a_service_without_a_holder_is_not_observed_yet() {
    let services = Services::of(bridges(), containers());
    assert_eq!(services.observe(&BTreeMap::new(), &BTreeSet::new()), []);
}
