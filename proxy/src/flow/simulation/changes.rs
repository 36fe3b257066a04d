//! Tables as nobody would write them, and the steps between them.

use crate::control::message::{
    Algorithm, BackendSpec, Change, Delta, Health, Port, Protocol, PublishedPort, ServiceSettings, ServiceSpec,
    Snapshot,
};
use crate::control::settings::{
    ConnectTimeout, DrainPolicy, DrainTimeout, MaxConnections, MaxConnectionsPerBackend, PanicThreshold, Queue,
    QueueLength, QueueTimeout, Retries, RetryBudget, RetryMinimum, RetryPercent, SlowStart,
};
use crate::table::{Condition, Destination, Table, WARM};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const BACKENDS: u8 = 6;
const SERVICES: u8 = 3;
const VIPS: u8 = 4;

fn vip(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 1, number])
}

/// What a client asks for: a port of a VIP, or a published one, which goes with the VIP of that number.
pub(super) fn target(random: &mut fastrand::Rng) -> Destination {
    let number = random.u8(..VIPS);
    let published = random.u8(..3) == 0;
    let address = if published {
        SocketAddr::new([192, 0, 2, 1].into(), published_port(number).published.number)
    } else {
        SocketAddr::new(vip(number), 80)
    };
    Destination { address, protocol: Protocol::Tcp, published }
}

fn published_port(number: u8) -> PublishedPort {
    let published = Port { protocol: Protocol::Tcp, number: 8000 + u16::from(number) };
    PublishedPort { published, target: 80 + u16::from(number) }
}

/// The ports that go with these VIPs.
fn published_ports(vips: &[IpAddr]) -> Vec<PublishedPort> {
    (0..VIPS).filter(|&number| vips.contains(&vip(number))).map(published_port).collect()
}

/// The table that a world begins with. In a calm one every connection finds a backend.
pub(super) fn first(calm: bool, random: &mut fastrand::Rng) -> Snapshot {
    Snapshot { generation: 1, services: services(calm, random) }
}

/// Another whole table.
pub(super) fn snapshot(table: &Table, random: &mut fastrand::Rng) -> Snapshot {
    let mut services = services(false, random);
    if random.bool() {
        services.swap_remove(random.usize(..services.len()));
    }
    Snapshot { generation: table.generation() + 1, services }
}

/// A change of something, perhaps one that does not apply.
pub(super) fn delta(table: &Table, random: &mut fastrand::Rng) -> Delta {
    let number = random.u8(..SERVICES);
    let name = format!("s{number}");
    let change = match random.u8(..16) {
        0..7 => Change::PutBackend { service: name, backend: backend(random.u8(..BACKENDS), random) },
        7..12 => Change::RemoveBackend { service: name, address: address(random.u8(..BACKENDS)) },
        12 => Change::RemoveService { service: name },
        // Only its settings: what a user changes live.
        13 if let Some(mut spec) = described(table, &name) => {
            spec.settings = settings(random);
            Change::PutService(Arc::new(spec))
        }
        _ => {
            let vips = vec![vip(if random.bool() { number } else { random.u8(..VIPS) })];
            Change::PutService(Arc::new(service(number, vips, random)))
        }
    };
    let from = table.generation();
    Delta { from, to: from + 1, changes: vec![change] }
}

/// Two services get each other's VIPs; nothing if there are no two.
pub(super) fn swap(table: &Table, random: &mut fastrand::Rng) -> Option<Delta> {
    let first = random.u8(..SERVICES);
    let second = (first + random.u8(1..SERVICES)) % SERVICES;
    let [mut first, mut second] = [described(table, &format!("s{first}"))?, described(table, &format!("s{second}"))?];
    std::mem::swap(&mut first.vips, &mut second.vips);
    std::mem::swap(&mut first.published, &mut second.published);
    let from = table.generation();
    let changes = [first, second].map(|spec| Change::PutService(Arc::new(spec))).to_vec();
    Some(Delta { from, to: from + 1, changes })
}

