use super::document::{BackendDocument, DOCUMENT_VERSION};
use super::*;
use ipnet::IpNet;
use proptest::prelude::*;
use ringlb_proxy::control::message::{Algorithm, ServiceSettings};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn spec(subnet: &str) -> NetworkSpec {
    NetworkSpec { subnet: nets(subnet), vip_prefix: Families::default() }
}

/// Subnets, separated by spaces.
fn nets(text: &str) -> Families<IpNet> {
    text.split_whitespace().map(|net| net.parse::<IpNet>().unwrap()).collect()
}

/// Addresses, separated by spaces.
fn ips(text: &str) -> Families<IpAddr> {
    text.split_whitespace().map(ip).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn attachment(netns: &str, ip: Option<&str>) -> AttachmentSpec {
    AttachmentSpec { netns: netns.to_owned(), ip: ips(ip.unwrap_or_default()) }
}

fn put_attachment(name: &str, netns: &str, ip: Option<&str>) -> Change {
    Change::PutAttachment { attachment: name.to_owned(), spec: attachment(netns, ip) }
}

fn put_service(name: &str, spec: ServiceSpec) -> Change {
    Change::Service { service: name.to_owned(), change: ServiceChange::Put(Box::new(spec)) }
}

fn with_vip(vip: &str) -> ServiceSpec {
    ServiceSpec { vip: ips(vip), ..ServiceSpec::default() }
}

fn backend(service: &str, address: &str, change: BackendChange) -> Change {
    Change::Service { service: service.to_owned(), change: ServiceChange::Backend { address: ip(address), change } }
}

fn put_backend(service: &str, address: &str) -> Change {
    backend(service, address, BackendChange::Put(BackendSpec::default()))
}

fn web() -> Model {
    Model::default().change("web", &Change::PutNetwork(spec("10.1.0.0/24"))).unwrap()
}

/// `web` with these changes, all of which must be taken.
fn web_with(changes: &[Change]) -> Model {
    changes.iter().fold(web(), |model, change| model.change("web", change).unwrap())
}

fn state(yaml: &str) -> DesiredState {
    serde_saphyr::from_str(yaml).unwrap()
}

/// Some services are published, those with a VIP that was asked for on another port.
fn published_of(name: u8, other: bool) -> Vec<PublishedDocument> {
    let port = 8000 + 2 * u16::from(name) + u16::from(other);
    let published = PublishedDocument { port, target: 80, protocol: Protocol::Tcp };
    if name.is_multiple_of(2) { vec![published] } else { Vec::new() }
}

fn assert_refused(model: &Model, change: &Change, kind: RejectionKind, field: &str, reason: &str) {
    let rejection = model.change("web", change).unwrap_err();
    assert_eq!((rejection.kind, rejection.errors.len()), (kind, 1), "{rejection}");
    assert_eq!(rejection.errors[0].field, field);
    assert!(
        rejection.errors[0].reason.contains(reason),
        "{:?} does not contain {reason:?}",
        rejection.errors[0].reason
    );
}

#[test]
fn names_are_checked() {
    for name in ["a", "0", "web", "a.b-c_d", &"x".repeat(63)] {
        assert!(Name::new(name).is_ok(), "{name}");
    }
    for name in ["", "-a", ".", "..", "_x", "Web", "a b", "a/b", "a\0", "ä", "a\n", "../etc", &"x".repeat(64)] {
        let rejection = Model::default().change(name, &Change::PutNetwork(spec("10.1.0.0/24"))).unwrap_err();
        assert_eq!(rejection.kind, RejectionKind::Invalid, "{name}");
        assert!(rejection.errors[0].field.ends_with(".name"), "{rejection}");
    }
}

#[test]
fn subnets_are_checked() {
    let cases = [
        ("10.1.0.1/24", None, "subnet", "write 10.1.0.0/24"),
        ("10.0.0.0/7", None, "subnet", "not between /8 and /29"),
        ("10.1.0.0/30", None, "subnet", "not between /8 and /29"),
        ("127.0.0.0/8", None, "subnet", "unicast"),
        ("224.0.0.0/8", None, "subnet", "unicast"),
        ("0.0.0.0/8", None, "subnet", "unicast"),
        ("250.0.0.0/8", None, "subnet", "unicast"),
        ("10.1.0.0/24", Some("10.2.0.0/26"), "vip_prefix", "outside the subnet"),
        ("10.1.0.0/24", Some("10.0.0.0/8"), "vip_prefix", "outside the subnet"),
        ("10.1.0.0/24", Some("10.1.0.0/24"), "vip_prefix", "no address is left"),
        ("10.1.0.0/24", Some("10.1.0.1/26"), "vip_prefix", "write 10.1.0.0/26"),
        ("10.1.0.0/24", Some("fd00::/66"), "vip_prefix", "fd00::/66 is IPv6, the network has no IPv6 subnet"),
        ("fd00::/64", Some("10.1.0.0/26"), "vip_prefix", "10.1.0.0/26 is IPv4, the network has no IPv4 subnet"),
        ("fd00::/47", None, "subnet", "not between /48 and /124"),
        ("fd00::/125", None, "subnet", "not between /48 and /124"),
        ("fd00::/64", Some("fd00::/64"), "vip_prefix", "no address is left"),
        ("fd00::/64", Some("fd00:0:0:1::/66"), "vip_prefix", "outside the subnet fd00::/64"),
        ("fd00::/64", Some("fd00::1/66"), "vip_prefix", "write fd00::/66"),
        ("::/64", None, "subnet", "loopback"),
        ("::/124", None, "subnet", "loopback"),
        ("::ffff:10.1.0.0/112", None, "subnet", "IPv4-mapped"),
        ("::10.1.0.0/112", None, "subnet", "reserved (RFC 4291)"),
        ("fe80::/64", None, "subnet", "link-local"),
        ("fec0::/64", None, "subnet", "site-local"),
        ("ff02::/64", None, "subnet", "multicast"),
        ("10.1.0.0/24 ff02::/64", None, "subnet", "multicast"),
        ("127.0.0.0/24 fd00::/64", None, "subnet", "loopback"),
        ("10.1.0.0/24 fd00::/64", Some("10.1.0.0/24 fd00::/66"), "vip_prefix", "10.1.0.0/24 is the whole subnet"),
        ("10.1.0.0/24 fd00::/64", Some("10.1.0.0/26 fd00::/64"), "vip_prefix", "fd00::/64 is the whole subnet"),
    ];
    for (subnet, vip_prefix, field, reason) in cases {
        let vip_prefix = nets(vip_prefix.unwrap_or_default());
        let change = Change::PutNetwork(NetworkSpec { vip_prefix, ..spec(subnet) });
        let field = format!("networks.web.{field}");
        assert_refused(&Model::default(), &change, RejectionKind::Invalid, &field, reason);
    }
}

#[test]
fn the_vip_prefix_is_the_upper_quarter_unless_given() {
    for (subnet, prefix) in [
        ("10.1.0.0/24", "10.1.0.192/26"),
        ("10.0.0.0/8", "10.192.0.0/10"),
        ("10.1.1.8/29", "10.1.1.14/31"),
        ("fd00::/48", "fd00:0:0:c000::/50"),
        ("fd00::/64", "fd00::c000:0:0:0/66"),
        ("fd00::10/124", "fd00::1c/126"),
        ("fd00::/64 10.1.0.0/24", "10.1.0.192/26 fd00::c000:0:0:0/66"),
    ] {
        let model = Model::default().change("web", &Change::PutNetwork(spec(subnet))).unwrap();
        assert_eq!(model.network("web").unwrap().vip_prefix(), nets(prefix));
    }
}

#[test]
fn subnets_do_not_overlap() {
    for other in ["10.1.0.0/24", "10.1.0.0/16", "10.1.0.128/25"] {
        let rejection = web().change("other", &Change::PutNetwork(spec(other))).unwrap_err();
        assert_eq!(rejection.kind, RejectionKind::Conflict);
        assert_eq!(rejection.errors[0].field, "networks.other.subnet");
        assert!(rejection.errors[0].reason.contains("overlaps 10.1.0.0/24 of network `web`"), "{rejection}");
    }
    assert!(web().change("other", &Change::PutNetwork(spec("10.1.1.0/24"))).is_ok());
    let dual = Model::default().change("web", &Change::PutNetwork(spec("10.1.0.0/24 fd00::/64"))).unwrap();
    for (other, reason) in [
        ("fd00::/48", "fd00::/48 overlaps fd00::/64 of network `web`"),
        ("10.2.0.0/24 fd00::/80", "fd00::/80 overlaps fd00::/64 of network `web`"),
        ("10.1.0.0/25 fd01::/64", "10.1.0.0/25 overlaps 10.1.0.0/24 of network `web`"),
    ] {
        let rejection = dual.change("other", &Change::PutNetwork(spec(other))).unwrap_err();
        assert_eq!(rejection.errors[0].field, "networks.other.subnet");
        assert_eq!(rejection.errors[0].reason, reason);
        let list = other.split(' ').collect::<Vec<_>>().join("', '");
        let both = format!(
            "{{version: 1, networks: [{{name: web, subnet: [10.1.0.0/24, 'fd00::/64']}}, {{name: other, subnet: ['{list}']}}]}}"
        );
        let rejection = Model::default().desired(&state(&both)).unwrap_err();
        assert!(rejection.errors[0].reason.contains(" overlaps "), "{rejection}");
    }
}

#[test]
fn a_network_in_use_keeps_its_subnet() {
    let model = web_with(&[put_service("api", ServiceSpec::default())]);
    let other = Change::PutNetwork(spec("10.9.0.0/24"));
    assert_refused(&model, &other, RejectionKind::Conflict, "networks.web.subnet", "remove them first");
    assert!(model.change("web", &Change::PutNetwork(spec("10.1.0.0/24"))).is_ok(), "the same again");
    assert_eq!(web().change("web", &other).unwrap().network("web").unwrap().subnet(), nets("10.9.0.0/24"));
}

#[test]
fn addresses_that_nobody_can_have_are_refused() {
    let model = web_with(&[
        put_attachment("c1", "/run/netns/c1", None),
        put_service("api", ServiceSpec::default()),
        put_backend("api", "10.1.0.50"),
    ]);
    let network = model.network("web").unwrap();
    assert_eq!(network.attachments()["c1"].ip, ips("10.1.0.1"));
    assert_eq!(network.services()["api"].vip, ips("10.1.0.192"));
    assert_eq!(network.lb_address(), Some(ips("10.1.0.191")));

    use RejectionKind::{Conflict, Invalid};
    for (address, kind, reason) in [
        ("10.2.0.1", Invalid, "outside the subnet"),
        ("10.1.0.0", Invalid, "the network address"),
        ("10.1.0.255", Invalid, "the broadcast address"),
        ("fd00::1", Invalid, "IPv6 address, the subnet 10.1.0.0/24 is IPv4"),
        ("10.1.0.192", Conflict, "already the VIP of service `api`"),
        ("10.1.0.1", Conflict, "already the address of attachment `c1`"),
        ("10.1.0.191", Conflict, "already the address of the network's LB endpoint"),
        ("10.1.0.50", Conflict, "already the address of a backend"),
    ] {
        assert_refused(&model, &put_service("new", with_vip(address)), kind, "networks.web.services.new.vip", reason);
    }
    for (address, kind, reason) in [
        ("10.2.0.1", Invalid, "outside the subnet"),
        ("10.1.0.0", Invalid, "the network address"),
        ("10.1.0.255", Invalid, "the broadcast address"),
        ("fd00::1", Invalid, "IPv6"),
        ("10.1.0.200", Invalid, "inside the VIP prefix 10.1.0.192/26"),
        ("10.1.0.1", Conflict, "already the address of attachment `c1`"),
        ("10.1.0.191", Conflict, "LB endpoint"),
    ] {
        let change = put_attachment("new", "/run/netns/new", Some(address));
        assert_refused(&model, &change, kind, "networks.web.attachments.new.ip", reason);
    }
    for (address, kind, reason) in [
        ("10.2.0.1", Invalid, "outside the subnet"),
        ("fd00::1", Invalid, "IPv6"),
        ("10.1.0.192", Conflict, "is the VIP of service `api`"),
        ("10.1.0.191", Conflict, "is the address of the network's LB endpoint"),
        ("10.1.0.200", Invalid, "inside the VIP prefix"),
        ("10.1.0.255", Invalid, "the broadcast address"),
    ] {
        let field = format!("networks.web.services.api.backends.{address}");
        assert_refused(&model, &put_backend("api", address), kind, &field, reason);
    }
    // An attachment may have a backend's address, and the other way round: that is what a backend is.
    assert!(model.change("web", &put_attachment("c2", "/run/netns/c2", Some("10.1.0.50"))).is_ok());
    assert!(model.change("web", &put_backend("api", "10.1.0.1")).is_ok());
}

#[test]
fn everything_on_a_dual_stack_network_has_an_address_of_each_family() {
    let changes = [
        Change::PutNetwork(spec("10.1.0.0/24 fd00::/64")),
        put_attachment("c1", "/c1", None),
        put_attachment("c2", "/c2", Some("fd00::1:7")),
        put_service("api", ServiceSpec::default()),
        put_service("db", with_vip("10.1.0.222")),
        put_service("both", with_vip("fd00::c000:0:0:9 10.1.0.223")),
        put_backend("api", "10.1.0.1"),
        put_backend("api", "fd00::1:7"),
    ];
    let model = changes.iter().fold(Model::default(), |model, change| model.change("web", change).unwrap());
    let network = model.network("web").unwrap();
    assert_eq!(network.attachments()["c1"].ip, ips("10.1.0.1 fd00::1"));
    assert_eq!(network.attachments()["c2"].ip, ips("10.1.0.2 fd00::1:7"));
    assert_eq!(network.services()["api"].vip, ips("10.1.0.192 fd00::c000:0:0:0"));
    assert_eq!(network.services()["db"].vip, ips("10.1.0.222 fd00::c000:0:0:1"));
    assert_eq!(network.services()["both"].vip, ips("10.1.0.223 fd00::c000:0:0:9"));
    assert_eq!(network.lb_address(), Some(ips("10.1.0.191 fd00::bfff:ffff:ffff:ffff")));

    let moved = model.change("web", &put_service("api", with_vip("fd00::c000:0:0:77"))).unwrap();
    assert_eq!(moved.network("web").unwrap().services()["api"].vip, ips("10.1.0.192 fd00::c000:0:0:77"));
    let taken = moved.change("web", &put_service("new", with_vip("fd00::c000:0:0:0"))).unwrap();
    assert_eq!(taken.network("web").unwrap().services()["new"].vip, ips("10.1.0.193 fd00::c000:0:0:0"));
}

#[test]
fn addresses_that_nobody_can_have_are_refused_in_ipv6() {
    let changes = [
        Change::PutNetwork(spec("fd00::/64")),
        put_attachment("c1", "/c1", None),
        put_service("api", ServiceSpec::default()),
        put_backend("api", "fd00::50"),
    ];
    let model = changes.iter().fold(Model::default(), |model, change| model.change("web", change).unwrap());
    use RejectionKind::{Conflict, Invalid};
    for (address, kind, reason) in [
        ("fd00:0:0:1::1", Invalid, "outside the subnet fd00::/64"),
        ("fd00::", Invalid, "the subnet-router anycast address of fd00::/64"),
        ("10.1.0.1", Invalid, "10.1.0.1 is an IPv4 address, the subnet fd00::/64 is IPv6"),
        ("::ffff:10.1.0.1", Invalid, "IPv4-mapped IPv6 address: write 10.1.0.1"),
        ("::", Invalid, "unspecified"),
        ("::1", Invalid, "loopback"),
        ("fe80::1", Invalid, "link-local"),
        ("ff02::1", Invalid, "multicast"),
        ("fd00::c000:0:0:0", Conflict, "already the VIP of service `api`"),
        ("fd00::1", Conflict, "already the address of attachment `c1`"),
        ("fd00::bfff:ffff:ffff:ffff", Conflict, "already the address of the network's LB endpoint"),
        ("fd00::50", Conflict, "already the address of a backend"),
    ] {
        assert_refused(&model, &put_service("new", with_vip(address)), kind, "networks.web.services.new.vip", reason);
    }
    for (address, kind, reason) in [
        ("fd00::c000:0:0:5", Invalid, "inside the VIP prefix fd00::c000:0:0:0/66"),
        ("::ffff:10.1.0.1", Invalid, "IPv4-mapped"),
        ("fd00::bfff:ffff:ffff:ffff", Conflict, "LB endpoint"),
    ] {
        let change = put_attachment("new", "/new", Some(address));
        assert_refused(&model, &change, kind, "networks.web.attachments.new.ip", reason);
        let field = format!("networks.web.services.api.backends.{}", ip(address));
        assert_refused(&model, &put_backend("api", address), kind, &field, reason);
    }
    // IPv6 has no broadcast address: the last one is like any other.
    assert!(model.change("web", &put_backend("api", "fd00::5")).is_ok());
    assert!(model.change("web", &put_service("new", with_vip("fd00::ffff:ffff:ffff:ffff"))).is_ok());
}

/// Whatever the order of the entries, an address that one asks for is not chosen for another that asks only for one of
/// the other family.
#[test]
fn no_address_is_chosen_that_another_entry_asks_for() {
    let entries = ["{name: a, vip: 10.1.0.200}", "{name: b, vip: 'fd00::c000:0:0:0'}", "{name: c}"];
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let services = order.map(|index| entries[index]).join(", ");
        let text = format!(
            "{{version: 1, networks: [{{name: web, subnet: ['fd00::/64', 10.1.0.0/24], services: [{services}]}}]}}"
        );
        let model = Model::default().desired(&state(&text)).unwrap();
        let services = model.network("web").unwrap().services();
        assert_eq!(services["a"].vip.get(Family::V4), Some(&ip("10.1.0.200")));
        assert_eq!(services["b"].vip.get(Family::V6), Some(&ip("fd00::c000:0:0:0")));
        let again = model.desired(&state(&text)).unwrap();
        assert!(model.network("web").unwrap() == again.network("web").unwrap());
    }
}

