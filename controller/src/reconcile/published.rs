//! The published ports of a network: their sockets, and whether its proxy serves them.
//!
//! The sockets are made in the daemon's own namespace and stay with the daemon, so that connections wait in their queues
//! while a proxy is started again.

use super::{Channel, ChannelError};
use crate::model::{Name, Network, Port, Protocol, Service, Services};
use ringlb_netns::{PortProtocol, PortSockets};
use ringlb_proxy::control::message::Request;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::os::fd::{BorrowedFd, OwnedFd};
use tokio::time::Instant;

/// The published ports of a network.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// The services whose ports are known.
    services: Services,
    wanted: BTreeSet<Port>,
    /// The sockets of ports, wanted or not wanted any more.
    sockets: BTreeMap<Port, PortSockets>,
    /// Ports that another proxy serves, and that the running one has services for in the table that it was left with.
    adopted: BTreeSet<Port>,
    /// How far the proxy has come with the ports that it was told of.
    proxy: BTreeMap<Port, Progress>,
    failed: BTreeMap<Port, String>,
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    /// It was asked to serve the port.
    Asked(Instant),
    Served,
    /// It was asked to serve the port no more.
    Dropped(Instant),
}

impl Published {
    /// Takes what `network` publishes as what is wanted. Its cost grows with what differs from the time before.
    pub(super) fn want(&mut self, network: &Network) {
        let mut added = Vec::new();
        for (before, after) in network.services().differences(&self.services) {
            if before.zip(after).is_some_and(|(before, after)| before.published == after.published) {
                continue;
            }
            for port in before.iter().flat_map(|service| &service.published) {
                self.wanted.remove(&port.published);
            }
            added.extend(after.iter().flat_map(|service| &service.published).map(|port| port.published));
        }
        // Last: a port may have gone from one service to another.
        self.wanted.extend(added);
        self.services = network.services().clone();
    }

    /// Wants no port: they are served in another way.
    pub(super) fn want_nothing(&mut self) {
        self.services = Services::default();
        self.wanted.clear();
        self.failed.clear();
    }

    /// Takes ports over that a running proxy serves, with their sockets.
    pub(super) fn adopt(&mut self, ports: impl IntoIterator<Item = (Port, Vec<OwnedFd>)>) {
        for (port, sockets) in ports {
            self.proxy.insert(port, Progress::Served);
            self.sockets.insert(port, PortSockets::from_descriptors(sockets));
        }
    }

    /// Takes over sockets of ports that another proxy than the running one serves, which is to get those that it does not have.
    pub(super) fn adopt_sockets(&mut self, ports: impl IntoIterator<Item = (Port, Vec<OwnedFd>)>) {
        for (port, sockets) in ports {
            self.adopted.insert(port);
            self.sockets.entry(port).or_insert_with(|| PortSockets::from_descriptors(sockets));
        }
    }

    /// Makes the sockets that are missing; those that failed before only if `again`.
    pub(super) fn open(&mut self, network: &Name, threads: NonZeroUsize, again: bool) {
        self.failed.retain(|port, _| self.wanted.contains(port));
        let missing = self.wanted.iter().filter(|port| !self.sockets.contains_key(*port));
        let missing: Vec<_> = missing.filter(|port| again || !self.failed.contains_key(*port)).copied().collect();
        for port in missing {
            match open(port, threads) {
                Ok(sockets) => {
                    self.sockets.insert(port, sockets);
                    if self.failed.remove(&port).is_some() {
                        tracing::info!(%network, %port, "the published port can be served now");
                    }
                }
                Err(reason) => self.fail(network, port, reason),
            }
        }
    }

    /// The wanted ports that cannot be served, with the reason.
    pub(super) fn failed(&self) -> &BTreeMap<Port, String> {
        &self.failed
    }

    /// The same for the status: each port, such as `8080/tcp`, with the service that publishes it in the reason.
    pub(super) fn failures(&self) -> BTreeMap<String, String> {
        let publishes = |service: &Service, port: Port| service.published.iter().any(|entry| entry.published == port);
        let failures = self.failed.iter().map(|(port, reason)| {
            let service = self.services.values().find(|service| publishes(service, *port));
            let of_service = service.map(|service| format!("service {}: ", service.name)).unwrap_or_default();
            (port.to_string(), of_service + reason)
        });
        failures.collect()
    }

    /// Whether everything that a proxy was told of ports is answered, and it was told of all that have sockets.
    pub(super) fn is_settled(&self) -> bool {
        let served = |port: &Port| matches!(self.proxy.get(port), Some(Progress::Served));
        self.wanted.iter().all(|port| served(port) || self.failed.contains_key(port))
    }

    /// When the proxy was asked first what it has not answered.
    pub(super) fn asked_since(&self) -> Option<Instant> {
        let since = self.proxy.values().filter_map(|progress| match progress {
            Progress::Asked(since) | Progress::Dropped(since) => Some(*since),
            Progress::Served => None,
        });
        since.min()
    }

    /// Tells the proxy of the ports that are not wanted any more, and gives up their sockets. To be called before the
    /// table goes to the proxy in which their services are missing.
    pub(super) fn withdraw(&mut self, channel: &mut Channel) -> Result<(), ChannelError> {
        let unwanted = self
            .proxy
            .iter()
            .filter(|(port, progress)| !self.wanted.contains(*port) && !matches!(progress, Progress::Dropped(_)));
        let unwanted: Vec<_> = unwanted.map(|(port, _)| *port).collect();
        for port in unwanted {
            channel.send(&Request::RemovePort(port))?;
            self.proxy.insert(port, Progress::Dropped(Instant::now()));
        }
        self.sockets.retain(|port, _| self.wanted.contains(port));
        Ok(())
    }

