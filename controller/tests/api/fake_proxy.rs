//! A proxy that only speaks: it does what a test says and writes down what it hears.
//!
//! The daemon starts a script, and the script starts this test binary again with [`play`] as its only test.

use ringlb_proxy::control::frame::{MAX_PACKET, Reassembler, encode};
use ringlb_proxy::control::histogram::{self, Scale};
use ringlb_proxy::control::message::{
    BackendStatistics, DatagramStatistics, Duty, Features, Health, Hello, Introduction, PROTOCOL_VERSION,
    ProxyStatistics, Reply, Request, RingStatistics, ServiceStatistics, Statistics, Times,
};
use ringlb_proxy::inherited;
use ringlb_proxy::table::Table;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use tempfile::TempDir;

const BEHAVIOUR: &str = "RINGLB_FAKE_PROXY";
const NETWORK: &str = "RINGLB_FAKE_PROXY_NETWORK";
const LOG: &str = "RINGLB_FAKE_PROXY_LOG";

/// A program for `--proxy-program` and the log of what its processes hear.
pub(crate) struct FakeProxy {
    directory: TempDir,
}

impl FakeProxy {
    /// One that behaves so; see [`play`].
    pub(crate) fn new(behaviour: &str) -> Self {
        let fake = Self { directory: tempfile::tempdir().unwrap() };
        let this = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\nexport {BEHAVIOUR}={behaviour} {NETWORK}=\"$2\" {LOG}={} {}=1\nexec {} --exact fake_proxy::play --nocapture --ignored >/dev/null\n",
            fake.log_path().display(),
            ringlb_netns::isolate::INHERIT,
            this.display()
        );
        std::fs::write(fake.program(), script).unwrap();
        std::fs::set_permissions(fake.program(), std::fs::Permissions::from_mode(0o755)).unwrap();
        fake
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.directory.path().join("proxy")
    }

    /// What its processes have heard, in order: one object each.
    pub(crate) fn heard(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What was heard of one kind.
    pub(crate) fn heard_of(&self, kind: &str) -> Vec<Value> {
        self.heard().into_iter().filter_map(|entry| entry.get(kind).cloned()).collect()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

/// Not a test of its own: the process that a [`FakeProxy`] is.
///
/// It may `serve`, `refuse-deltas`, send `garbage` or a `truncated` packet instead of the first acknowledgement, greet
/// in the name of `another` network, or be `mute`.
#[test]
#[ignore = "is run as a proxy by other tests"]
fn play() {
    let Ok(behaviour) = std::env::var(BEHAVIOUR) else { return };
    let log = PathBuf::from(std::env::var(LOG).unwrap());
    let write = |entry: Value| {
        let mut file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        file.write_all(format!("{entry}\n").as_bytes()).unwrap();
    };
    let control: OwnedFd = inherited::take(3).unwrap();
    // It is a listening TCP socket that the daemon hands over.
    let listener = std::net::TcpListener::from(inherited::take(4).unwrap());
    write(json!({ "started": { "pid": std::process::id(), "listens": listener.local_addr().unwrap().to_string() } }));
    // Both kinds of sockets are accepted, written to and read from alike.
    let control = UnixListener::from(control);
    let network = if behaviour == "another" { behaviour.clone() } else { std::env::var(NETWORK).unwrap() };
    let mut proxy = Player { behaviour, network, generation: 0, table: Table::default(), misbehaved: false };
    loop {
        let (stream, _) = control.accept().unwrap();
        proxy.converse(stream, &write);
    }
}

struct Player {
    behaviour: String,
    network: String,
    generation: u64,
    table: Table,
    misbehaved: bool,
}

impl Player {
    fn converse(&mut self, mut stream: UnixStream, write: &dyn Fn(Value)) {
        if self.behaviour == "mute" {
            let _ = stream.read(&mut [0; 1]);
            return;
        }
        let hello = Hello {
            network: self.network.clone(),
            pid: std::process::id(),
            generation: self.generation,
            version: "fake".to_owned(),
            features: Features::default(),
        };
        send(&mut stream, &Reply::Hello(hello));
        let mut reassembler = Reassembler::default();
        let mut packet = vec![0; MAX_PACKET];
        loop {
            let length = match stream.read(&mut packet) {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            };
            let Some(request) = reassembler.push(&packet[..length]).unwrap() else { continue };
            // Belongs to the greeting.
            if request != Request::Introduce {
                write(json!(&request));
            }
            if let Some(reply) = self.answer(&request, &mut stream) {
                send(&mut stream, &reply);
            }
        }
    }

    fn answer(&mut self, request: &Request, stream: &mut UnixStream) -> Option<Reply> {
        let generation = match request {
            Request::Snapshot(snapshot) => snapshot.generation,
            Request::Delta(delta) if self.behaviour == "refuse-deltas" => {
                let reason = format!("no delta from {}", delta.from);
                return Some(Reply::Refused { generation: self.generation, reason });
            }
            Request::Delta(delta) => delta.to,
            Request::Statistics => return Some(Reply::Statistics(Box::new(statistics(&self.table)))),
            Request::Shutdown => std::process::exit(0),
            Request::Introduce => {
                let introduction =
                    Introduction { most_version: PROTOCOL_VERSION, build: String::new(), duty: Duty::Serving };
                return Some(Reply::Introduction(introduction));
            }
            _ => return None,
        };
        let first = !std::mem::replace(&mut self.misbehaved, true);
        match self.behaviour.as_str() {
            "garbage" if first => stream.write_all(b"garbage that is no packet of ours").unwrap(),
            "truncated" if first => {
                let packet = encode(&Reply::Acknowledged { generation }).unwrap().remove(0);
                stream.write_all(&packet[..packet.len() - 1]).unwrap();
            }
            _ => {
                self.generation = generation;
                self.table = match request {
                    Request::Delta(delta) => self.table.changed_by(delta).unwrap().table,
                    Request::Snapshot(snapshot) => self.table.replaced_by(snapshot).unwrap().table,
                    _ => unreachable!("answered above"),
                };
                return Some(Reply::Acknowledged { generation });
            }
        }
        None
    }
}

/// Another number for each thing that is counted: the proxy's from 1 on, the ring's from 21 on, UDP's from
/// 31 on, a service's from 100 on, and a
/// backend's from a thousand times the end of its address on.
pub(crate) fn statistics(table: &Table) -> Statistics {
    let services = table.services().map(|service| {
        let backends = service.backends().iter().map(|backend| {
            let IpAddr::V4(address) = backend.address else { panic!("{} is not IPv4", backend.address) };
            let first = 1000 * u64::from(address.octets()[3]);
            BackendStatistics {
                address: backend.address,
                connections: first + 1,
                active: first + 2,
                connect_failures: first + 3,
                bytes_to_backend: first + 4,
                bytes_to_client: first + 5,
                sessions: first + 6,
                active_sessions: first + 7,
                datagrams_to_backend: first + 8,
                datagrams_to_client: first + 9,
                health: Health::Ejected,
                ejected_for_ms: first + 10,
                warmth: 95,
                ejections: first + 11,
                check_failures: first + 12,
            }
        });
        let times = |scale: Scale| Times { buckets: vec![2; scale.buckets()], sum_us: 1_500_000 };
        ServiceStatistics {
            name: service.name.to_string(),
            connections: 100,
            sessions: 101,
            connect_times: times(histogram::CONNECT),
            session_times: times(histogram::SESSION),
            backends: backends.collect(),
        }
    });
    Statistics {
        threads: Vec::new(),
        generation: table.generation(),
        proxy: ProxyStatistics {
            accepted: 1,
            active: 2,
            refused_at_limit: 3,
            no_service: 4,
            no_backend: 5,
            connect_failures: 6,
            retries: 7,
            client_resets: 8,
            backend_resets: 9,
            removed_resets: 10,
            drain_resets: 11,
            idle_resets: 12,
            lifetime_resets: 13,
            retries_denied: 14,
            waiting: 17,
            refused_denied: 51,
            refused_client_rate: 52,
            refused_client_full: 53,
            refused_service_full: 54,
            refused_backends_full: 55,
            refused_queue_full: 56,
            refused_queue_timeout: 57,
            refused_header_invalid: 58,
            refused_header_timeout: 59,
            access_log_dropped: 15,
            ports_exhausted: 16,
        },
        datagrams: DatagramStatistics {
            sessions: 31,
            active: 32,
            moved: 33,
            evicted: 34,
            to_backends: 35,
            to_clients: 36,
            bytes_to_backends: 37,
            bytes_to_clients: 38,
            no_service: 39,
            no_backend: 40,
            buffer_full: 41,
            too_large: 42,
            at_limit: 43,
            unsendable: 44,
            unanswerable: 45,
            refused: 46,
        },
        ring: RingStatistics {
            enters: 21,
            buffers_exhausted: 22,
            completion_overflows: 23,
            spliced_directions: 24,
            spliced_bytes: 25,
        },
        services: services.collect(),
    }
}

fn send(stream: &mut UnixStream, reply: &Reply) {
    for packet in encode(reply).unwrap() {
        // The daemon may have given the connection up.
        let _ = stream.write_all(&packet);
    }
}