#[test]
fn what_does_not_exist_is_not_found() {
    let model = web_with(&[put_service("api", ServiceSpec::default())]);
    let remove = |change| Change::Service { service: "api".to_owned(), change };
    let cases = [
        (Change::RemoveAttachment { attachment: "c1".to_owned() }, "networks.web.attachments.c1"),
        (Change::Service { service: "no".to_owned(), change: ServiceChange::Remove }, "networks.web.services.no"),
        (put_backend("no", "10.1.0.5"), "networks.web.services.no"),
        (backend("api", "10.1.0.5", BackendChange::Remove), "networks.web.services.api.backends.10.1.0.5"),
        (backend("api", "10.1.0.5", BackendChange::Drain), "networks.web.services.api.backends.10.1.0.5"),
    ];
    for (change, field) in cases {
        assert_refused(&model, &change, RejectionKind::NotFound, field, "does not exist");
    }
    let rejection = model.change("other", &remove(ServiceChange::Remove)).unwrap_err();
    assert_eq!((rejection.kind, rejection.errors[0].field.as_str()), (RejectionKind::NotFound, "networks.other"));
}

#[test]
fn a_network_that_is_not_empty_is_removed_only_with_its_lb() {
    let model = web_with(&[put_service("api", ServiceSpec::default())]);
    let plain = Change::RemoveNetwork { remove_lb: false };
    assert_refused(&model, &plain, RejectionKind::Conflict, "networks.web", "remove_lb");
    assert!(model.change("web", &Change::RemoveNetwork { remove_lb: true }).unwrap().networks().is_empty());
    assert!(web().change("web", &plain).unwrap().networks().is_empty());
}

