//! A client's connection.

use crate::failure::Failure;
use crate::protocol::{NameLine, parse_name_line};
use crate::{pattern, uring};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream as StdStream};
use std::rc::Rc;
use tokio_uring::net::TcpStream;

/// What a client is about, for the message if it fails or takes too long.
pub(super) type Doing = Cell<&'static str>;

pub(super) const CONNECTING: &str = "connecting";
pub(super) const ASKING: &str = "asking for the server's name";
pub(super) const NAME: &str = "reading the server's name";
pub(super) const SENDING: &str = "sending";
pub(super) const RECEIVING: &str = "receiving";

/// A connection. When it is dropped while operations on it are under way, they are ended.
pub(super) struct Connection {
    stream: Rc<TcpStream>,
    under_way: Cell<u32>,
}

impl Connection {
    /// Connects to `target`, from `source` if there is one.
    pub(super) async fn open(target: SocketAddr, source: Option<IpAddr>, doing: &Doing) -> Result<Self, Failure> {
        doing.set(CONNECTING);
        let failed = |source| Failure::io(CONNECTING, source);
        let socket = StdStream::from(prepare(target, source).map_err(failed)?);
        let connection = Self { stream: Rc::new(TcpStream::from_std(socket)), under_way: Cell::new(0) };
        connection.track(uring::connect(Rc::clone(&connection.stream), target)).await.map_err(failed)?;
        Ok(connection)
    }

    /// Sends all of `bytes`.
    pub(super) async fn send(&self, bytes: Vec<u8>) -> Result<(), Failure> {
        self.track(self.stream.write_all(bytes)).await.0.map_err(|source| Failure::io(SENDING, source))
    }

    /// Sends some of the `limit` bytes of the pattern from `position` on; returns how many.
    pub(super) async fn send_pattern(&self, position: u64, limit: u64) -> Result<u64, Failure> {
        let chunk = pattern::chunk(position, limit);
        match self.track(self.stream.write(chunk).submit()).await.0 {
            Ok(sent) => Ok(sent as u64),
            Err(source) => Err(Failure::io(SENDING, source)),
        }
    }

    /// Appends what comes to `buffer`, which has room. Nothing appended: the server ended its direction.
    pub(super) async fn receive(&self, buffer: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let (result, buffer) = self.track(uring::read_more(&self.stream, buffer)).await;
        result.map_err(|source| Failure::io(RECEIVING, source))?;
        Ok(buffer)
    }

    /// Appends what comes to `buffer` until its start is a line with a server's name; returns the name and how long
    /// its line is.
    pub(super) async fn receive_name(&self, buffer: &mut Vec<u8>) -> Result<(String, usize), Failure> {
        loop {
            let before = buffer.len();
            *buffer = self.receive(std::mem::take(buffer)).await?;
            match parse_name_line(buffer) {
                NameLine::Name { name, length } => return Ok((name.to_owned(), length)),
                NameLine::Invalid(index) => return Err(Failure::Mismatch { doing: NAME, position: index as u64 }),
                NameLine::Undecided if buffer.len() == before => {
                    return Err(Failure::UnexpectedEnd { doing: NAME, received: before as u64 });
                }
                NameLine::Undecided => {}
            }
        }
    }

    /// Ends the client's direction.
    pub(super) fn end_sending(&self) -> Result<(), Failure> {
        self.stream.shutdown(Shutdown::Write).map_err(|source| Failure::io("ending the client's direction", source))
    }

    async fn track<T>(&self, operation: impl Future<Output = T>) -> T {
        self.under_way.set(self.under_way.get() + 1);
        let result = operation.await;
        self.under_way.set(self.under_way.get() - 1);
        result
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.under_way.get() > 0 {
            // The kernel holds the socket open until its operations complete; this completes them, a connect included.
            // It is an error where the peer has gone already, and has completed them then.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

fn prepare(target: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        // The port is chosen at the connect then, where it need only be unused towards this target.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}
