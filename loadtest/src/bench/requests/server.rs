//! Sends back what it gets.

use super::poll::Poll;
use crate::bench::BenchError;
use ringlb_netns::Namespace;
use rustix::net::{SocketFlags, accept_with};
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

/// Servers in several namespaces, on one thread. They end when this is dropped.
pub(in crate::bench) struct EchoServer {
    thread: Option<JoinHandle<()>>,
    /// Its end tells the thread to end.
    stop: Option<UnixStream>,
}

impl EchoServer {
    /// Starts one in each of the namespaces, at the address that it is given with.
    pub(in crate::bench) fn start<'a>(
        places: impl Iterator<Item = (&'a Namespace, SocketAddr)>,
    ) -> Result<Self, BenchError> {
        let listen = |(namespace, address): (&Namespace, SocketAddr)| {
            let listener = namespace.run(|| TcpListener::bind(address))?;
            // What it accepts inherits that.
            let listener =
                listener.and_then(|listener| SockRef::from(&listener).set_tcp_nodelay(true).map(|()| listener));
            listener.map_err(BenchError::machine(format!("listen on {address}")))
        };
        let listeners = places.map(listen).collect::<Result<Vec<_>, _>>()?;
        let start = || {
            let (stop, stopped) = UnixStream::pair()?;
            let mut server = Serving::new(listeners, stopped)?;
            // What it cannot do shows in what clients see.
            let serve = move || while server.turn().unwrap_or(false) {};
            let thread = std::thread::Builder::new().name("ringlb-echo".to_owned()).spawn(serve)?;
            Ok(Self { thread: Some(thread), stop: Some(stop) })
        };
        start().map_err(BenchError::machine("start the servers"))
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed there.
            let _ = thread.join();
        }
    }
}

/// The thread's state. Descriptors are numbered: the listeners, then what tells it to end, then connections.
struct Serving {
    poll: Poll,
    listeners: Vec<TcpListener>,
    /// Kept open.
    _stopped: UnixStream,
    connections: Vec<Option<TcpStream>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

/// More than a client sends at a time.
const BUFFER: usize = 16 * 1024;

impl Serving {
    fn new(listeners: Vec<TcpListener>, stopped: UnixStream) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (number, listener) in listeners.iter().enumerate() {
            listener.set_nonblocking(true)?;
            poll.add(listener, number)?;
        }
        poll.add(&stopped, listeners.len())?;
        let (connections, free) = (Vec::new(), Vec::new());
        Ok(Self { poll, listeners, _stopped: stopped, connections, free, buffer: vec![0; BUFFER] })
    }

    /// False when it is to end.
    fn turn(&mut self) -> io::Result<bool> {
        for event in 0..self.poll.wait(None)? {
            let number = self.poll.number(event);
            match number.checked_sub(self.listeners.len()) {
                None => self.accept(number)?,
                Some(0) => return Ok(false),
                Some(number) => self.echo(number - 1),
            }
        }
        Ok(true)
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        while let Ok(connection) = accept_with(&self.listeners[listener], flags) {
            let connection = TcpStream::from(connection);
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poll.add(&connection, self.listeners.len() + 1 + index)?;
            self.connections[index] = Some(connection);
        }
        Ok(())
    }

    /// A client that does not take its answer is cut off, as is one that has ended.
    fn echo(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        let answered = connection.read(&mut self.buffer).and_then(|length| match length {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => connection.write_all(&self.buffer[..length]),
        });
        if answered.is_err() {
            self.connections[index] = None;
            self.free.push(index);
        }
    }
}
