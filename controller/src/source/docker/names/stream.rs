//! The same question by TCP (RFC 7766), for an answer that does not fit into a datagram.

use super::message::{self, Answer};
use super::{SERVER, enter};
use crate::model::Family;
use crate::source::docker::sandbox_files::SandboxFile;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// An answer within so many bytes of the longest message may not be whole: by TCP the Engine leaves out what does not fit,
/// and does not say so. A record has 281 bytes at most (RFC 1035, section 4.1.3, with an IPv6 address).
const SPARE: usize = 281;

/// Asks in that sandbox for the addresses of `family` that the tasks of a service have.
///
/// # Errors
/// If the sandbox is not there any more, or nobody answers as RFC 1035 wants it.
pub(super) async fn ask(sandbox: &SandboxFile, id: u16, service: &str, family: Family) -> io::Result<Answer> {
    let question = message::question(id, service, family).map_err(io::Error::other)?;
    let mut stream = connect(sandbox).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question.as_slice()].concat()).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    match message::answer(&bytes, family) {
        Some((answered, Answer::Addresses(addresses))) if answered == id => {
            let whole = bytes.len() < usize::from(u16::MAX) - SPARE;
            Ok(if whole { Answer::Addresses(addresses) } else { Answer::Unknown })
        }
        Some((answered, _)) if answered == id => Ok(Answer::Unknown),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "that is no answer to the question")),
    }
}

async fn connect(sandbox: &SandboxFile) -> io::Result<TcpStream> {
    let socket =
        enter(sandbox, || Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP)))?;
    TcpSocket::from_std_stream(socket.into()).connect(SERVER).await
}
