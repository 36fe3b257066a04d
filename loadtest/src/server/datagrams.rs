//! Answering datagrams.
//!
//! The socket is not on the ring: tokio-uring cannot receive where to a datagram was sent. The runtime waits for it to
//! become readable, and it is emptied by plain system calls.

use super::shared::Shared;
use crate::{protocol, uring};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_pktinfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, UdpSocket as StdSocket};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// More than any datagram holds: 65,507 bytes over IPv4, 65,527 over IPv6.
const BUFFER: usize = 64 * 1024;
/// So many datagrams are answered before others on this thread get their turn.
const AT_ONCE: usize = 64;
/// So many bytes may wait for their delayed answer, what each takes besides included.
const MOST_DELAYED_BYTES: usize = 64 * 1024 * 1024;
/// What a delayed answer takes besides its bytes: its task and its timer.
const TAKEN_BESIDES: usize = 512;
/// How long to wait after a failed receive that is no matter of one datagram.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Answers what comes to `socket`, as a task of this thread's runtime.
pub(super) fn start(socket: StdSocket, shared: &Rc<Shared>) -> io::Result<()> {
    let echo =
        Rc::new(Echo { socket: UdpSocket::from_std(socket)?, shared: Rc::clone(shared), delayed_bytes: Cell::new(0) });
    tokio_uring::spawn(echo.serve());
    Ok(())
}

struct Echo {
    socket: UdpSocket,
    shared: Rc<Shared>,
    delayed_bytes: Cell<usize>,
}

/// Where a datagram came from and where to it was sent, which is where its answer comes from.
#[derive(Clone, Copy)]
struct Path {
    client: SockaddrStorage,
    server: Option<Source>,
}

/// The address that an answer comes from.
#[derive(Clone, Copy)]
enum Source {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl Echo {
    async fn serve(self: Rc<Self>) {
        let mut buffer = vec![0; BUFFER];
        let mut control = cmsg_space!(in6_pktinfo);
        loop {
            for _ in 0..AT_ONCE {
                let received =
                    self.socket.async_io(Interest::READABLE, || receive(&self.socket, &mut buffer, &mut control)).await;
                match received {
                    Ok((length, path)) => self.answer(&mut buffer[..length], path).await,
                    Err(_) => uring::sleep(PAUSE_AFTER_FAILURE).await,
                }
            }
            uring::turn().await;
        }
    }

    async fn answer(self: &Rc<Self>, datagram: &mut [u8], path: Path) {
        let counters = &self.shared.counters;
        counters.datagrams_received.fetch_add(1, Ordering::Relaxed);
        let length = protocol::answer_datagram(datagram, &self.shared.name_line);
        let answer = &datagram[..length];
        if self.shared.delay.is_zero() {
            self.send(answer, path).await;
            return;
        }
        let taken = length + TAKEN_BESIDES;
        if self.delayed_bytes.get() + taken > MOST_DELAYED_BYTES {
            counters.datagrams_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.delayed_bytes.set(self.delayed_bytes.get() + taken);
        let echo = Rc::clone(self);
        let answer = answer.to_vec();
        tokio_uring::spawn(async move {
            echo.shared.answer_later().await;
            echo.send(&answer, path).await;
            echo.delayed_bytes.set(echo.delayed_bytes.get() - taken);
        });
    }

    async fn send(&self, answer: &[u8], path: Path) {
        let counters = &self.shared.counters;
        let mut sent = send(&self.socket, answer, path);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            sent = self.socket.async_io(Interest::WRITABLE, || send(&self.socket, answer, path)).await;
        }
        // The client is not told: to it a datagram that cannot be sent is one that was lost.
        let counter = if sent.is_ok() { &counters.datagrams_answered } else { &counters.datagrams_dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8], control: &mut [u8]) -> io::Result<(usize, Path)> {
    let mut pieces = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut pieces, Some(control), MsgFlags::MSG_DONTWAIT)?;
    let server = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Source::V4(reply_from_v4(info))),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Source::V6(reply_from_v6(info))),
        _ => None,
    });
    let client = message.address.ok_or(Errno::EDESTADDRREQ)?;
    Ok((message.bytes, Path { client, server }))
}

/// The interface is left to routing: the way back may be another one. The local address is that of the datagram, or
/// the interface's own where it was sent to many (ip(7), `IP_PKTINFO`).
const fn reply_from_v4(received: in_pktinfo) -> in_pktinfo {
    in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: received.ipi_spec_dst, ipi_addr: in_addr { s_addr: 0 } }
}

/// As for IPv4, but a link-local address means nothing without its interface (RFC 4007, section 6).
fn reply_from_v6(received: in6_pktinfo) -> in6_pktinfo {
    let address = Ipv6Addr::from(received.ipi6_addr.s6_addr);
    let interface = if address.is_unicast_link_local() { received.ipi6_ifindex } else { 0 };
    in6_pktinfo { ipi6_ifindex: interface, ..received }
}

fn send(socket: &UdpSocket, answer: &[u8], path: Path) -> io::Result<()> {
    let control = match &path.server {
        Some(Source::V4(info)) => Some(ControlMessage::Ipv4PacketInfo(info)),
        Some(Source::V6(info)) => Some(ControlMessage::Ipv6PacketInfo(info)),
        None => None,
    };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(answer)],
        control.as_slice(),
        MsgFlags::MSG_DONTWAIT,
        Some(&path.client),
    )?;
    Ok(())
}
