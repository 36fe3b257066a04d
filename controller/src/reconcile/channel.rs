//! The daemon's end of a control connection.

use ringlb_proxy::control::descriptors::{self, DescriptorError, MOST_IN_PACKET};
use ringlb_proxy::control::frame::{FrameError, MAX_PACKET, Reassembler, encode_in};
use ringlb_proxy::control::message::{Reply, Request};
use ringlb_proxy::control::version::Versions;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Why a control connection cannot be used any more.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The proxy has closed it.
    #[error("the proxy has closed the control connection")]
    Closed,
    /// The kernel refused to send or to receive.
    #[error("the control connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came is not a message, or what was to be sent does not fit into one.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The descriptors that were announced did not come.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
}

/// A control connection to a proxy.
#[derive(Debug)]
pub struct Channel {
    /// For the runtime a datagram socket: it sends and receives packets like any.
    socket: UnixDatagram,
    outgoing: VecDeque<Packet>,
    reassembler: Reassembler,
    buffer: Box<[u8]>,
    versions: Versions,
    /// What is spoken.
    version: u16,
}

/// What is sent at once.
#[derive(Debug)]
enum Packet {
    /// A part of a message.
    Part(Vec<u8>),
    /// The descriptors that belong to the message before.
    Descriptors(Vec<OwnedFd>),
}

impl Channel {
    /// Takes a connected, non-blocking `SOCK_SEQPACKET` socket. Speaks the oldest version until the proxy has
    /// [greeted](Self::greeted).
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub fn new(socket: OwnedFd, versions: Versions) -> io::Result<Self> {
        Ok(Self {
            socket: UnixDatagram::from_std(socket.into())?,
            outgoing: VecDeque::new(),
            reassembler: Reassembler::new(versions),
            versions,
            version: versions.least(),
            // One byte more than a packet may have, so that a longer one is seen to be too long.
            buffer: vec![0; MAX_PACKET + 1].into_boxed_slice(),
        })
    }

    /// To be called when the greeting has come. If the proxy may speak a newer version than that of its greeting, this asks for
    /// its introduction in the newest one and says so: a proxy that does not know that version closes the connection.
    ///
    /// # Errors
    /// Any [`ChannelError`].
    pub fn greeted(&mut self, speaks_newer: bool) -> Result<bool, ChannelError> {
        self.version = self.reassembler.version();
        // What came in the newest version needs an introduction, too.
        if !speaks_newer || self.versions.most() == self.versions.least() {
            return Ok(false);
        }
        self.version = self.versions.most();
        self.send(&Request::Introduce)?;
        Ok(true)
    }

    /// Sends a request, as much of it as the socket takes now; [`Self::receive`] sends the rest.
    ///
    /// # Errors
    /// Any [`ChannelError`].
    pub fn send(&mut self, request: &Request) -> Result<(), ChannelError> {
        self.outgoing.extend(encode_in(self.version, request)?.into_iter().map(Packet::Part));
        self.flush()
    }

    /// Sends a request and the descriptors that belong to it, as [`Self::send`] does.
    ///
    /// # Errors
    /// Any [`ChannelError`].
    pub fn send_with(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.outgoing.extend(encode_in(self.version, request)?.into_iter().map(Packet::Part));
        for packet in descriptors.chunks(MOST_IN_PACKET) {
            let copies = packet.iter().map(BorrowedFd::try_clone_to_owned);
            self.outgoing.push_back(Packet::Descriptors(copies.collect::<io::Result<_>>()?));
        }
        self.flush()
    }

    /// The next reply. Can be given up and called again without a loss.
    ///
    /// # Errors
    /// Any [`ChannelError`].
    pub async fn receive(&mut self) -> Result<Reply, ChannelError> {
        loop {
            let interest =
                if self.outgoing.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            let ready = self.socket.ready(interest).await?;
            if ready.is_writable() {
                self.flush()?;
            }
            if !ready.is_readable() && !ready.is_read_closed() {
                continue;
            }
            match self.socket.try_recv(&mut self.buffer) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(length) if length > MAX_PACKET => return Err(FrameError::TooLarge.into()),
                Ok(length) => {
                    if let Some(reply) = self.reassembler.push(&self.buffer[..length])? {
                        return Ok(reply);
                    }
                }
                Err(error) => passing(error)?,
            }
        }
    }

    /// The descriptors that were announced by the last reply.
    ///
    /// # Errors
    /// If they do not come; then the connection cannot be used any more.
    pub async fn receive_descriptors(&self, count: usize) -> Result<Vec<OwnedFd>, ChannelError> {
        Ok(descriptors::receive(self.socket.as_fd(), count).await?)
    }

    fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some(packet) = self.outgoing.front() {
            let sent = match packet {
                Packet::Part(bytes) => self.socket.try_send(bytes),
                Packet::Descriptors(descriptors) => {
                    self.socket.try_io(Interest::WRITABLE, || send_descriptors(self.socket.as_fd(), descriptors))
                }
            };
            match sent {
                Ok(_) => {
                    self.outgoing.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => passing(error)?,
            }
        }
        Ok(())
    }
}

