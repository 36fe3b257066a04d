//! The corpus of control messages, made anew: to be written whenever what they look like changes.

use ringlb_proxy::control::frame::encode;
use ringlb_proxy::control::histogram::{self, Scale};
use ringlb_proxy::control::message::{
    Algorithm, BackendSpec, Change, Delta, DescriptorRole, Duty, Features, Generation, Hello, Introduction,
    PROTOCOL_VERSION, Port, Protocol, PublishedPort, Reply, Request, Retired, ServiceSettings, ServiceSpec,
    ServiceStatistics, Snapshot, Statistics, Times,
};
use ringlb_proxy::control::replacement::{SessionBatch, SessionSpec};
use ringlb_proxy::control::settings::{
    ClientRate, ConnectTimeout, DrainTimeout, MaxConnections, MaxConnectionsPerBackend, MaxConnectionsPerClient,
    Prefixes, ProxyProtocol, Queue, QueueLength, QueueTimeout, RateBurst, RatePerSecond,
};
use ringlb_proxy::control::version::Message;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

type Packets = Vec<Vec<u8>>;

const HEADER: usize = 8;

/// Writes all files, under the names of those that are there.
pub(crate) fn write(directory: &Path) {
    let files = [snapshots(), deltas(), ports(), replies(), replacements(), packets(), malformed()].concat();
    for (name, bytes) in files {
        std::fs::write(directory.join(name), bytes).unwrap();
    }
}

fn snapshots() -> Vec<(String, Vec<u8>)> {
    let backends =
        || vec![backend(1, 1, false), backend(2, 0, false), backend(3, 65_535, true), backend(4, 65_535, false)];
    let algorithms = [
        ("rr", Algorithm::Rr),
        ("p2c", Algorithm::P2c),
        ("wrr", Algorithm::Wrr),
        ("maglev", Algorithm::Maglev),
        ("source-hash", Algorithm::SourceHash),
    ];
    let by_algorithm =
        algorithms.map(|(name, algorithm)| (name, snapshot(1, vec![service("web0", 1, algorithm, backends())])));
    let plain = |name, vip| service(name, vip, Algorithm::Rr, Vec::new());
    let more = [
        ("empty", snapshot(1, Vec::new())),
        ("generation-0", snapshot(0, Vec::new())),
        ("generation-largest", snapshot(Generation::MAX, vec![plain("web0", 1)])),
        ("service-twice", snapshot(1, vec![plain("web0", 1), plain("web0", 2)])),
        ("vip-twice", snapshot(1, vec![plain("web0", 1), plain("web1", 1)])),
        (
            "backend-twice",
            snapshot(1, vec![service("web0", 1, Algorithm::Rr, vec![backend(1, 1, false), backend(1, 2, true)])]),
        ),
        ("one-backend-maglev", snapshot(1, vec![service("web0", 1, Algorithm::Maglev, vec![backend(1, 1, false)])])),
        ("v6-no-name", snapshot(1, vec![v6_without_a_name()])),
        ("timeouts-at-edges", snapshot(1, vec![with(timeouts_at_edges())])),
        ("limits", snapshot(1, vec![with(every_limit())])),
    ];
    by_algorithm.into_iter().chain(more).map(|(name, request)| taken("snapshot", name, messages(&[request]))).collect()
}

