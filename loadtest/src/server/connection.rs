//! One connection, from its first byte to its end. An error on it ends it and is nobody else's business.

use super::shared::Shared;
use crate::pattern::{self, MAX_CHUNK};
use crate::protocol::{self, Command, MAX_LINE, Opening, Verdict};
use crate::uring;
use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

/// What an idle connection holds to receive into. tokio-uring has no buffers that the kernel chooses, so every waiting
/// read has one; bulk data moves through large ones.
const SMALL: usize = 256;
const _: () = assert!(SMALL >= MAX_LINE);

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, shared: Rc<Shared>) {
    shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
    shared.counters.active.fetch_add(1, Ordering::Relaxed);
    let connection = Connection { stream, shared };
    // The peer has gone; there is nobody to tell.
    let _ = connection.converse().await;
}

struct Connection {
    stream: TcpStream,
    shared: Rc<Shared>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.counters.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    async fn converse(&self) -> io::Result<()> {
        if self.shared.greeting {
            self.say_name().await?;
        }
        let mut first = Vec::with_capacity(SMALL);
        loop {
            let received;
            (received, first) = self.receive(first).await?;
            match protocol::parse_opening(&first) {
                // The client ended its direction: what it sent will never be a command.
                Opening::Undecided if received == 0 => return self.send_from(first, 0).await.map(drop),
                Opening::Undecided => {}
                Opening::Plain => return self.echo(first, 0).await,
                Opening::Command { command, length } => return self.obey(command, first, length).await,
            }
        }
    }

    async fn obey(&self, command: Command, first: Vec<u8>, length: usize) -> io::Result<()> {
        self.say_name().await?;
        match command {
            Command::Identify => Ok(()),
            Command::Echo => self.echo(first, length).await,
            // The others move a lot of data: their buffers and states are not to weigh on idle connections.
            Command::Discard { position } => Box::pin(self.discard(position, first, length)).await,
            Command::Source { bytes, position } => Box::pin(self.source(bytes, position)).await,
        }
    }

    async fn say_name(&self) -> io::Result<()> {
        self.shared.answer_later().await;
        self.stream.write_all(self.shared.name_line.clone()).await.0
    }

    /// Sends back what is in `buffer` from `start` on, and then all that comes.
    async fn echo(&self, mut buffer: Vec<u8>, start: usize) -> io::Result<()> {
        if start < buffer.len() {
            self.shared.answer_later().await;
            buffer = self.send_from(buffer, start).await?;
        }
        loop {
            buffer.clear();
            let received;
            (received, buffer) = self.receive(buffer).await?;
            if received == 0 {
                return Ok(());
            }
            self.shared.answer_later().await;
            buffer = self.send_from(buffer, 0).await?;
            buffer = self.fit(buffer, received);
        }
    }

    /// A full buffer says that there is more: a large one follows. Nearly nothing in a large one says that this was
    /// all: a small one waits for more.
    fn fit(&self, buffer: Vec<u8>, received: usize) -> Vec<u8> {
        let large = buffer.capacity() > SMALL;
        if !large && received == buffer.capacity() {
            self.shared.buffers.take()
        } else if large && received <= SMALL {
            self.shared.buffers.put(buffer);
            Vec::with_capacity(SMALL)
        } else {
            buffer
        }
    }

    async fn discard(&self, position: u64, first: Vec<u8>, start: usize) -> io::Result<()> {
        let mut bytes = 0;
        let mut mismatch = None;
        let mut judge = |data: &[u8]| {
            let difference = pattern::first_difference(position.wrapping_add(bytes), data);
            mismatch = mismatch.or(difference.map(|index| bytes + index as u64));
            bytes += data.len() as u64;
        };
        judge(&first[start..]);
        let mut buffer = self.shared.buffers.take();
        loop {
            buffer.clear();
            let received;
            (received, buffer) = self.receive(buffer).await?;
            if received == 0 {
                break;
            }
            judge(&buffer);
        }
        self.shared.buffers.put(buffer);
        self.shared.answer_later().await;
        let verdict = mismatch.map_or(Verdict::Received(bytes), Verdict::Mismatch);
        self.stream.write_all(format!("{verdict}\n").into_bytes()).await.0
    }

    async fn source(&self, bytes: u64, position: u64) -> io::Result<()> {
        let limit = if bytes == 0 { u64::MAX } else { bytes };
        let client_ended = Cell::new(false);
        let send = async {
            let mut sent = 0;
            while sent < limit && !client_ended.get() {
                let chunk = pattern::chunk(position.wrapping_add(sent), (limit - sent).min(MAX_CHUNK as u64));
                sent += self.stream.write(chunk).submit().await.0? as u64;
            }
            // Both directions: this also ends the read that waits for the client's end.
            let _ = self.stream.shutdown(Shutdown::Both);
            Ok(())
        };
        let watch = async {
            let mut buffer = Vec::with_capacity(SMALL);
            loop {
                buffer.clear();
                let received;
                (received, buffer) = self.receive(buffer).await?;
                if received == 0 {
                    client_ended.set(true);
                    return Ok(());
                }
            }
        };
        let result: io::Result<((), ())> = tokio::try_join!(send, watch);
        if result.is_err() {
            // One of the two operations may still wait, and holds the socket open for as long.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        result.map(drop)
    }

    async fn receive(&self, buffer: Vec<u8>) -> io::Result<(usize, Vec<u8>)> {
        let (result, buffer) = uring::read_more(&self.stream, buffer).await;
        Ok((result?, buffer))
    }

    async fn send_from(&self, buffer: Vec<u8>, start: usize) -> io::Result<Vec<u8>> {
        if start == buffer.len() {
            return Ok(buffer);
        }
        let (result, slice) = self.stream.write_all(buffer.slice(start..)).await;
        result?;
        Ok(slice.into_inner())
    }
}
