//! What the daemon and a proxy say to each other.
//!
//! The daemon speaks first with a [`Request::Snapshot`] or asks something; the proxy greets every new connection
//! with [`Reply::Hello`]. Which version of all this they speak is said in [`version`](super::version). Each table request is answered by [`Reply::Acknowledged`] or [`Reply::Refused`], in the
//! order of the requests.

pub use super::digest::Digests;
pub use super::histogram::Times;
pub use super::replacement::{Duty, Introduction, Retired};
pub use super::settings::{Algorithm, ServiceSettings, UdpSettings};
pub use super::version::PROTOCOL_VERSION;
pub use crate::table::Health;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The number of a table. It only ever grows within one network.
pub type Generation = u64;

/// What the daemon asks of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Replace the whole table.
    Snapshot(Snapshot),
    /// Change the table from one generation to another. Refused whole if the proxy is at another generation or if
    /// any change does not apply.
    Delta(Delta),
    /// Answer with [`Reply::Statistics`].
    Statistics,
    /// Serve a published port on the sockets in the next packet, which has one byte and the sockets' descriptors
    /// (`SCM_RIGHTS`, unix(7); more than [`MOST_IN_PACKET`] come in several packets): for each data thread one of every address family, the first thread's first. They are
    /// listening TCP sockets or bound UDP ones, made in the namespace in which the port is published. Sockets of a port that
    /// is served already take the place of those before. Answered by [`Reply::Ports`] or [`Reply::PortRefused`].
    ///
    /// [`MOST_IN_PACKET`]: super::descriptors::MOST_IN_PACKET
    AddPort {
        /// The port that clients use.
        port: Port,
        /// How many sockets come.
        sockets: u32,
    },
    /// Close the sockets of a published port. Connections through it go on. Answered by [`Reply::Ports`].
    RemovePort(Port),
    /// Answer with [`Reply::Descriptors`], as often as it takes: for a daemon that takes the proxy over.
    Descriptors,
    /// Stop: end the open connections with a reset and exit with status 0.
    Shutdown,
    /// Answer with [`Reply::Introduction`].
    Introduce,
    /// Receive no datagrams from clients until the UDP sessions of the proxy that is to be replaced have come, over the
    /// `SOCK_SEQPACKET` socket whose descriptor is in the next packet; see [`replacement`]. To be sent before the first table.
    /// Answered by [`Reply::Introduction`].
    ///
    /// [`replacement`]: super::replacement
    AwaitSessions,
    /// Receive datagrams, whatever sessions have come. Answered by [`Reply::Introduction`].
    ReceiveDatagrams,
    /// Accept no more: another proxy has the same sockets. Close them, serve what is open, and exit with status 0 when nothing is.
    /// Answered by [`Reply::Retired`] when the last connection is accepted that this proxy accepts; before it exits it
    /// sends [`Reply::Statistics`] once more. What was said by an earlier such request does not hold any more.
    Retire {
        /// For how long connections may go on, in milliseconds; then they are reset. `None`: as long as they take.
        drain_ms: Option<u64>,
        /// Whether the UDP sessions go to the other proxy, by the socket whose descriptor is in the next packet. Those that stay
        /// hear what their backends say until they have been idle for their time.
        hands_over: bool,
    },
    /// Answer with [`Reply::Digests`].
    Digests,
    /// Answer with [`Reply::SessionsAreBusy`] as soon as a UDP session, or a connection, is so busy that it should go past the
    /// proxy, whatever else is answered meanwhile.
    AwaitBusySessions,
    /// Have busy UDP sessions, or busy connections, go past the proxy, by the [map](crate::session_map)
    /// ([of connections](crate::connection_map)) whose descriptor is in the next packet: programs of the network's ports send on
    /// what it says. It takes the place of the one before. Answered by [`Reply::Introduction`].
    PassSessions(Protocol),
}

