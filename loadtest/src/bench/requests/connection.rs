//! A client's connection and the request on it.

use super::SIZE;
use nix::errno::Errno;
use ringlb_load::pattern;
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests of different connections carry different bytes, so that an answer to another does not fit: so far apart in
/// the pattern, a prime number.
const APART: u64 = 7_919;

/// A connection.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Where in the pattern its next request begins.
    position: u64,
    received: usize,
    /// When the request that is under way was due.
    due: Option<Instant>,
}

/// How far an answer is.
pub(super) enum Progress {
    /// There is more to come.
    Partial,
    /// It is whole; that is when the request was due.
    Whole(Instant),
}

impl Connection {
    /// A new one, to be used as number `index`.
    pub(super) fn open(target: SocketAddr, index: usize) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self::of(stream, index as u64))
    }

    /// Begins to make a new one, number `number` of all. It is there when it can be written to.
    pub(super) fn begin(target: SocketAddr, number: u64) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking().cloexec(), None)?;
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
            _ => Ok(Self::of(socket.into(), number)),
        }
    }

    fn of(stream: TcpStream, number: u64) -> Self {
        Self { stream, position: APART.wrapping_mul(number), received: 0, due: None }
    }

    /// Sends a request.
    pub(super) fn ask(&mut self, due: Instant) -> io::Result<()> {
        self.due = Some(due);
        self.received = 0;
        self.stream.write_all(pattern::chunk(self.position, SIZE as u64))
    }

    /// When the request that is under way was due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes what has come of an answer.
    pub(super) fn take(&mut self) -> io::Result<Progress> {
        // One more than there should be, so that an answer that is too long shows.
        let mut buffer = [0; SIZE + 1];
        let length = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Partial),
            result => result?,
        };
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "what came back is not what was sent");
        let position = self.position.wrapping_add(self.received as u64);
        self.received += length;
        if self.received > SIZE || pattern::first_difference(position, &buffer[..length]).is_some() {
            return Err(wrong());
        }
        if self.received < SIZE {
            return Ok(Progress::Partial);
        }
        self.position = self.position.wrapping_add(SIZE as u64);
        self.due.take().map(Progress::Whole).ok_or_else(wrong)
    }
}
