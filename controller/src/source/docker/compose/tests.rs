//! What the labels of containers make.

use super::holders::{Held, Step, Useless, steps};
use super::services::{Key, Services, published};
use super::{Bridge, Container};
use crate::model::{Families, ObservedNetwork, Weight};
use ringlb_proxy::control::message::{Port, Protocol, PublishedPort};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

fn bridge(name: &str, subnet: &str) -> Bridge {
    let subnet = Families::from(subnet.parse::<ipnet::IpNet>().unwrap());
    Bridge { name: name.to_owned(), subnet, reserved: BTreeSet::new() }
}

fn bridges() -> Vec<Bridge> {
    vec![bridge("shop_default", "10.77.0.0/24")]
}

fn container(number: u8, labels: &[(&str, &str)]) -> Container {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let address = IpAddr::from([10, 77, 0, 1 + number]);
    Container {
        id: format!("id-{number}"),
        name: format!("web-{number}"),
        created: 1000 + i64::from(number),
        labels: labels.collect(),
        running: true,
        ready: true,
        networks: [("shop_default".to_owned(), address.into())].into(),
        fixed: BTreeMap::new(),
    }
}

/// The newest first: `web-2`, which is not healthy yet, and `web-1`.
fn containers() -> Vec<Container> {
    let mut newest = container(2, &[("ringlb.service", "web")]);
    newest.ready = false;
    vec![newest, container(1, &[("ringlb.service", "web"), ("ringlb.weight", "3")])]
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
fn a_service_has_the_containers_that_run_and_new_connections_go_to_those_that_are_ready() {
    let mut containers = containers();
    let networks = observe(containers.clone(), &[]);
    let [network] = networks.as_slice() else { panic!("{networks:?}") };
    assert_eq!((&*network.name, network.subnet.to_string().as_str()), ("shop_default.web", "10.77.0.0/24"));
    let sandbox = network.sandbox.as_ref().unwrap();
    assert_eq!((sandbox.identity, sandbox.lb_address), ((4, 5), ip("10.77.0.9").into()));
    let [service] = network.services.as_slice() else { panic!("{networks:?}") };
    assert_eq!((&*service.name, service.vip), ("web", Families::from(ip("10.77.0.9"))));
    let backends: Vec<_> = service.backends.iter().map(|it| (it.address, it.weight.0, it.draining)).collect();
    assert_eq!(backends, [(ip("10.77.0.2"), 3, false), (ip("10.77.0.3"), 1, true)], "the other one gets nothing yet");

    containers[0].ready = true;
    let backends = |containers: Vec<Container>| observe(containers, &[])[0].services[0].backends.clone();
    let both = backends(containers.clone());
    assert_eq!(both.len(), 2);
    assert_eq!((both[1].weight, both[1].draining), (Weight::default(), false));
    containers[0].running = false;
    assert_eq!(backends(containers).len(), 1);
}

#[test]
fn a_container_that_is_told_to_stop_drains() {
    let containers = containers();
    let id = containers[1].id.clone();
    let backends = &observe(containers, &[&id])[0].services[0].backends;
    assert_eq!((backends[0].address, backends[0].draining), (ip("10.77.0.2"), true));
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
    bridges.push(bridge("back", "10.78.0.0/24"));
    let services = Services::of(bridges, containers);
    let keys: Vec<_> = services.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["back.web", "shop_default.web"]);
}

#[test]
fn a_container_on_two_networks_publishes_by_one_of_them() {
    let mut containers = vec![container(1, &[("ringlb.service", "web"), ("ringlb.publish", "8080:80")])];
    containers[0].networks.insert("back".to_owned(), ip("10.78.0.2").into());
    // That one is another service, and says so; whose the port is, is not decided here.
    containers.push(container(2, &[("ringlb.service", "other"), ("ringlb.publish", "8080:80")]));
    let services = Services::of([bridges(), vec![bridge("back", "10.78.0.0/24")]].concat(), containers);
    let published: Vec<_> =
        services.all.iter().map(|(key, service)| (key.to_string(), service.published.len())).collect();
    let expected = [("back.web", 1), ("shop_default.other", 1), ("shop_default.web", 0)];
    assert_eq!(published, expected.map(|(key, count)| (key.to_owned(), count)));
    assert_eq!(services.invalid_labels(), []);
}