/// What a proxy answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The first message on every connection.
    Hello(Hello),
    /// Every pick made from now on is made in this generation.
    Acknowledged {
        /// The generation now in use.
        generation: Generation,
    },
    /// The request changed nothing.
    Refused {
        /// The generation still in use.
        generation: Generation,
        /// Why, for a log. A daemon answers a refused delta with a snapshot.
        reason: String,
    },
    /// The answer to [`Request::Statistics`].
    Statistics(Box<Statistics>),
    /// The published ports that are served now.
    Ports(Vec<Port>),
    /// The port is not served.
    PortRefused {
        /// The port.
        port: Port,
        /// Why, for a log.
        reason: String,
    },
    /// What the next packet has, which has one byte and as many descriptors (`SCM_RIGHTS`), in this order.
    Descriptors {
        /// What each one is.
        roles: Vec<DescriptorRole>,
        /// Whether more follow in another such reply.
        more: bool,
    },
    /// The answer to [`Request::Introduce`] and to what changes a proxy's duty.
    Introduction(Introduction),
    /// The answer to [`Request::Retire`].
    Retired(Retired),
    /// What the table is, in brief: so that a daemon that takes the proxy over sends what differs alone.
    Digests(Digests),
    /// The answer to [`Request::AwaitBusySessions`].
    SessionsAreBusy(Protocol),
}

/// What a descriptor is that a proxy hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DescriptorRole {
    /// The proxy's process (pidfd_open(2)).
    Process,
    /// The listening control socket.
    Control,
    /// A steered listening socket of a data thread.
    Listener {
        /// The thread, from 0.
        thread: u32,
    },
    /// A steered UDP socket of a data thread.
    Datagram {
        /// The thread, from 0.
        thread: u32,
    },
    /// One that is only kept open, such as the steering program's link.
    Kept,
    /// A socket of a published port.
    Port {
        /// The port.
        port: Port,
        /// The thread, from 0.
        thread: u32,
    },
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

/// A port of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The port's number, 1 to 65,535.
    pub number: u16,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.number, self.protocol)
    }
}

/// A port of the node under which a service is to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The port that clients use.
    pub published: Port,
    /// The port of the backends.
    pub target: u16,
}

/// Who answers on this control channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The network that this proxy serves.
    pub network: String,
    /// The proxy's process id, as seen in its own pid namespace.
    pub pid: u32,
    /// The generation in use; 0 before the first snapshot.
    pub generation: Generation,
    /// The version of the proxy's program.
    pub version: String,
    /// What the kernel offers and the proxy uses.
    pub features: Features,
}

/// The io_uring features that a proxy uses on this kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// One accept operation delivers many connections. False where the kernel's implementation is unsound.
    pub multishot_accept: bool,
    /// One receive operation delivers many buffers.
    pub multishot_receive: bool,
    /// Received bytes go into buffers shared by all connections.
    pub buffer_ring: bool,
    /// Completion work runs only when a data thread asks for it.
    pub deferred_taskrun: bool,
    /// The ring waits without being counted as I/O wait.
    pub no_iowait: bool,
    /// Bulk directions can switch to `splice(2)`.
    pub splice: bool,
    /// The most connections and UDP sessions together that the descriptor limit allows.
    pub max_connections: u64,
    /// The number of data threads, each with its own ring and listeners.
    pub threads: u32,
}

/// A whole table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its generation.
    pub generation: Generation,
    /// All services of the network.
    pub services: Vec<Arc<ServiceSpec>>,
}

/// A step from one table to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The generation that the changes apply to.
    pub from: Generation,
    /// The generation that they lead to.
    pub to: Generation,
    /// The changes, applied in this order, seen all at once.
    pub changes: Vec<Change>,
}

/// One change of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Add the service, or replace the service of that name and its backends. A backend whose address stays keeps its
    /// connections and counters.
    PutService(Arc<ServiceSpec>),
    /// Remove the service. Its connections are reset.
    RemoveService {
        /// The service's name.
        service: String,
    },
    /// Add the backend, or replace the settings of the backend with that address.
    PutBackend {
        /// The service's name.
        service: String,
        /// The backend.
        backend: BackendSpec,
    },
    /// Remove the backend. Its connections are reset.
    RemoveBackend {
        /// The service's name.
        service: String,
        /// The backend's address.
        address: IpAddr,
    },
}

