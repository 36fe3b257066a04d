//! UDP sessions on their way from a proxy to the one that takes its place, over a pair of `SOCK_SEQPACKET` sockets.

use super::descriptors::{self, DescriptorError, MOST_IN_PACKET};
use super::frame::{FrameError, MAX_PACKET, Reassembler, encode};
use super::replacement::SessionBatch;
use crate::shared::HandedSession;
use rustix::net::{RecvFlags, SendFlags, recv, send as send_packet};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout};

/// How long the other end may take for a packet, once there is a first one.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time between two attempts to send.
const PAUSE: Duration = Duration::from_millis(1);

/// Why sessions did not come, or not all.
#[derive(Debug, Error)]
pub(super) enum HandoverError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the other proxy has ended the hand-over before its end")]
    Ended,
    #[error("the other proxy does not go on with the hand-over")]
    Late,
}

/// Sends all sessions; they are this process's no more then.
pub(super) async fn send(socket: OwnedFd, sessions: Vec<HandedSession>) -> Result<(), HandoverError> {
    let mut left = sessions.into_iter();
    loop {
        let (specs, sockets): (Vec<_>, Vec<_>) =
            left.by_ref().take(MOST_IN_PACKET).map(|session| (session.spec, session.socket)).unzip();
        let last = left.len() == 0;
        for packet in encode(&SessionBatch { sessions: specs, last })? {
            send_one(&socket, &packet).await?;
        }
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        descriptors::send(socket.as_fd(), &sockets).await?;
        if last {
            return Ok(());
        }
    }
}

async fn send_one(socket: &OwnedFd, packet: &[u8]) -> Result<(), HandoverError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match send_packet(socket, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) if Instant::now() < deadline => sleep(PAUSE).await,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Err(HandoverError::Late),
            Err(rustix::io::Errno::PIPE) => return Err(HandoverError::Ended),
            Err(error) => return Err(HandoverError::Io(error.into())),
        }
    }
}

/// Waits for the first batch, however long that takes, and receives all sessions. An error is the end of it: whoever was to
/// send them does not.
pub(super) async fn receive(socket: OwnedFd) -> Result<Vec<HandedSession>, HandoverError> {
    let socket = watched(socket)?;
    let (mut sessions, mut reassembler, mut buffer) = (Vec::new(), Reassembler::default(), vec![0; MAX_PACKET]);
    let mut is_first = true;
    loop {
        let length = if is_first {
            receive_one(&socket, &mut buffer).await?
        } else {
            timeout(PATIENCE, receive_one(&socket, &mut buffer)).await.map_err(|_| HandoverError::Late)??
        };
        if length == 0 {
            return Err(HandoverError::Ended);
        }
        is_first = false;
        let Some(batch) = reassembler.push::<SessionBatch>(&buffer[..length])? else { continue };
        match descriptors::receive(socket.get_ref().as_fd(), batch.sessions.len()).await {
            Ok(sockets) => {
                let pairs = batch.sessions.into_iter().zip(sockets);
                sessions.extend(pairs.map(|(spec, socket)| HandedSession { spec, socket }));
            }
            // These cannot be had. Their clients begin anew.
            Err(DescriptorError::NoRoom) => {}
            Err(error) => return Err(error.into()),
        }
        if batch.last {
            return Ok(sessions);
        }
    }
}

#[allow(
    deprecated,
    reason = "what it warns of are types that close their descriptor early, which an `OwnedFd` does not"
)]
fn watched(socket: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

async fn receive_one(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> std::io::Result<usize> {
    let attempt = |socket: &OwnedFd| match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
        Ok((length, _)) => Ok(length),
        // It has ended without having read what was sent to it.
        Err(rustix::io::Errno::CONNRESET) => Ok(0),
        Err(error) => Err(error.into()),
    };
    socket.async_io(Interest::READABLE, attempt).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::replacement::SessionSpec;
    use std::net::UdpSocket;

    fn pair() -> (OwnedFd, OwnedFd) {
        let (one, other) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
        (one.into(), other.into())
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn session(number: u32, socket: &UdpSocket) -> HandedSession {
        let address = "10.0.0.1:1".parse().unwrap();
        let spec = SessionSpec {
            thread: number,
            client: address,
            target: address,
            published: false,
            backend: address.ip(),
            port: 53,
            expected: None,
            steered: None,
        };
        HandedSession { spec, socket: socket.try_clone().unwrap().into() }
    }

    #[test]
    fn all_sessions_arrive_with_their_sockets() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for count in [0, 1, MOST_IN_PACKET, 2 * MOST_IN_PACKET + 3] {
            let (near, far) = pair();
            let sent = (0..count as u32).map(|number| session(number, &socket)).collect();
            let sender = std::thread::spawn(move || run(send(near, sent)));
            let received = run(receive(far)).unwrap();
            sender.join().unwrap().unwrap();
            assert!(received.iter().map(|session| session.spec.thread).eq(0..count as u32), "{count}");
            for session in received {
                let arrived = UdpSocket::from(session.socket);
                assert_eq!(arrived.local_addr().unwrap(), socket.local_addr().unwrap());
            }
        }
    }

    #[test]
    fn an_end_without_sessions_is_told_from_none() {
        let (near, far) = pair();
        drop(near);
        assert!(matches!(run(receive(far)), Err(HandoverError::Ended)));
        let (near, far) = pair();
        let batch = SessionBatch { sessions: Vec::new(), last: false };
        let half = async {
            send_one(&near, &encode(&batch).unwrap()[0]).await.unwrap();
            drop(near);
            receive(far).await
        };
        assert!(matches!(run(half), Err(HandoverError::Ended)));
        let (near, far) = pair();
        drop(far);
        assert!(matches!(run(send(near, Vec::new())), Err(HandoverError::Ended)));
    }
}