/// Sends a packet of one byte with the descriptors.
fn send_descriptors(socket: BorrowedFd<'_>, descriptors: &[OwnedFd]) -> io::Result<usize> {
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_IN_PACKET))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?)
}

/// Whether an error means only that it must be tried again.
fn passing(error: io::Error) -> Result<(), ChannelError> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Err(ChannelError::Closed),
        _ => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
    use ringlb_proxy::control::frame::encode;
    use ringlb_proxy::control::message::{ServiceSpec, Snapshot};
    use std::os::fd::AsRawFd;
    use std::sync::Arc;
    use std::time::Duration;

    fn pair() -> (Channel, OwnedFd) {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        (Channel::new(ours, Versions::default()).unwrap(), theirs)
    }

    fn give(socket: &OwnedFd, packet: &[u8]) {
        assert_eq!(send(socket.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL).unwrap(), packet.len());
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.expect("the channel hangs") })
    }

    #[test]
    fn what_is_no_message_ends_the_connection() {
        run(async {
            let good = encode(&Reply::Acknowledged { generation: 7 }).unwrap().remove(0);
            let mut wrong_magic = good.clone();
            wrong_magic[0] ^= 1;
            let mut wrong_version = good.clone();
            wrong_version[4] ^= 0xff;
            let mut wrong_flags = good.clone();
            wrong_flags[6] |= 0x80;
            let mut longer = good.clone();
            longer.push(0);
            let cases: [&[u8]; 9] = [
                b"garbage garbage garbage",
                &good[..5],
                &good[..8],
                &good[..good.len() - 1],
                &wrong_magic,
                &wrong_version,
                &wrong_flags,
                &longer,
                &vec![b'R'; MAX_PACKET + 1],
            ];
            for (index, packet) in cases.into_iter().enumerate() {
                let (mut channel, theirs) = pair();
                give(&theirs, &good);
                assert_eq!(channel.receive().await.unwrap(), Reply::Acknowledged { generation: 7 });
                give(&theirs, packet);
                assert!(matches!(channel.receive().await, Err(ChannelError::Frame(_))), "case {index}");
            }
        });
    }

    #[test]
    fn a_close_is_seen() {
        run(async {
            let (mut channel, theirs) = pair();
            drop(theirs);
            assert!(matches!(channel.receive().await, Err(ChannelError::Closed)));
            assert!(matches!(channel.send(&Request::Statistics), Err(ChannelError::Closed)));
        });
    }

    /// A message that is larger than the socket's buffer goes out part by part, while the other side reads.
    #[test]
    fn a_large_message_passes() {
        run(async {
            let (mut channel, theirs) = pair();
            let service = |index: u32| {
                Arc::new(ServiceSpec {
                    name: format!("service-{index}"),
                    vips: vec![std::net::Ipv4Addr::from(index).into()],
                    settings: Default::default(),
                    published: Vec::new(),
                    backends: Vec::new(),
                })
            };
            let snapshot = Request::Snapshot(Snapshot { generation: 1, services: (0..100_000).map(service).collect() });
            channel.send(&snapshot).unwrap();
            assert!(!channel.outgoing.is_empty(), "the message fits into the socket's buffer: make it larger");
            let reader = tokio::task::spawn_blocking(move || {
                let mut reassembler = Reassembler::default();
                let mut buffer = vec![0; MAX_PACKET];
                loop {
                    match recv(theirs.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                        Ok(length) => {
                            if let Some(request) = reassembler.push::<Request>(&buffer[..length]).unwrap() {
                                give(&theirs, &encode(&Reply::Acknowledged { generation: 1 }).unwrap()[0]);
                                return request;
                            }
                        }
                        Err(Errno::EAGAIN) => std::thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            assert_eq!(channel.receive().await.unwrap(), Reply::Acknowledged { generation: 1 });
            assert!(reader.await.unwrap() == snapshot);
        });
    }
}
