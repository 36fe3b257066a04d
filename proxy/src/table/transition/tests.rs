use super::*;
use crate::control::message::{Protocol, PublishedPort};
use crate::control::settings::{Algorithm, DrainTimeout, ServiceSettings};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn vip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 1, last])
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn backend(last: u8, draining: bool) -> BackendSpec {
    BackendSpec { address: address(last), weight: 1, draining, backup: false, local: false }
}

fn service(name: &str, vip_last: u8, backends: Vec<BackendSpec>) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        vips: vec![vip(vip_last)],
        settings: ServiceSettings {
            drain_timeout: DrainTimeout(Some(Duration::from_secs(1))),
            ..ServiceSettings::default()
        },
        published: Vec::new(),
        backends,
    }
}

fn put(spec: ServiceSpec) -> Change {
    Change::PutService(Arc::new(spec))
}

fn table(services: Vec<ServiceSpec>) -> Table {
    let services = services.into_iter().map(Arc::new).collect();
    Table::default().replaced_by(&Snapshot { generation: 1, services }).unwrap().table
}

fn delta(changes: Vec<Change>) -> Delta {
    Delta { from: 1, to: 2, changes }
}

#[test]
fn services_share_what_is_set_for_all_of_them() {
    let spec = |name, vip| service(name, vip, vec![backend(1, false)]);
    let before = table(vec![spec("a", 1), spec("b", 2)]);
    let mut other = spec("c", 3);
    other.settings.prefer_local = true;
    let after = before.changed_by(&delta(vec![put(spec("d", 4)), put(other), put(spec("e", 5))])).unwrap().table;
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| after.service(name).unwrap());
    assert!(Arc::ptr_eq(&a.settings, &b.settings) && Arc::ptr_eq(&a.settings, &d.settings));
    assert!(Arc::ptr_eq(&a.clients, &d.clients) && !Arc::ptr_eq(&a.clients, &c.clients));
    assert!(c.settings.prefer_local && !e.settings.prefer_local);
}

#[test]
fn a_backend_keeps_its_identity_as_long_as_it_stays() {
    let before = table(vec![service("a", 1, vec![backend(1, false), backend(2, false)])]);
    let kept = before.service("a").unwrap().backend(address(1)).unwrap().identity.clone();
    kept.active.store(5, std::sync::atomic::Ordering::SeqCst);
    let step =
        before.changed_by(&delta(vec![put(service("a", 7, vec![backend(1, true), backend(3, false)]))])).unwrap();
    let after = step.table.service_at(vip(7)).unwrap();
    assert!(kept == after.backend(address(1)).unwrap().identity);
    assert!(step.table.service_at(vip(1)).is_none(), "the old VIP must be free");
    let kinds: Vec<_> = step.consequences.iter().map(|(_, consequence)| *consequence).collect();
    assert_eq!(kinds, [Consequence::DrainStarted(Some(Duration::from_secs(1))), Consequence::Removed]);
}

#[test]
fn the_same_address_put_back_is_a_new_backend() {
    let before = table(vec![service("a", 1, vec![backend(1, true)])]);
    let old = before.service("a").unwrap().backends()[0].identity.clone();
    let changes = vec![
        Change::RemoveBackend { service: "a".into(), address: address(1) },
        Change::PutBackend { service: "a".into(), backend: backend(1, false) },
    ];
    let step = before.changed_by(&delta(changes)).unwrap();
    let now = step.table.service("a").unwrap();
    assert!(old != now.backends()[0].identity);
    assert_eq!(now.eligible(), [0], "a backend put back must be eligible again");
    assert_eq!(step.consequences.len(), 1);
}

fn maglev_size(table: &Table) -> Option<u32> {
    match table.service("a").unwrap().chooser() {
        crate::table::Chooser::Maglev(maglev) => Some(maglev.size()),
        _ => None,
    }
}

fn maglev(backends: std::ops::RangeInclusive<u8>) -> ServiceSpec {
    let backends = backends.map(|last| backend(last, false)).collect();
    let settings = ServiceSettings { algorithm: Algorithm::Maglev, ..ServiceSettings::default() };
    ServiceSpec { settings, ..service("a", 1, backends) }
}