#[test]
fn a_namespace_is_attached_once() {
    let model = web_with(&[put_attachment("c1", "/run/netns/c1", None)]);
    let twice = put_attachment("c2", "/run/netns/c1", None);
    assert_refused(&model, &twice, RejectionKind::Conflict, "networks.web.attachments.c2.netns", "as `c1`");
    for path in ["", "netns/c1", "/a\0b"] {
        let change = put_attachment("c2", path, None);
        assert_refused(&model, &change, RejectionKind::Invalid, "networks.web.attachments.c2.netns", "");
    }
}

#[test]
fn the_lb_address_exists_only_while_it_is_needed() {
    let attached = web_with(&[put_attachment("c1", "/run/netns/c1", None)]);
    assert_eq!(attached.network("web").unwrap().lb_address(), None);
    let both = attached.change("web", &put_service("api", ServiceSpec::default())).unwrap();
    assert!(both.network("web").unwrap().lb_address().is_some());
    let detached = both.change("web", &Change::RemoveAttachment { attachment: "c1".to_owned() }).unwrap();
    assert_eq!(detached.network("web").unwrap().lb_address(), None);
    // And it is free again.
    assert!(detached.change("web", &put_attachment("c2", "/run/netns/c2", Some("10.1.0.191"))).is_ok());
}