/// A service's name and how its backends are now.
pub(super) fn conditions(table: &Table, random: &mut fastrand::Rng) -> Option<(String, Vec<Condition>)> {
    let service = table.service(&format!("s{}", random.u8(..SERVICES)))?;
    let mostly_well = random.bool();
    let mut conditions = Vec::new();
    for backend in service.backends() {
        let health = match random.u8(..8) {
            0 => Health::Ejected,
            1..4 if !mostly_well => Health::Unhealthy,
            _ => Health::Healthy,
        };
        let warmth = if random.bool() { WARM } else { random.u8(1..=WARM) };
        conditions.push(Condition { identity: backend.identity.clone(), health, warmth });
    }
    // Nothing new is said of some.
    conditions.retain(|_| random.u8(..3) > 0);
    Some((service.name.to_string(), conditions))
}

fn services(calm: bool, random: &mut fastrand::Rng) -> Vec<Arc<ServiceSpec>> {
    let services = (0..SERVICES).map(|number| {
        let mut vips = vec![vip(number)];
        // One VIP is not always there, and then its service has two.
        if number == 0 && (calm || random.bool()) {
            vips.push(vip(VIPS - 1));
        }
        let mut spec = service(number, vips, random);
        if calm {
            let (algorithm, connect_timeout) = (spec.settings.algorithm, ConnectTimeout(Duration::from_secs(86_400)));
            spec.settings = ServiceSettings { algorithm, connect_timeout, ..ServiceSettings::default() };
            spec.backends.push(BackendSpec {
                address: address(BACKENDS),
                weight: 1,
                draining: false,
                backup: false,
                local: false,
            });
        }
        Arc::new(spec)
    });
    services.collect()
}

fn service(number: u8, vips: Vec<IpAddr>, random: &mut fastrand::Rng) -> ServiceSpec {
    let backends = (0..BACKENDS).filter(|_| random.bool()).collect::<Vec<_>>();
    let backends = backends.into_iter().map(|last| backend(last, random)).collect();
    let published = published_ports(&vips);
    ServiceSpec { name: format!("s{number}"), vips, settings: settings(random), published, backends }
}

/// The service as it is in the table.
fn described(table: &Table, name: &str) -> Option<ServiceSpec> {
    let service = table.service(name)?;
    let backends = service.backends().iter().map(|backend| BackendSpec {
        address: backend.address,
        weight: backend.weight,
        draining: backend.draining,
        backup: backend.backup,
        local: backend.local,
    });
    let settings = ServiceSettings::clone(&service.settings);
    Some(ServiceSpec {
        name: name.to_owned(),
        vips: service.vips.to_vec(),
        settings,
        published: service.published.to_vec(),
        backends: backends.collect(),
    })
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn backend(last: u8, random: &mut fastrand::Rng) -> BackendSpec {
    BackendSpec {
        address: address(last),
        weight: random.u16(..4),
        draining: random.u8(..4) == 0,
        backup: random.u8(..4) == 0,
        local: random.bool(),
    }
}

fn settings(random: &mut fastrand::Rng) -> ServiceSettings {
    let algorithms = [Algorithm::Rr, Algorithm::P2c, Algorithm::Wrr, Algorithm::Maglev, Algorithm::SourceHash];
    let mut up_to = |most: u64| Duration::from_millis(random.u64(1..=most));
    let [connect, short_drain, drain, queue] = [up_to(3_000), up_to(200), up_to(5_000), up_to(3_000)];
    let drain = if random.bool() { short_drain } else { drain };
    let no_budget = RetryBudget { percent: RetryPercent(0), minimum: RetryMinimum(0) };
    let seldom = |random: &mut fastrand::Rng| random.u8(..6) == 0;
    ServiceSettings {
        algorithm: algorithms[random.usize(..algorithms.len())],
        connect_timeout: ConnectTimeout(connect),
        retries: Retries(random.u8(..5)),
        retry_budget: if seldom(random) { no_budget } else { RetryBudget::default() },
        drain_timeout: DrainTimeout((!seldom(random)).then_some(drain)),
        drain_policy: if seldom(random) { DrainPolicy::Keep } else { DrainPolicy::Reset },
        slow_start: SlowStart(if seldom(random) { Duration::from_secs(10) } else { Duration::ZERO }),
        prefer_local: random.bool(),
        panic_threshold: PanicThreshold([0, 50, 100][random.usize(..3)]),
        max_connections: MaxConnections(if seldom(random) { 2 } else { 0 }),
        max_connections_per_backend: MaxConnectionsPerBackend([0, 1, 2][random.usize(..3)]),
        queue: Queue { length: QueueLength(random.u16(..4)), timeout: QueueTimeout(queue) },
        ..ServiceSettings::default()
    }
}