/// A smaller table of another size would move nearly all clients. What a batch passes through does not count, only where
/// it ends.
#[test]
fn a_maglev_table_keeps_its_size_when_backends_go() {
    let swap = |(old, new): (u8, u8)| {
        let service = || "a".to_owned();
        [
            Change::PutBackend { service: service(), backend: backend(new, false) },
            Change::RemoveBackend { service: service(), address: address(old) },
        ]
    };
    let small = table(vec![maglev(1..=15)]);
    assert_eq!(maglev_size(&small), Some(5_003));
    let (put, remove): (Vec<_>, Vec<_>) = (1..=15).zip(101..=115).map(swap).map(|[put, remove]| (put, remove)).unzip();
    let replaced = small.changed_by(&delta([put, remove].concat())).unwrap().table;
    assert_eq!(maglev_size(&replaced), Some(5_003));

    let large = small.changed_by(&delta(vec![self::put(maglev(1..=21))])).unwrap().table;
    assert_eq!(maglev_size(&large), Some(65_537));
    let remove = (2..=21).map(|last| Change::RemoveBackend { service: "a".into(), address: address(last) }).collect();
    let fewer = large.changed_by(&Delta { from: 2, to: 3, changes: remove }).unwrap().table;
    assert_eq!(maglev_size(&fewer), Some(65_537));
    let put_again =
        fewer.replaced_by(&Snapshot { generation: 4, services: vec![Arc::new(maglev(1..=3))] }).unwrap().table;
    assert_eq!(maglev_size(&put_again), Some(65_537));

    let other = Delta { from: 4, to: 5, changes: vec![self::put(service("a", 1, vec![backend(1, false)]))] };
    let other = put_again.changed_by(&other).unwrap().table;
    assert_eq!(maglev_size(&other), None);
    let anew = Delta { from: 5, to: 6, changes: vec![self::put(maglev(1..=3))] };
    assert_eq!(maglev_size(&other.changed_by(&anew).unwrap().table), Some(5_003));
}

#[test]
fn a_batch_that_does_not_apply_changes_nothing() {
    let before = table(vec![service("a", 1, vec![backend(1, false)]), service("b", 2, vec![])]);
    let add = Change::PutBackend { service: "a".into(), backend: backend(9, false) };
    for (bad, expected) in [
        (Change::RemoveService { service: "x".into() }, TransitionError::NoService { service: "x".into() }),
        (
            Change::RemoveBackend { service: "b".into(), address: address(1) },
            TransitionError::NoBackend { service: "b".into(), address: address(1) },
        ),
        (
            put(service("c", 2, vec![])),
            TransitionError::VipTaken { service: "c".into(), other: "b".into(), vip: vip(2) },
        ),
        (
            put(service("c", 3, vec![backend(4, false), backend(4, true)])),
            TransitionError::Twice { what: "backend 10.0.0.4 of service `c`".into() },
        ),
    ] {
        assert_eq!(before.changed_by(&delta(vec![add.clone(), bad])).unwrap_err(), expected);
    }
    assert_eq!(before.service("a").unwrap().backends().len(), 1);
    assert_eq!(
        before.changed_by(&Delta { from: 0, to: 2, changes: vec![] }).unwrap_err(),
        TransitionError::NotOurGeneration { from: 0, current: 1 }
    );
    assert_eq!(
        before.changed_by(&Delta { from: 1, to: 1, changes: vec![] }).unwrap_err(),
        TransitionError::NotNewer { to: 1, current: 1 }
    );
}

#[test]
fn a_service_is_found_by_each_of_its_vips() {
    let sixth = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
    let dual = |first| ServiceSpec { vips: vec![vip(first), sixth], ..service("a", 0, vec![backend(1, false)]) };
    let before = table(vec![dual(1), service("b", 2, vec![])]);
    let moved = before.changed_by(&delta(vec![put(dual(3))])).unwrap();
    assert!(moved.consequences.is_empty(), "its backend stays");
    for found in [vip(3), sixth] {
        assert_eq!(&*moved.table.service_at(found).unwrap().name, "a");
    }
    assert!(moved.table.service_at(vip(1)).is_none());
    let removed =
        moved.table.changed_by(&Delta { from: 2, to: 3, changes: vec![Change::RemoveService { service: "a".into() }] });
    let removed = removed.unwrap().table;
    assert!(removed.service_at(vip(3)).is_none() && removed.service_at(sixth).is_none());

    let with = |name: &str, vips| put(ServiceSpec { vips, ..service(name, 0, vec![]) });
    for (bad, expected) in [
        (with("c", vec![]), TransitionError::Unreachable { service: "c".into() }),
        (
            with("c", vec![vip(5), sixth]),
            TransitionError::VipTaken { service: "c".into(), other: "a".into(), vip: sixth },
        ),
        (with("c", vec![vip(5), vip(5)]), TransitionError::Twice { what: "VIP 10.0.1.5 of service `c`".into() }),
    ] {
        assert_eq!(before.changed_by(&delta(vec![bad])).unwrap_err(), expected);
    }
}