#[test]
fn a_service_keeps_its_vip_and_backends_when_they_are_not_given() {
    let model = web_with(&[put_service("api", with_vip("10.1.0.222")), put_backend("api", "10.1.0.5")]);
    let settings = ServiceSettings { algorithm: Algorithm::P2c, ..ServiceSettings::default() };
    let changed = ServiceSpec { settings, ..ServiceSpec::default() };
    let model = model.change("web", &put_service("api", changed)).unwrap();
    let service = &model.network("web").unwrap().services()["api"];
    assert_eq!((service.vip, service.backends.len()), (ips("10.1.0.222"), 1));
    let emptied = ServiceSpec { backends: Some(Vec::new()), ..ServiceSpec::default() };
    let model = model.change("web", &put_service("api", emptied)).unwrap();
    assert!(model.network("web").unwrap().services()["api"].backends.is_empty());
    // What is no backend any more can be a VIP.
    assert!(model.change("web", &put_service("new", with_vip("10.1.0.5"))).is_ok());
}

#[test]
fn a_generation_counts_batches_that_change_the_table() {
    let generation = |model: &Model| model.network("web").unwrap().generation();
    let model = web_with(&[put_attachment("c1", "/run/netns/c1", None)]);
    assert_eq!(generation(&model), 1);
    let model = model.change("web", &put_service("api", ServiceSpec::default())).unwrap();
    let model = model.change("web", &put_backend("api", "10.1.0.5")).unwrap();
    assert_eq!(generation(&model), 3);
    let same = model.change("web", &put_backend("api", "10.1.0.5")).unwrap();
    assert_eq!(generation(&same), 3, "the same again changes nothing");
    let drained = same.change("web", &backend("api", "10.1.0.5", BackendChange::Drain)).unwrap();
    assert_eq!(generation(&drained), 4);
    let back = drained.change("web", &put_backend("api", "10.1.0.5")).unwrap();
    assert!(!back.network("web").unwrap().services()["api"].backends[&ip("10.1.0.5")].draining);
}

#[test]
fn the_vip_prefix_can_be_used_up() {
    let mut model = Model::default().change("web", &Change::PutNetwork(spec("10.1.0.0/29"))).unwrap();
    model = model.change("web", &put_service("one", ServiceSpec::default())).unwrap();
    assert_eq!(model.network("web").unwrap().services()["one"].vip, ips("10.1.0.6"));
    let two = put_service("two", ServiceSpec::default());
    assert_refused(
        &model,
        &two,
        RejectionKind::Conflict,
        "networks.web.services.two.vip",
        "no address of the VIP prefix",
    );
    for index in 1..=5 {
        model = model.change("web", &put_attachment(&format!("c{index}"), &format!("/c{index}"), None)).unwrap_or_else(
            |error| {
                // With the last attachment there is no address left for the LB endpoint.
                assert!(index >= 5, "{index}: {error}");
                model.clone()
            },
        );
    }
    let network = model.network("web").unwrap();
    assert_eq!((network.attachments().len(), network.lb_address()), (4, Some(ips("10.1.0.5"))));
}

const TWO_NETWORKS: &str = "
version: 1
networks:
- name: web
  subnet: 10.1.0.0/24
  attachments:
  - {name: c1, netns: /run/netns/c1}
  - {name: c2, netns: /run/netns/c2, ip: 10.1.0.1}
  services:
  - name: api
    algorithm: p2c
    drain_timeout: 5s
    backends: [{ip: 10.1.0.2}, {ip: 10.1.0.3, weight: 3, drain: true}]
  - {name: db, vip: 10.1.0.192}
- name: back
  subnet: 10.2.0.0/16
";