#[test]
fn a_container_that_publishes_otherwise_than_the_newest_is_told() {
    let mut containers = containers();
    set(&mut containers[0], "ringlb.publish", "8080:80");
    let invalid = |containers: &[Container]| Services::of(bridges(), containers.to_vec()).invalid_labels();
    assert_eq!(invalid(&containers), [], "saying nothing is no contradiction");
    set(&mut containers[1], "ringlb.publish", "8080:80");
    assert_eq!(invalid(&containers), []);
    set(&mut containers[1], "ringlb.publish", "8081:80");
    let told = invalid(&containers);
    assert_eq!((told.len(), told[0].service.as_str(), told[0].label.as_str()), (1, "web-1", "ringlb.publish"));
    assert!(told[0].reason.contains("web-2") && told[0].reason.contains("8080:80"), "{told:?}");
    containers[0].labels.remove("ringlb.publish");
    assert!(invalid(&containers)[0].reason.contains("nothing"));
}

#[test]
fn a_container_that_compose_made_for_one_command_is_no_backend() {
    let mut containers = containers();
    set(&mut containers[0], "com.docker.compose.oneoff", "True");
    set(&mut containers[1], "com.docker.compose.oneoff", "False");
    let networks = observe(containers, &[]);
    let addresses: Vec<_> = networks[0].services[0].backends.iter().map(|backend| backend.address).collect();
    assert_eq!(addresses, [ip("10.77.0.2")]);
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
    let remove = |id: &str, why| Step::Remove { id: id.to_owned(), why };
    let make = |stopped: Option<&str>| Step::Make { key: key(), stopped: stopped.map(str::to_owned) };
    let keep = Step::Keep { key: key(), id: "a".to_owned() };
    let right = holder("a", "shop_default", "web");
    let is_to_do = |wanted: &_, holders: &[_]| steps(wanted, holders, |_| false);
    assert_eq!(is_to_do(&wanted, &[]), [make(None)]);
    assert_eq!(is_to_do(&wanted, std::slice::from_ref(&right)), std::slice::from_ref(&keep));
    assert_eq!(is_to_do(&BTreeSet::new(), std::slice::from_ref(&right)), [remove("a", Useless::Unwanted)]);
    let stopped = Container { running: false, ..right.clone() };
    assert_eq!(is_to_do(&wanted, &[stopped]), [make(Some("a"))]);
    let disconnected = Container { networks: BTreeMap::new(), ..right.clone() };
    let begun = steps(&wanted, std::slice::from_ref(&disconnected), |being_made| *being_made == key());
    assert_eq!(begun, [make(None)], "it is being made");
    assert_eq!(is_to_do(&wanted, &[disconnected]), [remove("a", Useless::Elsewhere), make(None)]);
    let others = [right, holder("b", "shop_default", "web"), holder("c", "shop_default", "gone")];
    let second_and_unwanted = [remove("b", Useless::Second), remove("c", Useless::Unwanted)];
    assert_eq!(is_to_do(&wanted, &others), [&second_and_unwanted[..], std::slice::from_ref(&keep)].concat());
    let unnamed = Container { labels: BTreeMap::new(), ..others[0].clone() };
    assert_eq!(is_to_do(&wanted, &[unnamed]), [remove("a", Useless::Unnamed), make(None)]);
}

#[test]
fn a_service_without_a_holder_is_not_observed_yet() {
    let services = Services::of(bridges(), containers());
    assert_eq!(services.observe(&BTreeMap::new(), &BTreeSet::new()), []);
}