#[test]
fn two_services_can_swap_their_vips_in_one_snapshot() {
    let before = table(vec![service("a", 1, vec![]), service("b", 2, vec![])]);
    let services = vec![Arc::new(service("a", 2, vec![])), Arc::new(service("b", 1, vec![]))];
    let after = before.replaced_by(&Snapshot { generation: 2, services }).unwrap().table;
    assert_eq!(&*after.service_at(vip(1)).unwrap().name, "b");
    assert_eq!(&*after.service_at(vip(2)).unwrap().name, "a");
}

#[test]
fn two_services_can_swap_their_vips_in_one_delta() {
    let before = table(vec![service("a", 1, vec![backend(1, false)]), service("b", 2, vec![])]);
    let changes = vec![put(service("a", 2, vec![backend(1, false)])), put(service("b", 1, vec![]))];
    let step = before.changed_by(&delta(changes)).unwrap();
    assert_eq!(&*step.table.service_at(vip(1)).unwrap().name, "b");
    assert_eq!(&*step.table.service_at(vip(2)).unwrap().name, "a");
    assert!(step.consequences.is_empty());
    // Only one of the two: the other still has its VIP.
    let half = vec![put(service("a", 2, vec![]))];
    assert!(matches!(before.changed_by(&delta(half)), Err(TransitionError::VipTaken { .. })));
}

fn port(protocol: Protocol, number: u16) -> Port {
    Port { protocol, number }
}

fn published(protocol: Protocol, number: u16, target: u16) -> PublishedPort {
    PublishedPort { published: port(protocol, number), target }
}

/// A service without a VIP.
fn publishing(name: &str, published: Vec<PublishedPort>) -> ServiceSpec {
    ServiceSpec { vips: vec![], published, ..service(name, 0, vec![backend(1, false)]) }
}

fn found(table: &Table, protocol: Protocol, number: u16) -> Option<(String, u16)> {
    table.published(port(protocol, number)).map(|(service, target)| (service.name.to_string(), target))
}

#[test]
fn a_service_is_found_by_each_of_its_published_ports() {
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let before = table(vec![
        publishing("a", vec![published(tcp, 8080, 80), published(tcp, 8081, 80)]),
        publishing("b", vec![published(udp, 8080, 53)]),
    ]);
    assert_eq!(found(&before, tcp, 8080), Some(("a".into(), 80)));
    assert_eq!(found(&before, udp, 8080), Some(("b".into(), 53)), "each protocol has ports of its own");
    // The two swap a port, one target changes, one port goes.
    let changes = vec![
        put(publishing("a", vec![published(udp, 8080, 54), published(tcp, 8081, 81)])),
        put(publishing("b", vec![published(tcp, 9090, 90)])),
    ];
    let step = before.changed_by(&delta(changes)).unwrap();
    assert!(step.consequences.is_empty(), "backends stay");
    let after = step.table;
    assert_eq!(found(&after, udp, 8080), Some(("a".into(), 54)));
    assert_eq!(found(&after, tcp, 8081), Some(("a".into(), 81)));
    assert_eq!(found(&after, tcp, 9090), Some(("b".into(), 90)));
    assert_eq!(found(&after, tcp, 8080), None);
    let gone = Delta { from: 2, to: 3, changes: vec![Change::RemoveService { service: "a".into() }] };
    let after = after.changed_by(&gone).unwrap().table;
    assert_eq!((found(&after, udp, 8080), found(&after, tcp, 8081)), (None, None));
    let snapshot = Snapshot { generation: 4, services: vec![Arc::new(publishing("c", vec![published(tcp, 1, 2)]))] };
    let after = after.replaced_by(&snapshot).unwrap().table;
    assert_eq!((found(&after, tcp, 9090), found(&after, tcp, 1)), (None, Some(("c".into(), 2))));
}