/// One table, and what can be asked for then.
fn deltas() -> Vec<(String, Vec<u8>)> {
    let remove_backend = |name: &str, n| Change::RemoveBackend { service: name.into(), address: address(n) };
    let put_backend = |name: &str, backend| Change::PutBackend { service: name.into(), backend };
    let remove = |name: &str| Change::RemoveService { service: name.into() };
    let put = |name, vip, algorithm, backends| Change::PutService(Arc::new(service(name, vip, algorithm, backends)));
    let one = || vec![backend(1, 1, false)];
    let cases = [
        (
            "every-change",
            vec![delta(
                1,
                2,
                vec![
                    put_backend("web0", backend(3, 7, false)),
                    remove_backend("web1", 1),
                    put("web2", 3, Algorithm::SourceHash, vec![backend(9, 1, false)]),
                    remove("web1"),
                ],
            )],
        ),
        (
            "vips-swapped",
            vec![delta(
                1,
                2,
                vec![
                    put("web0", 2, Algorithm::Rr, vec![backend(1, 1, true)]),
                    put("web1", 1, Algorithm::P2c, Vec::new()),
                ],
            )],
        ),
        (
            "vip-taken-then-service-removed",
            vec![delta(1, 2, vec![put("web0", 2, Algorithm::Rr, Vec::new()), remove("web1")])],
        ),
        (
            "removed-and-put-back",
            vec![delta(1, 2, vec![remove_backend("web0", 1), put_backend("web0", backend(1, 1, false))])],
        ),
        (
            "service-removed-and-put-back",
            vec![delta(1, 2, vec![remove("web0"), put("web0", 1, Algorithm::Maglev, one())])],
        ),
        ("other-generation", vec![delta(7, 8, Vec::new())]),
        ("not-newer", vec![delta(1, 1, Vec::new())]),
        (
            "unknown-names",
            vec![
                delta(1, 2, vec![remove("nobody")]),
                delta(1, 2, vec![remove_backend("web0", 99)]),
                delta(1, 2, vec![put_backend("nobody", backend(1, 1, false))]),
            ],
        ),
        (
            "all-backends-drained-and-back",
            vec![
                delta(1, 2, vec![put_backend("web1", backend(1, 1, true)), put_backend("web1", backend(2, 2, true))]),
                delta(2, 3, vec![put_backend("web1", backend(2, 2, false))]),
            ],
        ),
        (
            "weight-0",
            vec![delta(
                1,
                2,
                vec![put_backend("web0", backend(1, 0, false)), put_backend("web0", backend(2, 0, false))],
            )],
        ),
    ];
    let after = |requests: Vec<Request>| messages(&[vec![two_services()], requests].concat());
    let mut files: Vec<_> = cases.into_iter().map(|(name, requests)| taken("delta", name, after(requests))).collect();
    let older = [snapshot(1, Vec::new()), snapshot(3, Vec::new()), snapshot(2, Vec::new())];
    files.push(taken("older", "snapshot", after(older.into())));
    files
}

fn replies() -> Vec<(String, Vec<u8>)> {
    let features = Features {
        kernel: "6.18.0".into(),
        multishot_accept: true,
        multishot_receive: true,
        buffer_ring: true,
        deferred_taskrun: false,
        no_iowait: true,
        splice: true,
        max_connections: 9712,
        threads: 2,
    };
    let hello = Hello { network: "web".into(), pid: 4711, generation: 0, version: "0.1.0".into(), features };
    let refused = Reply::Refused { generation: 1, reason: "generation 1 is not newer than 1".into() };
    let times = |scale: Scale| Times { buckets: vec![1; scale.buckets()], sum_us: 5 };
    let services = vec![ServiceStatistics {
        name: "web0".into(),
        connections: 7,
        sessions: 2,
        connect_times: times(histogram::CONNECT),
        session_times: times(histogram::SESSION),
        backends: Vec::new(),
    }];
    let statistics = Statistics { generation: 3, services, ..Statistics::default() };
    vec![
        taken("reply", "hello", messages(&[Reply::Hello(hello)])),
        taken("reply", "refused", messages(&[Reply::Acknowledged { generation: u64::MAX }, refused])),
        taken("reply", "ports", messages(&ports_replies())),
        taken("reply", "statistics", messages(&[Reply::Statistics(Box::new(statistics))])),
    ]
}

/// Published ports: in tables, and what is asked of their sockets.
fn ports() -> Vec<(String, Vec<u8>)> {
    let (tcp, udp) = (port(Protocol::Tcp, 8080), port(Protocol::Udp, 53));
    let publishing = |name: &str, vips: &[u8], ports: &[(Port, u16)]| ServiceSpec {
        vips: vips.iter().map(|&n| address(n)).collect(),
        published: ports.iter().map(|&(published, target)| PublishedPort { published, target }).collect(),
        ..service(name, 1, Algorithm::Rr, vec![backend(1, 1, false)])
    };
    let before = || snapshot(1, vec![publishing("web0", &[], &[(tcp, 80)]), publishing("web1", &[9], &[(udp, 53)])]);
    let put = |spec| Change::PutService(Arc::new(spec));
    let swap = vec![
        put(publishing("web0", &[], &[(udp, 54)])),
        put(publishing("web1", &[9], &[(tcp, 80), (port(Protocol::Udp, 54), 1)])),
    ];
    let deltas = [
        ("swapped", swap),
        ("port-taken-twice", vec![put(publishing("web1", &[9], &[(tcp, 80)]))]),
        ("port-0", vec![put(publishing("web0", &[], &[(port(Protocol::Tcp, 0), 80), (tcp, 0)]))]),
        ("nothing-to-reach-it-by", vec![put(publishing("web0", &[], &[]))]),
    ];
    let mut files: Vec<_> = deltas
        .into_iter()
        .map(|(name, changes)| taken("published", name, messages(&[before(), delta(1, 2, changes)])))
        .collect();
    let requests = [Request::AddPort { port: tcp, sockets: 2 }, Request::RemovePort(udp), Request::Descriptors];
    files.push(taken("published", "requests", messages(&requests)));
    files
}