#[test]
fn a_desired_state_is_a_whole() {
    let model = web_with(&[put_service("old", ServiceSpec::default())]);
    let model = model.change("gone", &Change::PutNetwork(spec("10.3.0.0/24"))).unwrap();
    let model = model.desired(&state(TWO_NETWORKS)).unwrap();
    assert_eq!(model.networks().keys().map(|name| &**name).collect::<Vec<_>>(), ["back", "web"]);
    let network = model.network("web").unwrap();
    assert_eq!(network.attachments()["c2"].ip, ips("10.1.0.1"));
    // Neither the address that is asked for nor those of the backends are chosen for c1.
    assert_eq!(network.attachments()["c1"].ip, ips("10.1.0.4"));
    assert_eq!(network.services()["db"].vip, ips("10.1.0.192"));
    assert_eq!(network.services()["api"].vip, ips("10.1.0.193"));
    assert_eq!(network.generation(), 3);
    assert_eq!(network.lb_address(), Some(ips("10.1.0.191")));
}

#[test]
fn applied_again_nothing_changes() {
    let first = Model::default().desired(&state(TWO_NETWORKS)).unwrap();
    let second = first.desired(&state(TWO_NETWORKS)).unwrap();
    assert!(first.networks().diff(second.networks()).next().is_none());

    let reordered = TWO_NETWORKS
        .replace("  - {name: db, vip: 10.1.0.192}\n", "")
        .replace("  - name: api", "  - {name: db}\n  - {name: aa}\n  - name: api");
    let third = second.desired(&state(&reordered)).unwrap();
    let (before, after) = (second.network("web").unwrap(), third.network("web").unwrap());
    assert_eq!(after.services()["db"].vip, before.services()["db"].vip);
    assert_eq!(after.services()["api"], before.services()["api"], "untouched services stay the same value");
    assert_eq!(after.services()["aa"].vip, ips("10.1.0.194"));
    assert_eq!(after.generation(), before.generation() + 1);
    assert_eq!(after.lb_address(), before.lb_address());
    assert!(second.network("back").unwrap() == third.network("back").unwrap());
}

#[test]
fn vips_can_be_exchanged_in_one_state() {
    let text = "version: 1\nnetworks: [{name: web, subnet: 10.1.0.0/24, services: [{name: a, vip: 10.1.0.201}, {name: b, vip: 10.1.0.202}]}]";
    let model = Model::default().desired(&state(text)).unwrap();
    let exchanged = text.replace("201", "x").replace("202", "201").replace('x', "202");
    let model = model.desired(&state(&exchanged)).unwrap();
    assert_eq!(model.network("web").unwrap().services()["a"].vip, ips("10.1.0.202"));
}

#[test]
fn a_desired_state_moves_a_network_to_another_subnet() {
    let model = Model::default().desired(&state(TWO_NETWORKS)).unwrap();
    let moved = TWO_NETWORKS.replace("10.1.", "10.7.");
    let after = model.desired(&state(&moved)).unwrap();
    let (before, after) = (model.network("web").unwrap(), after.network("web").unwrap());
    assert_eq!(after.services()["api"].vip, ips("10.7.0.193"));
    assert!(after.generation() > before.generation());
}

#[test]
fn all_errors_of_a_desired_state_are_named() {
    let bad = "
version: 1
networks:
- {name: We!rd, subnet: 10.9.0.0/24}
- name: web
  subnet: 10.1.0.0/24
  attachments:
  - {name: c1, netns: /c1, ip: 10.1.0.200}
  - {name: c2, netns: /c1}
  - {name: c2, netns: /c2}
  - {name: c2, netns: /c3}
  services:
  - {name: api, vip: 10.2.0.1}
  - {name: db, backends: [{ip: 10.1.0.9}, {ip: 10.1.0.9}]}
  - {name: x, vip: 10.1.0.222}
  - {name: y, vip: 10.1.0.222}
- {name: other, subnet: 10.8.0.0/16}
- {name: other, subnet: 10.7.0.0/16}
- {name: inner, subnet: 10.7.1.0/24}
";
    let rejection = web().desired(&state(bad)).unwrap_err();
    let fields: Vec<_> = rejection.errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "networks.We!rd.name",
            "networks.web.attachments.c2.netns",
            "networks.web.attachments.c2",
            "networks.web.attachments.c2",
            "networks.web.attachments.c1.ip",
            "networks.web.services.api.vip",
            "networks.web.services.y.vip",
            "networks.web.services.db.backends.10.1.0.9",
            "networks.other",
            "networks.inner.subnet",
        ],
        "{rejection}"
    );
}

#[test]
fn another_version_is_refused() {
    let rejection =
        Model::default().desired(&DesiredState { version: DOCUMENT_VERSION + 1, networks: vec![] }).unwrap_err();
    assert_eq!(rejection.errors[0].field, "version");
}

#[test]
fn limits_are_refused_by_name() {
    let many: Vec<_> = (0..=limits::MAX_BACKENDS as u32)
        .map(|index| BackendDocument {
            ip: Ipv4Addr::from(0x0a01_0001 + index).into(),
            weight: Weight(1),
            drain: false,
            backup: false,
        })
        .collect();
    let model = Model::default().change("web", &Change::PutNetwork(spec("10.1.0.0/16"))).unwrap();
    let too_many = put_service("api", ServiceSpec { backends: Some(many.clone()), ..ServiceSpec::default() });
    assert_refused(
        &model,
        &too_many,
        RejectionKind::Conflict,
        "networks.web.services.api.backends",
        "limit of 1000 backends",
    );
    let full = ServiceSpec { backends: Some(many[1..].to_vec()), ..ServiceSpec::default() };
    let model = model.change("web", &put_service("api", full)).unwrap();
    assert_refused(
        &model,
        &put_backend("api", "10.1.0.1"),
        RejectionKind::Conflict,
        "networks.web.services.api.backends.10.1.0.1",
        "limit of 1000 backends",
    );
    let networks = |count: usize| {
        let entry = |index: usize| format!("{{name: n{index}, subnet: 10.{}.{}.0/24}}", index / 256, index % 256);
        let entries: Vec<_> = (0..count).map(entry).collect();
        state(&format!("version: 1\nnetworks: [{}]", entries.join(", ")))
    };
    let full = Model::default().desired(&networks(limits::MAX_NETWORKS)).unwrap();
    let one_more = full.change("more", &Change::PutNetwork(spec("192.168.0.0/24"))).unwrap_err();
    assert!(one_more.errors[0].reason.contains("limit of 1000 networks"), "{one_more}");
    assert_eq!(full.desired(&networks(limits::MAX_NETWORKS + 1)).unwrap_err().errors[0].field, "networks");
}

