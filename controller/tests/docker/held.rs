//! Connections that are opened once and then only looked at.

use ringlb_netns::Namespace;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a test server that echoes.
pub(crate) struct Held {
    stream: BufReader<TcpStream>,
}

impl Held {
    /// Connects from inside a namespace.
    pub(crate) fn open(from: &Namespace, target: SocketAddr) -> io::Result<Self> {
        let stream = connect(from, target)?;
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(b"ECHO\n")?;
        let mut server = String::new();
        if stream.read_line(&mut server)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { stream })
    }

    /// Whether it still works: what is said comes back.
    pub(crate) fn echoes(&mut self) -> bool {
        let mut echo = [0; 4];
        let exchange = self.stream.get_mut().write_all(b"beat").and_then(|()| self.stream.read_exact(&mut echo));
        exchange.is_ok() && echo == *b"beat"
    }

    /// Waits until the other end ends the connection, without saying anything; `false` if it does not.
    pub(crate) fn is_ended_within(&mut self, patience: Duration) -> bool {
        self.stream.get_mut().set_read_timeout(Some(patience)).unwrap();
        let read = self.stream.read(&mut [0]);
        self.stream.get_mut().set_read_timeout(Some(PATIENCE)).unwrap();
        match read {
            Ok(length) => length == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// Connects from inside a namespace, with a limit to every wait.
pub(crate) fn connect(from: &Namespace, target: SocketAddr) -> io::Result<TcpStream> {
    let stream = from.run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
