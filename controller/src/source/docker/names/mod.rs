//! Which tasks of a service are to get connections: the addresses of `tasks.SERVICE` in the DNS of the network's sandbox.
//!
//! The Engine takes a task out of it about two seconds before the task is told to stop, on every node.

mod message;
mod stream;
#[cfg(test)]
mod tests;

use super::sandbox_files::SandboxFile;
use crate::model::{Family, OfFamily};
use message::{Answer, MAX_ANSWER};
use ringlb_netns::Namespace;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// The Engine's DNS, in every sandbox.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);

/// How often each name is asked for.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many questions go out at once. More would fill the socket's queue with answers, and come as bursts of load to
/// the Engine.
const BURST: usize = 16;

/// How soon after one asking out of turn another may follow.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// What was answered, or not, in one sandbox.
#[derive(Debug)]
pub(super) struct Answers {
    /// The network's id.
    pub(super) network: String,
    /// The sandbox whose DNS it is.
    pub(super) identity: (u64, u64),
    /// By service.
    pub(super) services: Vec<Told>,
}

/// Of a service: when the question was asked, and the addresses, if they are known.
type Told = (String, std::time::Instant, Option<BTreeSet<IpAddr>>);

/// What is asked for: services with the family of their VIP, and a number that grows when all of it is wanted at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    services: BTreeMap<String, Family>,
    at_once: u64,
}

/// Asks in one sandbox, until it is dropped.
#[derive(Debug)]
pub(super) struct Asker {
    /// The sandbox.
    pub(super) identity: (u64, u64),
    wanted: watch::Sender<Wanted>,
    task: tokio::task::JoinHandle<()>,
}

impl Asker {
    /// Begins to ask in that sandbox.
    ///
    /// # Errors
    /// If it is not there any more, or cannot be entered.
    pub(super) fn start(
        network: &str,
        sandbox: &SandboxFile,
        answers: mpsc::UnboundedSender<Answers>,
    ) -> io::Result<Self> {
        let socket = open_socket(sandbox)?;
        let (wanted, receiver) = watch::channel(Wanted::default());
        let asking = Asking {
            network: network.to_owned(),
            sandbox: sandbox.clone(),
            socket: UdpSocket::from_std(socket)?,
            wanted: receiver,
            answers,
            open: HashMap::new(),
            streams: JoinSet::new(),
        };
        let task = tokio::spawn(asking.run());
        Ok(Self { identity: sandbox.identity, wanted, task })
    }

    /// These services, each with its VIP, are to be asked for from now on.
    pub(super) fn ask_for<'a>(&self, services: impl Iterator<Item = (&'a str, IpAddr)>) {
        let services = services.map(|(name, vip)| (name.to_owned(), vip.family())).collect();
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.services != services;
            if changed {
                wanted.services = services;
                wanted.at_once += 1;
            }
            changed
        });
    }

    /// All services are to be asked for now, out of turn.
    pub(super) fn hurry(&self) {
        self.wanted.send_modify(|wanted| wanted.at_once += 1);
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        // With it goes the socket, so that nothing of the sandbox is kept.
        self.task.abort();
    }
}

struct Asking {
    network: String,
    sandbox: SandboxFile,
    socket: UdpSocket,
    wanted: watch::Receiver<Wanted>,
    answers: mpsc::UnboundedSender<Answers>,
    /// The questions without an answer yet, by their id.
    open: HashMap<u16, Question>,
    /// The questions whose answers did not fit into a datagram.
    streams: JoinSet<Told>,
}

struct Question {
    service: String,
    family: Family,
    asked: Instant,
}