#[test]
fn published_ports_that_cannot_be_are_refused_whole() {
    let tcp = Protocol::Tcp;
    let before = table(vec![publishing("a", vec![published(tcp, 8080, 80)])]);
    for (bad, expected) in [
        (
            publishing("b", vec![published(tcp, 8081, 1), published(tcp, 8080, 80)]),
            TransitionError::PortTaken { service: "b".into(), other: "a".into(), port: port(tcp, 8080) },
        ),
        (publishing("b", vec![published(tcp, 0, 80)]), TransitionError::PortZero { service: "b".into() }),
        (publishing("b", vec![published(tcp, 80, 0)]), TransitionError::PortZero { service: "b".into() }),
        (
            publishing("b", vec![published(tcp, 80, 80), published(tcp, 80, 81)]),
            TransitionError::Twice { what: "port 80/tcp of service `b`".into() },
        ),
        (publishing("b", vec![]), TransitionError::Unreachable { service: "b".into() }),
    ] {
        assert_eq!(before.changed_by(&delta(vec![put(bad.clone())])).unwrap_err(), expected);
        let services = vec![Arc::new(publishing("a", vec![published(tcp, 8080, 80)])), Arc::new(bad)];
        assert_eq!(before.replaced_by(&Snapshot { generation: 2, services }).unwrap_err(), expected);
    }
    assert_eq!(found(&before, tcp, 8081), None);
}

#[test]
fn what_is_known_of_backends_is_seen_through_published_ports_too() {
    let before = table(vec![publishing("a", vec![published(Protocol::Tcp, 8080, 80)])]);
    let identity = before.service("a").unwrap().backends()[0].identity.clone();
    let ejected = crate::table::Condition { identity, health: crate::table::Health::Ejected, warmth: 100 };
    let after = before.with_conditions("a", &[ejected]).unwrap();
    let (service, _) = after.published(port(Protocol::Tcp, 8080)).unwrap();
    assert_eq!(service.backends()[0].health, crate::table::Health::Ejected);
    assert!(service == after.service("a").unwrap());
}

#[test]
fn a_vip_comes_before_a_published_port_where_connections_are_steered() {
    let tcp = Protocol::Tcp;
    let before = table(vec![service("a", 1, vec![]), publishing("b", vec![published(tcp, 8080, 80)])]);
    let find = |address: &str, published| {
        let address = address.parse().unwrap();
        let destination = crate::table::Destination { address, protocol: tcp, published };
        before.find(&destination).map(|(service, port)| (service.name.to_string(), port))
    };
    assert_eq!(find("10.0.1.1:8080", false), Some(("a".into(), 8080)));
    assert_eq!(find("10.0.1.1:8080", true), Some(("b".into(), 80)));
    assert_eq!(find("10.0.0.2:8080", false), Some(("b".into(), 80)));
    assert_eq!(find("10.0.0.2:8081", false), None);
    assert_eq!(find("10.0.1.1:8081", true), None);
}

/// What a table says of a service: VIPs, published ports and backends.
type Described = (Vec<IpAddr>, Vec<PublishedPort>, BTreeMap<IpAddr, (u16, bool)>);
/// A plain picture of a table, to compare with.
type Model = BTreeMap<String, Described>;

fn picture(table: &Table) -> Model {
    table
        .services()
        .map(|service| {
            let backends = service.backends().iter().map(|b| (b.address, (b.weight, b.draining))).collect();
            (service.name.to_string(), (service.vips.to_vec(), service.published.to_vec(), backends))
        })
        .collect()
}

