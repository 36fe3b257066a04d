//! A client's socket: connected, so that it receives only what its target sends, and is told of ICMP errors (udp(7)).
//!
//! It is not on the ring: an operation of tokio-uring that is given up keeps its buffer, and takes the datagram that
//! comes later. The runtime waits for the socket to become readable, and all clients receive into one buffer.

use crate::LoadOptions;
use crate::failure::Failure;
use crate::record::SharedRecorder;
use nix::sys::socket::{self, MsgFlags, setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, Type};
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsRawFd;
use std::time::Instant;
use tokio::io::Interest;
use tokio::net::UdpSocket;

const OPENING: &str = "opening a socket";
/// The kernel cuts it to `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// A client's socket.
#[derive(Debug)]
pub(in crate::load) struct Socket(UdpSocket);

/// Opens the sockets of a run. Those that fail are counted and `None`.
pub(in crate::load) fn open_all(options: &LoadOptions, recorder: &SharedRecorder) -> Vec<Option<Socket>> {
    let open = |index: usize| {
        let target = index % options.targets.len();
        match Socket::open(options.targets[target], options.source) {
            Ok(socket) => {
                recorder.lock().socket_opened();
                Some(socket)
            }
            Err(failure) => {
                recorder.lock().failure(target, None, &failure, Instant::now());
                None
            }
        }
    };
    (0..options.connections).map(open).collect()
}

impl Socket {
    /// Opens a socket towards `target`, from `source` if there is one.
    pub(super) fn open(target: SocketAddr, source: Option<IpAddr>) -> Result<Self, Failure> {
        prepare(target, source).and_then(UdpSocket::from_std).map(Self).map_err(|source| Failure::io(OPENING, source))
    }

    /// Sends the datagram that `write` makes, called again where there was no room for it. Returns its length.
    pub(super) async fn send(&self, outgoing: &RefCell<Vec<u8>>, write: impl Fn(&mut Vec<u8>)) -> io::Result<usize> {
        let send = || -> io::Result<usize> {
            let mut datagram = outgoing.borrow_mut();
            write(&mut datagram);
            Ok(socket::send(self.0.as_raw_fd(), &datagram, MsgFlags::MSG_DONTWAIT)?)
        };
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.0.async_io(Interest::WRITABLE, send).await,
            result => result,
        }
    }

    /// Receives a datagram and gives it to `judge`. Given up, it has received nothing.
    pub(super) async fn receive<T>(&self, incoming: &RefCell<Vec<u8>>, judge: impl Fn(&[u8]) -> T) -> io::Result<T> {
        let receive = || -> io::Result<T> {
            let mut buffer = incoming.borrow_mut();
            let length = socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
            Ok(judge(&buffer[..length]))
        };
        loop {
            // An ICMP error does not make a socket readable.
            let ready = self.0.ready(Interest::READABLE | Interest::ERROR).await?;
            let interest = if ready.is_error() { Interest::ERROR } else { Interest::READABLE };
            match self.0.try_io(interest, receive) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

fn prepare(target: SocketAddr, source: Option<IpAddr>) -> io::Result<StdSocket> {
    let socket = socket2::Socket::new(Domain::for_address(target), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    if let Some(source) = source {
        // The port is chosen at the connect then.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&target.into()) {
        // What the kernel says when it has no port to choose.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(nix::errno::Errno::EADDRNOTAVAIL.into()),
        result => result.map(|()| socket.into()),
    }
}