/// One step of a random history on a small network, so that everything collides.
#[derive(Debug, Clone)]
enum Step {
    PutAttachment(u8, Asked),
    RemoveAttachment(u8),
    PutService(u8, Asked, Option<Vec<u8>>),
    RemoveService(u8),
    Backend(u8, u8, BackendChange),
    Apply(Vec<(u8, Asked)>, Vec<(u8, Asked, Vec<u8>)>),
}

type Asked = Families<IpAddr>;

/// The networks of random histories: of so few addresses that everything collides.
const SMALL: [&str; 3] = ["10.1.0.0/27", "fd00::/123", "10.1.0.0/27 fd00::/123"];

/// None, or one of either family, or one of each.
fn asked() -> impl Strategy<Value = Asked> {
    prop::collection::vec(0u8..64, 0..3).prop_map(|numbers| numbers.into_iter().map(host).collect())
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0u8..6;
    let host = || 0u8..64;
    let backends = || prop::collection::vec(host(), 0..4);
    prop_oneof![
        (name(), asked()).prop_map(|(name, ip)| Step::PutAttachment(name, ip)),
        name().prop_map(Step::RemoveAttachment),
        (name(), asked(), prop::option::of(backends()))
            .prop_map(|(name, vip, backends)| Step::PutService(name, vip, backends)),
        name().prop_map(Step::RemoveService),
        (name(), host(), any::<u16>(), any::<bool>(), any::<bool>()).prop_map(|(name, ip, weight, drain, backup)| {
            Step::Backend(name, ip, BackendChange::Put(BackendSpec { weight: Weight(weight), drain, backup }))
        }),
        (name(), host()).prop_map(|(name, ip)| Step::Backend(name, ip, BackendChange::Drain)),
        (name(), host()).prop_map(|(name, ip)| Step::Backend(name, ip, BackendChange::Remove)),
        (prop::collection::vec((name(), asked()), 0..4), prop::collection::vec((name(), asked(), backends()), 0..4))
            .prop_map(|(attachments, services)| Step::Apply(attachments, services)),
    ]
}