impl Asking {
    async fn run(mut self) {
        let mut wanted = self.wanted.borrow_and_update().clone();
        let mut turn = 0;
        let mut next = Instant::now();
        let mut buffer = vec![0; usize::from(MAX_ANSWER)];
        loop {
            let bursts = u32::try_from(wanted.services.len().div_ceil(BURST).max(1)).unwrap_or(u32::MAX);
            tokio::select! {
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = self.wanted.borrow_and_update().clone();
                    if now.at_once != wanted.at_once {
                        next = next.min(Instant::now() + MIN_PAUSE);
                        turn = 0;
                    }
                    wanted = now;
                }
                () = sleep_until(next), if !wanted.services.is_empty() => {
                    let turns = wanted.services.len().div_ceil(BURST);
                    let burst = wanted.services.iter().skip(turn % turns * BURST).take(BURST);
                    let asked = Instant::now();
                    let mut unanswered = self.overdue(asked);
                    for (service, family) in burst {
                        if let Err(error) = self.ask(service, *family, asked) {
                            tracing::debug!(network = self.network, service, %error, "cannot ask the sandbox's DNS");
                            unanswered.push((service.clone(), asked.into_std(), None));
                        }
                    }
                    self.tell(unanswered);
                    turn = (turn + 1) % turns;
                    next = asked + INTERVAL / bursts;
                }
                readable = self.socket.readable() => {
                    if readable.is_err() {
                        continue;
                    }
                    let answered = self.read(&mut buffer);
                    self.tell(answered);
                }
                Some(answered) = self.streams.join_next(), if !self.streams.is_empty() => {
                    self.tell(answered.into_iter().collect());
                }
            }
        }
    }

    fn ask(&mut self, service: &str, family: Family, asked: Instant) -> io::Result<()> {
        // Not to be guessed by whoever can send from 127.0.0.11, which is nobody but the Engine; it also tells late answers
        // from those to the questions of now.
        let id = loop {
            let id = random_id();
            if !self.open.contains_key(&id) {
                break id;
            }
        };
        let question = message::question(id, service, family).map_err(io::Error::other)?;
        self.socket.try_send(&question)?;
        self.open.insert(id, Question { service: service.to_owned(), family, asked });
        Ok(())
    }

    /// All answers that have come.
    fn read(&mut self, buffer: &mut [u8]) -> Vec<Told> {
        let mut answered = Vec::new();
        // An error, such as that nobody listens there, belongs to a question that stays without an answer.
        while let Ok(length) = self.socket.try_recv(buffer) {
            let bytes = &buffer[..length];
            let Some(id) = bytes.first_chunk().map(|id| u16::from_be_bytes(*id)) else { continue };
            let Some(question) = self.open.get(&id) else { continue };
            let Some((_, answer)) = message::answer(bytes, question.family) else { continue };
            let Some(question) = self.open.remove(&id) else { continue };
            let addresses = match answer {
                Answer::Addresses(addresses) => Some(addresses),
                Answer::Unknown => None,
                Answer::Truncated => {
                    self.ask_again(question);
                    continue;
                }
            };
            answered.push((question.service, question.asked.into_std(), addresses));
        }
        answered
    }

    fn ask_again(&mut self, Question { service, family, asked }: Question) {
        let sandbox = self.sandbox.clone();
        self.streams.spawn(async move {
            let answer = timeout(PATIENCE, stream::ask(&sandbox, random_id(), &service, family)).await;
            let addresses = match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(Answer::Addresses(addresses)) => Some(addresses),
                Ok(Answer::Unknown | Answer::Truncated) => None,
                Err(error) => {
                    tracing::debug!(service, %error, "cannot ask the sandbox's DNS by TCP");
                    None
                }
            };
            (service, asked.into_std(), addresses)
        });
    }

    fn overdue(&mut self, now: Instant) -> Vec<Told> {
        let overdue = self.open.extract_if(|_, question| now.duration_since(question.asked) >= PATIENCE);
        overdue.map(|(_, question)| (question.service, question.asked.into_std(), None)).collect()
    }

    fn tell(&self, services: Vec<Told>) {
        if !services.is_empty() {
            let identity = self.sandbox.identity;
            // Nobody listens at the end of the daemon.
            let _ = self.answers.send(Answers { network: self.network.clone(), identity, services });
        }
    }
}

fn random_id() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    // Keyed anew each time, out of the kernel's random numbers (std::hash::RandomState).
    let [low, high, ..] = RandomState::new().hash_one(0u8).to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn open_socket(sandbox: &SandboxFile) -> io::Result<std::net::UdpSocket> {
    enter(sandbox, || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        socket.connect(&SERVER.into())?;
        Ok(socket.into())
    })
}

/// Makes a socket in the sandbox.
fn enter<T: Send>(sandbox: &SandboxFile, make: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = Namespace::open_path(&sandbox.path).map_err(io::Error::other)?;
    if namespace.identity().map_err(io::Error::other)? != sandbox.identity {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it is another sandbox already"));
    }
    namespace.run(make).map_err(io::Error::other)?
}