/// A service as the daemon wishes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name, unique in the network.
    pub name: String,
    /// Its virtual addresses, at least one and each unique in the network: one for each address family of the network.
    pub vips: Vec<IpAddr>,
    /// What is set for it.
    pub settings: ServiceSettings,
    /// The ports under which it is published; no two services of a network have the same.
    pub published: Vec<PublishedPort>,
    /// The backends, in the order in which they are to be listed. Addresses are unique.
    pub backends: Vec<BackendSpec>,
}

/// A backend as the daemon wishes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendSpec {
    /// Its address; the port is the one that the client asked for.
    pub address: IpAddr,
    /// Its share of new connections; 0 gets none.
    pub weight: u16,
    /// Whether it keeps the connections it has and gets no new ones.
    pub draining: bool,
    /// Whether it is used only when no other backend can be.
    pub backup: bool,
    /// Whether it is on this node.
    pub local: bool,
}

/// What a proxy has done since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// The generation in use.
    pub generation: Generation,
    /// Counters of the whole proxy.
    pub proxy: ProxyStatistics,
    /// Counters of its UDP sessions and datagrams.
    pub datagrams: DatagramStatistics,
    /// Counters of the rings of all data threads together.
    pub ring: RingStatistics,
    /// One entry for each data thread: how they share the work.
    pub threads: Vec<ThreadStatistics>,
    /// One entry for each service of the table.
    pub services: Vec<ServiceStatistics>,
}

/// Counters of a whole proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatistics {
    /// Client connections accepted.
    pub accepted: u64,
    /// Client connections open now.
    pub active: u64,
    /// Client connections that wait for a place at a backend now.
    pub waiting: u64,
    /// Refused because the proxy had its maximum of connections, or no descriptor or memory for one more.
    pub refused_at_limit: u64,
    /// Refused because the client's address is not allowed, or denied.
    pub refused_denied: u64,
    /// Refused because the client opened connections too fast.
    pub refused_client_rate: u64,
    /// Refused because the client had its maximum of connections to the service.
    pub refused_client_full: u64,
    /// Refused because the service had its maximum of connections.
    pub refused_service_full: u64,
    /// Refused because all backends had their maximum of connections, and none may wait.
    pub refused_backends_full: u64,
    /// Refused because all backends had their maximum of connections, and the queue was full.
    pub refused_queue_full: u64,
    /// Refused because no backend had a place within the queue's timeout.
    pub refused_queue_timeout: u64,
    /// Refused because a trusted peer sent no valid PROXY protocol header.
    pub refused_header_invalid: u64,
    /// Refused because a trusted peer sent no whole PROXY protocol header in time.
    pub refused_header_timeout: u64,
    /// Reset because no service has the address that the client connected to.
    pub no_service: u64,
    /// Reset because the service had no eligible backend, or all that were tried refused.
    pub no_backend: u64,
    /// Attempts to connect to a backend that failed, and UDP sessions that a backend refused.
    pub connect_failures: u64,
    /// Failed attempts that were followed by an attempt on another backend.
    pub retries: u64,
    /// Connections reset because no further attempt was allowed, by the service's limit or its budget.
    pub retries_denied: u64,
    /// Connections ended by a reset from the client.
    pub client_resets: u64,
    /// Connections ended by a reset from the backend.
    pub backend_resets: u64,
    /// Connections reset because their backend or service was removed.
    pub removed_resets: u64,
    /// Connections reset because their backend's drain deadline passed.
    pub drain_resets: u64,
    /// Connections reset because they were idle for too long.
    pub idle_resets: u64,
    /// Connections reset because they reached their maximum lifetime.
    pub lifetime_resets: u64,
    /// Lines of the access log that were dropped because they could not be written fast enough.
    pub access_log_dropped: u64,
    /// Attempts to connect that failed because all source ports towards the backend's port were in use.
    pub ports_exhausted: u64,
}