/// An address of the small networks: 32 of IPv4, and as many of IPv6.
fn host(number: u8) -> IpAddr {
    match number.checked_sub(32) {
        None => Ipv4Addr::new(10, 1, 0, number).into(),
        Some(number) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

fn listed(backends: &[u8]) -> Vec<BackendDocument> {
    backends
        .iter()
        .map(|number| BackendDocument { ip: host(*number), weight: Weight(1), drain: false, backup: false })
        .collect()
}

/// Some services prefer local backends, some never do, some sometimes.
fn settings_of(name: u8, vip_is_given: bool) -> ServiceSettings {
    ServiceSettings { prefer_local: name < 2 || name < 4 && vip_is_given, ..ServiceSettings::default() }
}

fn take(model: &Model, step: &Step) -> Result<Model, Rejection> {
    let change = match step {
        Step::PutAttachment(name, ip) => Change::PutAttachment {
            attachment: format!("c{name}"),
            spec: AttachmentSpec { netns: format!("/c{name}"), ip: *ip },
        },
        Step::RemoveAttachment(name) => Change::RemoveAttachment { attachment: format!("c{name}") },
        Step::PutService(name, vip, backends) => put_service(
            &format!("s{name}"),
            ServiceSpec {
                vip: *vip,
                settings: settings_of(*name, !vip.is_empty()),
                published: published_of(*name, !vip.is_empty()),
                backends: backends.as_deref().map(listed),
            },
        ),
        Step::RemoveService(name) => Change::Service { service: format!("s{name}"), change: ServiceChange::Remove },
        Step::Backend(service, ip, change) => Change::Service {
            service: format!("s{service}"),
            change: ServiceChange::Backend { address: host(*ip), change: *change },
        },
        Step::Apply(attachments, services) => {
            let attachments = attachments.iter().map(|(name, ip)| document::AttachmentDocument {
                name: format!("c{name}"),
                netns: format!("/c{name}"),
                ip: *ip,
            });
            let services = services.iter().map(|(name, vip, backends)| document::ServiceDocument {
                name: format!("s{name}"),
                vip: *vip,
                settings: settings_of(*name, !vip.is_empty()),
                published: published_of(*name, !vip.is_empty()),
                backends: listed(backends),
            });
            let network = document::NetworkDocument {
                name: "web".to_owned(),
                subnet: model.network("web").unwrap().subnet(),
                vip_prefix: Families::default(),
                attachments: attachments.collect(),
                services: services.collect(),
            };
            return model.desired(&DesiredState { version: DOCUMENT_VERSION, networks: vec![network] });
        }
    };
    model.change("web", &change)
}

fn assert_consistent(network: &Network) {
    let mut taken = HashSet::new();
    let vips: Vec<_> = network.services().values().map(|service| service.vip).collect();
    let attached = network.attachments().values().map(|attachment| attachment.ip);
    for addresses in vips.iter().copied().chain(attached).chain(network.lb_address()) {
        let families = |subnet: &IpNet| addresses.get(subnet.family()).is_some();
        assert!(network.subnet().iter().all(families), "{addresses} in {}", network.subnet());
        for address in addresses.iter() {
            assert!(taken.insert(*address), "{address} was handed out twice");
            let subnet = network.subnet().get(address.family()).copied().unwrap();
            assert!(subnet.contains(address) && *address != subnet.network());
            assert!(address.is_ipv6() || *address != subnet.broadcast());
        }
    }
    let attached: HashSet<_> =
        network.attachments().values().flat_map(|attachment| Vec::from_iter(attachment.ip.iter().copied())).collect();
    for service in network.services().values() {
        for (address, backend) in service.backends.iter() {
            let local = service.settings.prefer_local && attached.contains(address);
            assert_eq!(backend.local, local, "{address} of {}", service.name);
        }
    }
    let is_for_vips = |address: &IpAddr| network.vip_prefix().iter().any(|prefix| prefix.contains(address));
    let not_for_backends = vips.into_iter().chain(network.lb_address());
    let not_for_backends: HashSet<_> =
        not_for_backends.flat_map(|addresses| Vec::from_iter(addresses.iter().copied())).collect();
    for service in network.services().values() {
        for address in service.backends.addresses() {
            assert!(!not_for_backends.contains(&address), "backend {address} is a VIP or the LB endpoint");
            assert!(!is_for_vips(&address));
        }
    }
    for attachment in network.attachments().values() {
        assert!(!attachment.ip.iter().any(is_for_vips));
    }
    let published = network.services().values().any(|service| !service.published.is_empty());
    let needed = published || !network.attachments().is_empty() && !network.services().is_empty();
    assert_eq!(network.lb_address().is_some(), needed);
}

/// An attachment makes a new table only where it matters to a service, and then it does.
#[test]
fn an_attachment_makes_its_address_local() {
    let mut local_first = ServiceSpec::default();
    local_first.settings.prefer_local = true;
    let model = web_with(&[
        put_service("near", local_first),
        put_service("any", ServiceSpec::default()),
        put_backend("near", "10.1.0.7"),
        put_backend("any", "10.1.0.7"),
        put_backend("any", "10.1.0.8"),
    ]);
    let local = |model: &Model, service: &str| {
        model.network("web").unwrap().services()[service].backends[&ip("10.1.0.7")].local
    };
    let generation = |model: &Model| model.network("web").unwrap().generation();
    let other = model.change("web", &put_attachment("c1", "/c1", Some("10.1.0.8"))).unwrap();
    assert_eq!((generation(&other), local(&other, "near")), (generation(&model), false));
    let attached = other.change("web", &put_attachment("c2", "/c2", Some("10.1.0.7"))).unwrap();
    assert_eq!(generation(&attached), generation(&model) + 1);
    assert!(local(&attached, "near") && !local(&attached, "any"));
    let moved = attached.change("web", &put_attachment("c2", "/c2", Some("10.1.0.9"))).unwrap();
    assert_eq!((generation(&moved), local(&moved, "near")), (generation(&model) + 2, false));
    let back = moved.change("web", &put_attachment("c2", "/c2", Some("10.1.0.7"))).unwrap();
    let indifferent = back.change("web", &put_service("near", ServiceSpec::default())).unwrap();
    assert!(local(&back, "near") && !local(&indifferent, "near"));
    let detached = back.change("web", &Change::RemoveAttachment { attachment: "c2".into() }).unwrap();
    assert!(!local(&detached, "near"));
}

impl std::ops::Index<&str> for Services {
    type Output = Shared<Service>;

    fn index(&self, name: &str) -> &Self::Output {
        self.get(name).unwrap()
    }
}

/// What a network holds, by value.
type Content = (HashMap<Name, Attachment>, HashMap<Name, Service>, Option<Families<IpAddr>>);

fn content(network: &Network) -> Content {
    (
        network.attachments().iter().map(|(name, value)| (name.clone(), (**value).clone())).collect(),
        network.services().values().map(|service| (service.name.clone(), (**service).clone())).collect(),
        network.lb_address(),
    )
}

/// All models that a random history goes through.
pub(crate) fn histories() -> impl Strategy<Value = Vec<Model>> {
    (prop::sample::select(&SMALL[..]), prop::collection::vec(step(), 0..60)).prop_map(|(subnets, steps)| {
        let mut model = Model::default().change("web", &Change::PutNetwork(spec(subnets))).unwrap();
        let mut models = vec![model.clone()];
        for step in steps {
            if let Ok(next) = take(&model, &step) {
                model = next;
                models.push(model.clone());
            }
        }
        models
    })
}

proptest! {
    /// Whatever is asked in whatever order: no address is given twice, and none that nobody can have; a generation
    /// grows exactly with the table's content.
    #[test]
    fn a_model_is_always_consistent(models in histories()) {
        for pair in models.windows(2) {
            let (before, after) = (pair[0].network("web").unwrap(), pair[1].network("web").unwrap());
            assert_consistent(after);
            let grown = after.generation() - before.generation();
            let changed = content(before).1 != content(after).1;
            prop_assert!(grown <= 1);
            // A removal and the making of the same again in one batch may count although the content is the same.
            prop_assert!(!changed || grown == 1);
            prop_assert!(changed || grown == 0);
        }
    }

    /// A refused step leaves no trace, and a desired state that is taken is the same from wherever it is reached.
    #[test]
    fn a_refused_change_changes_nothing(models in histories(), step in step()) {
        let model = models.last().unwrap();
        let network = model.network("web").unwrap();
        let before = content(network);
        match take(model, &step) {
            Err(rejection) => {
                prop_assert!(!rejection.errors.is_empty());
                prop_assert!(rejection.errors.iter().all(|error| error.field.starts_with("networks.web")));
            }
            Ok(next) if matches!(step, Step::Apply(..)) => {
                let again = take(&next, &step).unwrap();
                prop_assert!(next.network("web").unwrap() == again.network("web").unwrap());
            }
            Ok(_) => {}
        }
        prop_assert_eq!(content(model.network("web").unwrap()), before);
    }

    /// What is kept is enough to go on as if nothing had happened.
    #[test]
    fn a_kept_model_is_restored(models in histories(), step in step()) {
        let model = models.last().unwrap();
        let kept = serde_json::to_string(&model.keep()).unwrap();
        let restored = Model::restore(&serde_json::from_str(&kept).unwrap()).unwrap();
        let (before, after) = (model.network("web").unwrap(), restored.network("web").unwrap());
        prop_assert_eq!(content(before), content(after));
        prop_assert!(after.generation() >= before.generation());
        match (take(model, &step), take(&restored, &step)) {
            (Ok(one), Ok(two)) => {
                prop_assert_eq!(content(one.network("web").unwrap()), content(two.network("web").unwrap()));
            }
            (one, two) => prop_assert_eq!(one.err(), two.err()),
        }
    }

    /// Documents never make the program panic.
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = serde_saphyr::from_str::<DesiredState>(&text);
        let _ = serde_json::from_str::<DesiredState>(&text);
    }
}

fn published(port: u16) -> Vec<PublishedDocument> {
    vec![PublishedDocument { port, target: 80, protocol: Protocol::Tcp }]
}

#[test]
fn a_port_is_published_once_on_the_node() {
    let with = |port| ServiceSpec { published: published(port), ..ServiceSpec::default() };
    let model = web_with(&[put_service("api", with(8080))]);
    // It takes no attachment to need the LB endpoint.
    assert!(model.network("web").unwrap().lb_address().is_some());
    assert_refused(
        &model,
        &put_service("db", with(8080)),
        RejectionKind::Conflict,
        "networks.web.services.db.published",
        "8080/tcp is already published by service `api` of network `web`",
    );
    let model = model.change("other", &Change::PutNetwork(spec("10.2.0.0/24"))).unwrap();
    assert!(model.change("other", &put_service("db", with(8080))).is_err());
    let model = model.change("other", &put_service("db", with(8081))).unwrap();
    assert_eq!(Model::restore(&model.keep()).unwrap().keep().state, model.keep().state);
    // What is not published any more is free, and nothing needs the LB endpoint.
    let model = model.change("web", &put_service("api", ServiceSpec::default())).unwrap();
    assert!(model.network("web").unwrap().lb_address().is_none());
    let model = model.change("other", &put_service("db", with(8080))).unwrap();
    let model = model.change("other", &Change::RemoveNetwork { remove_lb: true }).unwrap();
    model.change("web", &put_service("api", with(8080))).unwrap();

    let twice = state(
        "{version: 1, networks: [{name: a, subnet: 10.1.0.0/24, services: [{name: s, published: [{port: 1, target: 2}]}]},
          {name: b, subnet: 10.2.0.0/24, services: [{name: s, published: [{port: 1, target: 2}]}]}]}",
    );
    let rejection = Model::default().desired(&twice).unwrap_err();
    assert_eq!(rejection.errors[0].field, "networks.b.services.s.published");
}

