//! Descriptors on the control channel (`SCM_RIGHTS`, unix(7)).
//!
//! They travel in packets of their own, right after the message that says what they are: each has one byte and at most
//! [`MOST_IN_PACKET`] descriptors. Both ends wait by looking again after a few milliseconds, as this is rare.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;

/// The most descriptors of a packet. The kernel takes up to 253 (`SCM_MAX_FD`).
pub const MOST_IN_PACKET: usize = 200;
/// How long the other end may take to send what it has announced, or to make room for what it has asked for.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Why descriptors were not sent or received. What follows on the connection cannot be trusted then: it must be closed.
#[derive(Debug, Error)]
pub enum DescriptorError {
    /// sendmsg(2) or recvmsg(2) failed.
    #[error("cannot exchange descriptors on the control channel: {0}")]
    Exchange(#[from] rustix::io::Errno),
    /// Nothing came, or nothing was taken.
    #[error("the other end of the control channel neither sends nor takes descriptors")]
    Late,
    /// The connection has ended.
    #[error("the control connection ended where descriptors were due")]
    Ended,
    /// Not what was announced.
    #[error(
        "a control packet has {found} descriptors and {bytes} bytes where {announced} descriptors and one byte were due"
    )]
    Unexpected {
        /// How many descriptors came.
        found: usize,
        /// How many bytes came.
        bytes: usize,
        /// How many descriptors were announced.
        announced: usize,
    },
    /// This process has no room for them. They are closed, and the connection can be used on.
    #[error("this process cannot have as many descriptors: raise RLIMIT_NOFILE")]
    NoRoom,
}

/// Sends the descriptors to `socket`, one end of a control connection, in as many packets as it takes.
///
/// # Errors
/// [`DescriptorError::Exchange`] or [`DescriptorError::Late`].
pub async fn send(socket: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> Result<(), DescriptorError> {
    let deadline = Instant::now() + PATIENCE;
    for packet in descriptors.chunks(MOST_IN_PACKET) {
        retry(deadline, || send_packet(socket, packet)).await?;
    }
    Ok(())
}

/// Receives so many descriptors from `socket`, one end of a control connection, in as many packets as it takes. They are
/// closed at an `exec`.
///
/// # Errors
/// Any [`DescriptorError`].
pub async fn receive(socket: BorrowedFd<'_>, count: usize) -> Result<Vec<OwnedFd>, DescriptorError> {
    let deadline = Instant::now() + PATIENCE;
    let mut descriptors = Vec::with_capacity(count);
    let mut fits = true;
    let mut due = count;
    while due > 0 {
        let announced = due.min(MOST_IN_PACKET);
        let packet = retry(deadline, || receive_packet(socket)).await?;
        let found = packet.descriptors.len();
        match packet.bytes {
            0 => return Err(DescriptorError::Ended),
            1 if packet.truncated && found < announced => fits = false,
            1 if !packet.truncated && found == announced => descriptors.extend(packet.descriptors),
            bytes => return Err(DescriptorError::Unexpected { found, bytes, announced }),
        }
        due -= announced;
    }
    if fits { Ok(descriptors) } else { Err(DescriptorError::NoRoom) }
}

struct Packet {
    descriptors: Vec<OwnedFd>,
    bytes: usize,
    /// Whether more descriptors came than there was room for.
    truncated: bool,
}

async fn retry<T>(deadline: Instant, mut attempt: impl FnMut() -> rustix::io::Result<T>) -> Result<T, DescriptorError> {
    loop {
        match attempt() {
            Ok(result) => return Ok(result),
            Err(error) if is_passing(error) && Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            Err(error) if is_passing(error) => return Err(DescriptorError::Late),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether it may be otherwise in a moment: as soon as the other end has read, where a user has too many descriptors in packets
/// that nobody has read (unix(7), `ETOOMANYREFS`).
fn is_passing(error: rustix::io::Errno) -> bool {
    matches!(error, rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::TOOMANYREFS)
}

fn send_packet(socket: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_IN_PACKET))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(rustix::io::Errno::INVAL);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket.as_fd(), &[IoSlice::new(&[0])], &mut control, flags).map(drop)
}

fn receive_packet(socket: BorrowedFd<'_>) -> rustix::io::Result<Packet> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_IN_PACKET))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 2];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(Packet { descriptors, bytes: received.bytes, truncated: received.flags.contains(ReturnFlags::CTRUNC) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pair() -> (socket2::Socket, socket2::Socket) {
        socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap()
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn descriptors_arrive_in_order_whatever_their_number() {
        let (near, far) = pair();
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let (_, other) = UnixStream::pair().unwrap();
        let mut sent = vec![other.as_fd(); 2 * MOST_IN_PACKET + 7];
        sent[MOST_IN_PACKET + 1] = writer.as_fd();
        let received = run(async {
            send(near.as_fd(), &sent).await.unwrap();
            receive(far.as_fd(), sent.len()).await.unwrap()
        });
        assert_eq!(received.len(), sent.len());
        let arrived = received.into_iter().nth(MOST_IN_PACKET + 1).unwrap();
        UnixStream::from(arrived).write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn what_was_not_announced_is_an_error() {
        let receive_one = |sent: &dyn Fn(&socket2::Socket)| {
            let (near, far) = pair();
            sent(&near);
            drop(near);
            run(receive(far.as_fd(), 1)).unwrap_err()
        };
        let two = |near: &socket2::Socket| run(send(near.as_fd(), &[near.as_fd(); 2])).unwrap();
        assert!(matches!(receive_one(&two), DescriptorError::Unexpected { found: 2, bytes: 1, announced: 1 }));
        let none = |near: &socket2::Socket| assert_eq!(near.send(b"x").unwrap(), 1);
        assert!(matches!(receive_one(&none), DescriptorError::Unexpected { found: 0, bytes: 1, announced: 1 }));
        let text = |near: &socket2::Socket| assert_eq!(near.send(b"more than a byte").unwrap(), 16);
        assert!(matches!(receive_one(&text), DescriptorError::Unexpected { found: 0, announced: 1, .. }));
        assert!(matches!(receive_one(&|_| ()), DescriptorError::Ended));
        let (_near, far) = pair();
        assert!(matches!(run(receive(far.as_fd(), 1)).unwrap_err(), DescriptorError::Late));
    }
}