/// Counters of a proxy's UDP sessions and of their datagrams. Bytes are those of the datagrams' payload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramStatistics {
    /// Sessions begun.
    pub sessions: u64,
    /// Sessions open now.
    pub active: u64,
    /// Times that a session went on with another backend: its own was removed, had drained long enough, or refused.
    pub moved: u64,
    /// Sessions ended to make room for another session or a connection, as the descriptor limit was reached.
    pub evicted: u64,
    /// Datagrams sent to backends.
    pub to_backends: u64,
    /// Datagrams sent to clients.
    pub to_clients: u64,
    /// Bytes sent to backends.
    pub bytes_to_backends: u64,
    /// Bytes sent to clients.
    pub bytes_to_clients: u64,
    /// Datagrams dropped because no service has the address that they were sent to.
    pub no_service: u64,
    /// Datagrams dropped because the service had no eligible backend, or all that were tried refused.
    pub no_backend: u64,
    /// Datagrams dropped because the kernel's buffer for sending was full.
    pub buffer_full: u64,
    /// Datagrams dropped because they were longer than what can be sent on.
    pub too_large: u64,
    /// Datagrams dropped because the limit of descriptors, ports or memory left no room for a session.
    pub at_limit: u64,
    /// Datagrams dropped because the kernel would not send them, as there is no route or a firewall forbids it.
    pub unsendable: u64,
    /// Datagrams dropped because nobody could be answered: their source was a VIP, or their destination is not known.
    pub unanswerable: u64,
    /// Datagrams dropped because their client was not let in, or all backends are full; the reasons are counted with those
    /// of connections.
    pub refused: u64,
}

/// Counters of a proxy's rings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingStatistics {
    /// Calls of `io_uring_enter(2)`.
    pub enters: u64,
    /// Receives that found no free buffer.
    pub buffers_exhausted: u64,
    /// Times that completions did not fit into the completion queue.
    pub completion_overflows: u64,
    /// Directions that were switched to splice.
    pub spliced_directions: u64,
    /// Bytes moved by splice.
    pub spliced_bytes: u64,
}

/// Counters of a data thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadStatistics {
    /// Client connections accepted by it.
    pub accepted: u64,
    /// Client connections that it has open now.
    pub active: u64,
    /// UDP sessions that it has open now.
    pub sessions: u64,
    /// Calls of `io_uring_enter(2)` by it.
    pub enters: u64,
}

/// Counters of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatistics {
    /// The service's name.
    pub name: String,
    /// Connections and UDP sessions given to one of its backends.
    pub connections: u64,
    /// Of these, UDP sessions.
    pub sessions: u64,
    /// What attempts to connect that succeeded took, by the scale [`histogram::CONNECT`].
    ///
    /// [`histogram::CONNECT`]: super::histogram::CONNECT
    pub connect_times: Times,
    /// How long connections that were given to a backend and have ended lasted, by the scale [`histogram::SESSION`].
    ///
    /// [`histogram::SESSION`]: super::histogram::SESSION
    pub session_times: Times,
    /// One entry for each of its backends.
    pub backends: Vec<BackendStatistics>,
}

/// Counters of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatistics {
    /// Its address.
    pub address: IpAddr,
    /// Connections established to it, and UDP sessions given to it.
    pub connections: u64,
    /// Connections and UDP sessions open now, connections being established included.
    pub active: u64,
    /// Of [`Self::connections`], UDP sessions.
    pub sessions: u64,
    /// Of [`Self::active`], UDP sessions.
    pub active_sessions: u64,
    /// Attempts to connect to it that failed, and UDP sessions that it refused.
    pub connect_failures: u64,
    /// Datagrams sent to it.
    pub datagrams_to_backend: u64,
    /// Datagrams received from it.
    pub datagrams_to_client: u64,
    /// Bytes sent to it.
    pub bytes_to_backend: u64,
    /// Bytes received from it.
    pub bytes_to_client: u64,
    /// How it is.
    pub health: Health,
    /// How much longer it is ejected, in milliseconds; 0 if it is not.
    pub ejected_for_ms: u64,
    /// The share of its weight that it has now, in percent: less than 100 while its share rises.
    pub warmth: u8,
    /// Times that it was ejected.
    pub ejections: u64,
    /// Checks of it that failed.
    pub check_failures: u64,
}