fn any_change() -> impl Strategy<Value = Change> {
    let name = (0..5u8).prop_map(|index| format!("s{index}"));
    let a_backend = (0..6u8, 0..3u16, any::<bool>()).prop_map(|(last, weight, draining)| BackendSpec {
        address: address(last),
        weight,
        draining,
        backup: false,
        local: false,
    });
    prop_oneof![
        (
            name.clone(),
            prop::collection::vec(0..8u8, 0..3),
            prop::collection::vec((any::<bool>(), 0..5u16, 0..9u16), 0..3),
            prop::collection::btree_map(0..6u8, any::<bool>(), 0..4)
        )
            .prop_map(|(name, vips, ports, list)| {
                let backends = list.into_iter().map(|(last, draining)| backend(last, draining)).collect();
                let protocol = |is_udp| if is_udp { Protocol::Udp } else { Protocol::Tcp };
                let ports =
                    ports.into_iter().map(|(is_udp, number, target)| published(protocol(is_udp), number, target));
                let vips = vips.into_iter().map(vip).collect();
                put(ServiceSpec { vips, published: ports.collect(), ..service(&name, 0, backends) })
            }),
        name.clone().prop_map(|service| Change::RemoveService { service }),
        (name.clone(), a_backend).prop_map(|(service, backend)| Change::PutBackend { service, backend }),
        (name, 0..6u8).prop_map(|(service, last)| Change::RemoveBackend { service, address: address(last) }),
    ]
}

/// The same changes, applied to the picture.
fn change_model(model: &mut Model, change: &Change) {
    match change {
        Change::PutService(spec) => {
            let backends = spec.backends.iter().map(|b| (b.address, (b.weight, b.draining))).collect();
            model.insert(spec.name.clone(), (spec.vips.clone(), spec.published.clone(), backends));
        }
        Change::RemoveService { service } => drop(model.remove(service)),
        Change::PutBackend { service, backend } => {
            let (_, _, backends) = model.get_mut(service).unwrap();
            backends.insert(backend.address, (backend.weight, backend.draining));
        }
        Change::RemoveBackend { service, address } => drop(model.get_mut(service).unwrap().2.remove(address)),
    }
}

proptest! {
    /// Whatever changes come: a delta gives what the model says or leaves all as it was, both maps agree, the eligible
    /// are those that should be, and every backend that went is named once.
    #[test]
    fn deltas_do_what_they_say(changes in prop::collection::vec(any_change(), 0..80)) {
        let mut table = Table::default();
        let mut model = Model::new();
        for change in changes {
            let before = picture(&table);
            let identities: Vec<_> = table
                .services()
                .flat_map(|service| service.backends().iter().map(|b| b.identity.clone()).collect::<Vec<_>>())
                .collect();
            let step = Delta { from: table.generation(), to: table.generation() + 1, changes: vec![change.clone()] };
            match table.changed_by(&step) {
                Ok(transition) => {
                    change_model(&mut model, &change);
                    table = transition.table;
                    let gone: Vec<_> = transition
                        .consequences
                        .iter()
                        .filter(|(_, consequence)| *consequence == Consequence::Removed)
                        .map(|(identity, _)| identity)
                        .collect();
                    for identity in identities {
                        let stays = table
                            .services()
                            .any(|service| service.backends().iter().any(|b| b.identity == identity));
                        let named = gone.iter().filter(|&&other| *other == identity).count();
                        prop_assert_eq!(named, usize::from(!stays));
                    }
                }
                Err(_) => prop_assert_eq!(picture(&table), before),
            }
            prop_assert_eq!(&picture(&table), &model);
            let vips: usize = table.services().map(|service| service.vips.len()).sum();
            prop_assert_eq!((0..8).filter(|last| table.service_at(vip(*last)).is_some()).count(), vips);
            let ports: usize = table.services().map(|service| service.published.len()).sum();
            let all = [Protocol::Tcp, Protocol::Udp].map(|protocol| (0..5).map(move |number| port(protocol, number)));
            prop_assert_eq!(all.into_iter().flatten().filter(|port| table.published(*port).is_some()).count(), ports);
            for service in table.services() {
                for port in &service.published {
                    let (found, target) = table.published(port.published).unwrap();
                    prop_assert!(found == service && target == port.target && target > 0);
                }
                for vip in &service.vips {
                    prop_assert!(table.service_at(*vip).unwrap() == service);
                }
                for (index, backend) in (0u32..).zip(service.backends()) {
                    prop_assert_eq!(service.eligible().contains(&index), backend.weight > 0 && !backend.draining);
                }
            }
        }
    }
}