fn ports_replies() -> [Reply; 3] {
    let port = port(Protocol::Udp, u16::MAX);
    let roles = vec![
        DescriptorRole::Process,
        DescriptorRole::Control,
        DescriptorRole::Listener { thread: 0 },
        DescriptorRole::Datagram { thread: 0 },
        DescriptorRole::Kept,
        DescriptorRole::Port { port, thread: 1 },
    ];
    let refused = Reply::PortRefused { port, reason: "one of its sockets does not listen".into() };
    [Reply::Ports(vec![port]), refused, Reply::Descriptors { roles, more: true }]
}

/// What is said when a proxy takes another one's place.
fn replacements() -> Vec<(String, Vec<u8>)> {
    let requests = [
        Request::Introduce,
        Request::AwaitSessions,
        Request::AwaitBusySessions,
        Request::PassSessions(Protocol::Udp),
        Request::PassSessions(Protocol::Tcp),
        Request::ReceiveDatagrams,
        Request::Retire { drain_ms: None, hands_over: true },
        Request::Retire { drain_ms: Some(u64::MAX), hands_over: false },
    ];
    let introduction = |duty| Reply::Introduction(Introduction { most_version: 5, build: "1-2".into(), duty });
    let replies = [
        introduction(Duty::Serving),
        introduction(Duty::AwaitingSessions),
        Reply::SessionsAreBusy(Protocol::Udp),
        Reply::SessionsAreBusy(Protocol::Tcp),
        introduction(Duty::Retiring { left_ms: Some(1) }),
        Reply::Retired(Retired { connections: 500, sessions: 0, handed_over: 7 }),
    ];
    let session = SessionSpec {
        thread: 1,
        client: "[::ffff:10.0.0.9]:4711".parse().unwrap(),
        target: "10.0.1.1:53".parse().unwrap(),
        published: false,
        backend: address(1),
        port: 53,
        expected: Some(1),
        steered: None,
    };
    let batches = [
        SessionBatch { sessions: vec![session.clone(), SessionSpec { steered: Some(1), ..session }], last: false },
        SessionBatch { sessions: Vec::new(), last: true },
    ];
    vec![
        taken("replacement", "requests", messages(&requests)),
        taken("replacement", "replies", messages(&replies)),
        taken("replacement", "sessions", messages(&batches)),
    ]
}

fn port(protocol: Protocol, number: u16) -> Port {
    Port { protocol, number }
}

/// Messages in packets of every size.
fn packets() -> Vec<(String, Vec<u8>)> {
    let one = messages(&[two_services()]).remove(0);
    let small = messages(&[snapshot(1, vec![service("web0", 1, Algorithm::Rr, vec![backend(1, 1, false)])])]).remove(0);
    let garbage = vec![1, 2, 3];
    vec![
        taken("statistics", "and-shutdown", messages(&[Request::Statistics, Request::Shutdown])),
        taken("in", "small-packets", split(&one, 7)),
        taken("in", "packets-of-1-byte", split(&small, 1)),
        taken("then", "garbage", vec![one, garbage]),
    ]
}