    /// Hands over the sockets of wanted ports that the proxy does not have. To be called when the proxy has, or was sent,
    /// the table with their services.
    pub(super) fn hand_over(&mut self, channel: &mut Channel) -> Result<(), ChannelError> {
        self.hand_over_those(channel, |_| true)
    }

    /// The same of those only that the table knows with which the proxy was left. Clients of others would be refused until it has
    /// the next one.
    pub(super) fn hand_over_adopted(&mut self, channel: &mut Channel) -> Result<(), ChannelError> {
        let adopted = std::mem::take(&mut self.adopted);
        self.hand_over_those(channel, |port| adopted.contains(port))
    }

    fn hand_over_those(&mut self, channel: &mut Channel, which: impl Fn(&Port) -> bool) -> Result<(), ChannelError> {
        for port in self.wanted.iter().filter(|port| which(port)) {
            // One that is being dropped is handed over again once that is answered.
            if self.proxy.contains_key(port) || self.failed.contains_key(port) {
                continue;
            }
            let Some(sockets) = self.sockets.get(port) else { continue };
            let descriptors = sockets.descriptors();
            let count = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
            channel.send_with(&Request::AddPort { port: *port, sockets: count }, &descriptors)?;
            self.proxy.insert(*port, Progress::Asked(Instant::now()));
        }
        Ok(())
    }

    /// The ports that another proxy of the network is to serve, with their sockets.
    pub(super) fn served_sockets(&self) -> Vec<(Port, Vec<BorrowedFd<'_>>)> {
        let wanted = self.wanted.iter().filter(|port| !self.failed.contains_key(*port));
        wanted.filter_map(|port| Some((*port, self.sockets.get(port)?.descriptors()))).collect()
    }

    /// There is another proxy, which serves these.
    pub(super) fn replaced_proxy(&mut self, served: Vec<Port>) {
        self.proxy = served.into_iter().map(|port| (port, Progress::Served)).collect();
    }

    /// Takes the proxy's list of the ports that it serves.
    pub(super) fn served(&mut self, listed: &[Port]) {
        for port in listed {
            let progress = self.proxy.entry(*port).or_insert(Progress::Served);
            if matches!(progress, Progress::Asked(_)) {
                *progress = Progress::Served;
            }
        }
        self.proxy.retain(|port, progress| match progress {
            Progress::Asked(_) => true,
            Progress::Served | Progress::Dropped(_) => listed.contains(port),
        });
    }

    /// Takes the proxy's word that it does not serve a port.
    pub(super) fn refused(&mut self, network: &Name, port: Port, reason: &str) {
        self.proxy.remove(&port);
        self.sockets.remove(&port);
        if self.wanted.contains(&port) {
            self.fail(network, port, format!("the proxy refused it: {reason}"));
        }
    }

    /// The proxy may not have heard the last that it was told.
    pub(super) fn lost_link(&mut self) {
        self.proxy.retain(|port, progress| {
            *progress = Progress::Served;
            // It takes the same sockets again; whatever it has of others, it is told again to drop.
            !self.wanted.contains(port)
        });
    }

    /// There is no proxy any more.
    pub(super) fn lost_proxy(&mut self) {
        self.proxy.clear();
    }

    /// Gives up everything.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    fn fail(&mut self, network: &Name, port: Port, reason: String) {
        if !self.failed.contains_key(&port) {
            tracing::error!(%network, %port, reason, "cannot serve the published port");
        }
        self.failed.insert(port, reason);
    }
}

fn open(port: Port, threads: NonZeroUsize) -> Result<PortSockets, String> {
    PortSockets::open(port_protocol(port), port.number, threads).map_err(|error| error.to_string())
}

/// A port's protocol, as the namespaces' crate calls it.
pub(super) fn port_protocol(port: Port) -> PortProtocol {
    match port.protocol {
        Protocol::Tcp => PortProtocol::Tcp,
        Protocol::Udp => PortProtocol::Udp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
    use ringlb_proxy::control::frame::encode;
    use ringlb_proxy::control::message::Reply;
    use ringlb_proxy::control::version::Versions;
    use std::os::fd::AsRawFd;

    /// How many packets have come.
    fn packets(socket: &OwnedFd) -> usize {
        let mut packet = [0; 1_000];
        (0..).take_while(|_| recv(socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT).is_ok()).count()
    }

    /// A daemon has died while one proxy replaced another, and the next one is to publish a further port.
    #[tokio::test]
    async fn a_proxy_without_the_next_table_gets_no_port_of_it() {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let mut channel = Channel::new(near, Versions::default()).unwrap();
        // Once something has come, the runtime knows that the socket can be written to.
        let greeting = encode(&Reply::Acknowledged { generation: 1 }).unwrap().remove(0);
        send(far.as_raw_fd(), &greeting, MsgFlags::MSG_NOSIGNAL).unwrap();
        channel.receive().await.unwrap();
        let [served, known, new] = [1, 2, 3].map(|number| Port { protocol: Protocol::Tcp, number });
        let mut published = Published { wanted: [served, known, new].into(), ..Published::default() };
        published.adopt([(served, Vec::new())]);
        published.adopt_sockets([(served, Vec::new()), (known, Vec::new())]);
        published.sockets.insert(new, PortSockets::from_descriptors(Vec::new()));
        published.hand_over_adopted(&mut channel).unwrap();
        assert_eq!((packets(&far), published.proxy.keys().copied().collect::<Vec<_>>()), (1, vec![served, known]));
        published.hand_over(&mut channel).unwrap();
        assert_eq!((packets(&far), published.proxy.len()), (1, 3));
    }
}