fn observed(name: &str, service: &str, port: u16) -> ObservedNetwork {
    let number = port as u8;
    ObservedNetwork {
        name: Name::new(name).unwrap(),
        subnet: nets("10.1.0.0/24"),
        sandbox: Some(ObservedSandbox {
            path: "/run/netns/lb".into(),
            identity: (4, 7),
            lb_address: ips("10.1.0.2"),
            takeover: false,
        }),
        services: vec![ObservedService {
            name: Name::new(service).unwrap(),
            vip: ips("10.1.0.200"),
            settings: ServiceSettings::default(),
            published: published(port).into_iter().map(Into::into).collect(),
            backends: vec![ObservedBackend {
                address: ip(&format!("10.1.0.{number}")),
                weight: Weight(1),
                draining: false,
                local: true,
            }],
        }],
    }
}

#[test]
fn what_is_observed_is_shared_where_nothing_differs() {
    let (model, refused) = Model::default().observe("test", vec![observed("a", "s", 80), observed("b", "s", 81)]);
    assert!(refused.is_empty(), "{refused:?}");
    let (same, _) = model.observe("test", vec![observed("b", "s", 81), observed("a", "s", 80)]);
    assert!(model.networks().diff(same.networks()).next().is_none());
    let mut changed = observed("a", "s", 80);
    changed.services.push(ObservedService { vip: ips("10.1.0.201"), ..observed("a", "t", 82).services.remove(0) });
    let (next, refused) = model.observe("test", vec![changed.clone()]);
    assert!(refused.is_empty() && next.network("b").is_none(), "{refused:?}");
    let (before, after) = (model.network("a").unwrap(), next.network("a").unwrap());
    assert_eq!(after.generation(), before.generation() + 1);
    assert!(before.services()["s"] == after.services()["s"]);
    // Another sandbox is a new generation too.
    changed.sandbox = None;
    let (last, _) = next.observe("test", vec![changed]);
    assert_eq!(last.network("a").unwrap().generation(), after.generation() + 1);
    assert!(last.network("a").unwrap().lb_address().is_none());
    assert!(last.keep().state.networks.is_empty());
    assert!(last.observe("test", Vec::new()).0.networks().is_empty());
}

#[test]
fn what_cannot_be_observed_is_refused_by_itself() {
    let with = ServiceSpec { published: published(90), ..ServiceSpec::default() };
    let model = web_with(&[put_service("api", with)]);
    let (model, refused) = model.observe("test", vec![observed("web", "s", 80), observed("a", "s", 80)]);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].1.to_string().contains("is the name of a network that is made by the API"), "{refused:?}");
    let mut wrong = observed("a", "s", 80);
    let twice = wrong.services[0].backends[0];
    wrong.services[0].backends.push(twice);
    let mut same_vip = observed("c", "s", 83);
    same_vip.services.extend(observed("c", "t", 84).services);
    let networks = vec![wrong, same_vip, observed("b", "s", 90), observed("d", "s", 85), observed("d", "s", 86)];
    let (next, refused) = model.observe("test", networks);
    let reasons: Vec<_> = refused.iter().map(|(name, rejection)| format!("{name}: {rejection}")).collect();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    for reason in [
        "a: networks.a.services.s.backends.10.1.0.80: is listed twice",
        "c: networks.c.services.t.vip: 10.1.0.200 is the VIP of another service too",
        "d: networks.d: is listed twice",
        "b: networks.b.services.s.published: 90/tcp is already published by service `api` of network `web`",
    ] {
        assert!(reasons.iter().any(|given| given == reason), "{reason}: {reasons:?}");
    }
    // A network that is refused stays as it was, and one whose port is somebody else's is there without it.
    assert!(next.network("a") == model.network("a"));
    assert!(next.network("b").unwrap().services()["s"].published.is_empty());
    assert!(next.network("c").is_none());

    let rejection = next.change("b", &Change::RemoveNetwork { remove_lb: true }).unwrap_err();
    assert!(rejection.to_string().contains("is observed by source `test`"), "{rejection}");
    let listed = state("{version: 1, networks: [{name: b, subnet: 10.1.0.0/24}]}");
    assert!(next.desired(&listed).unwrap_err().to_string().contains("is observed by source `test`"));
    let emptied = next.desired(&state("{version: 1, networks: []}")).unwrap();
    assert_eq!(emptied.networks().keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "d"]);
    // With the port free again, it is taken at the next observation.
    let (last, refused) = emptied.observe("test", vec![observed("b", "s", 90)]);
    assert!(refused.is_empty() && last.network("b").unwrap().services()["s"].published.len() == 1, "{refused:?}");
}

#[test]
fn tables_go_on_after_those_of_earlier_proxies() {
    let name = |name: &str| Name::new(name).unwrap();
    let model = web().going_on_after([(name("web"), 7), (name("later"), 4), (name("a"), 9)]);
    assert_eq!(model.network("web").unwrap().generation(), 8);
    let model = model.change("later", &Change::PutNetwork(spec("10.2.0.0/24"))).unwrap();
    assert_eq!(model.network("later").unwrap().generation(), 5);
    let (model, _) = model.observe("test", vec![observed("a", "s", 80)]);
    assert_eq!(model.network("a").unwrap().generation(), 10);
}