fn malformed() -> Vec<(String, Vec<u8>)> {
    let one = messages(&[two_services()]).remove(0);
    let changed = |at: usize, byte: u8| {
        let mut packet = one.clone();
        packet[at] = byte;
        packet
    };
    let raw = |body: &[u8]| vec![[&one[..HEADER], body].concat()];
    let mut name = one.clone();
    let at = name.windows(4).position(|bytes| bytes == b"web0").unwrap();
    name[at] = 0xff;
    // The last byte says whether the last backend drains.
    let no_boolean = changed(one.len() - 1, 7);
    vec![
        refused("truncated-body", vec![one[..one.len() - 3].to_vec()]),
        refused("body-and-more", vec![[&one[..], &[0]].concat()]),
        refused("header-only", vec![one[..HEADER].to_vec()]),
        refused("short-header", vec![one[..HEADER - 1].to_vec()]),
        refused("magic", vec![changed(0, b'r')]),
        refused("version", vec![changed(4, 0xff)]),
        refused("flags", vec![changed(6, 2)]),
        refused("last-packet-missing", vec![changed(6, 1), changed(6, 1)]),
        refused("nothing", Vec::new()),
        refused("empty-packets", vec![Vec::new(); 4]),
        // A snapshot (0) of generation 1 with 2^32 or 2^63 services, or a service with such a name; a delta (1) from 1 to 2.
        refused("list-of-4-billion", raw(b"\x00\x01\xff\xff\xff\xff\x0f")),
        refused("list-of-2-to-the-63", raw(b"\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f")),
        refused("name-of-4-billion-bytes", raw(b"\x00\x01\x01\xff\xff\xff\xff\x0fweb")),
        refused("delta-of-4-billion-changes", raw(b"\x01\x01\x02\xff\xff\xff\xff\x0f")),
        refused("integer-too-long", raw(b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00")),
        refused("unknown-request", raw(b"\x20")),
        refused("name-not-utf8", vec![name]),
        refused("no-boolean", vec![no_boolean]),
    ]
}

fn taken(kind: &str, name: &str, packets: Packets) -> (String, Vec<u8>) {
    (format!("taken-{kind}-{name}"), with_lengths(packets))
}

fn refused(name: &str, packets: Packets) -> (String, Vec<u8>) {
    (format!("refused-{name}"), with_lengths(packets))
}

/// What the fuzz target reads: packets, each with its length before it.
fn with_lengths(packets: Packets) -> Vec<u8> {
    let with_length = |packet: Vec<u8>| [&u16::try_from(packet.len()).unwrap().to_le_bytes()[..], &packet].concat();
    packets.into_iter().flat_map(with_length).collect()
}

fn messages<T: Message>(messages: &[T]) -> Packets {
    messages.iter().flat_map(|message| encode(message).unwrap()).collect()
}

/// The message of one packet in packets of at most `size` bytes.
fn split(packet: &[u8], size: usize) -> Packets {
    let parts: Vec<_> = packet[HEADER..].chunks(size).collect();
    let header = |more: bool| [&b"RLB1"[..], &PROTOCOL_VERSION.to_le_bytes(), &[more.into(), 0]].concat();
    let packet = |(index, part): (usize, &&[u8])| [header(index + 1 < parts.len()), part.to_vec()].concat();
    parts.iter().enumerate().map(packet).collect()
}

fn address(n: u8) -> IpAddr {
    [10, 0, 0, n].into()
}

fn backend(n: u8, weight: u16, draining: bool) -> BackendSpec {
    BackendSpec { address: address(n), weight, draining, backup: n.is_multiple_of(2), local: n.is_multiple_of(3) }
}

fn service(name: &str, vip: u8, algorithm: Algorithm, backends: Vec<BackendSpec>) -> ServiceSpec {
    let settings = ServiceSettings { algorithm, ..ServiceSettings::default() };
    ServiceSpec { name: name.into(), vips: vec![[10, 0, 1, vip].into()], settings, published: Vec::new(), backends }
}

fn with(settings: ServiceSettings) -> ServiceSpec {
    ServiceSpec { settings, ..service("web0", 1, Algorithm::P2c, vec![backend(1, 1, false)]) }
}

fn v6_without_a_name() -> ServiceSpec {
    let addresses: [IpAddr; 3] =
        [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), Ipv4Addr::LOCALHOST.into()];
    let backends =
        addresses.map(|address| BackendSpec { address, weight: 1, draining: false, backup: false, local: false });
    ServiceSpec { vips: vec![Ipv6Addr::UNSPECIFIED.into()], ..service("", 1, Algorithm::Maglev, backends.into()) }
}

/// Beyond what a document may say: a message's numbers are not bounded.
fn timeouts_at_edges() -> ServiceSettings {
    ServiceSettings {
        drain_timeout: DrainTimeout(Some(Duration::from_millis(u64::MAX))),
        connect_timeout: ConnectTimeout(Duration::ZERO),
        ..ServiceSettings::default()
    }
}

fn every_limit() -> ServiceSettings {
    let prefixes = |all: &[&str]| Prefixes(all.iter().map(|one| one.parse().unwrap()).collect());
    ServiceSettings {
        max_connections: MaxConnections(u32::MAX),
        max_connections_per_backend: MaxConnectionsPerBackend(1),
        max_connections_per_client: MaxConnectionsPerClient(2),
        queue: Queue { length: QueueLength(u16::MAX), timeout: QueueTimeout(Duration::ZERO) },
        client_rate: ClientRate { per_second: RatePerSecond(u32::MAX), burst: RateBurst(0) },
        allow: prefixes(&["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32"]),
        deny: prefixes(&["::/0", "192.0.2.1"]),
        proxy_protocol: ProxyProtocol::V2,
        accept_proxy_protocol: prefixes(&["::ffff:10.0.0.0/104"]),
        ..ServiceSettings::default()
    }
}

fn snapshot(generation: Generation, services: Vec<ServiceSpec>) -> Request {
    Request::Snapshot(Snapshot { generation, services: services.into_iter().map(Arc::new).collect() })
}

fn delta(from: Generation, to: Generation, changes: Vec<Change>) -> Request {
    Request::Delta(Delta { from, to, changes })
}

fn two_services() -> Request {
    let backends = || vec![backend(1, 1, false), backend(2, 2, false)];
    let services = [("web0", 1, Algorithm::Wrr), ("web1", 2, Algorithm::Maglev)];
    let service = |(name, vip, algorithm)| service(name, vip, algorithm, backends());
    snapshot(1, services.map(service).into())
}
