//! What the kernel knows of a TCP socket (`TCP_INFO`, tcp(7); `struct tcp_info`, include/uapi/linux/tcp.h).
#![allow(unsafe_code, reason = "getsockopt(2) has no safe wrapper for this option")]

use crate::connection_map::Standing;
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd};

// Offsets and size, up to the last field that is used. Later kernels have more.
const OPTIONS: usize = 5;
const SCALES: usize = 6;
const ACKNOWLEDGED: usize = 120;
const RECEIVED: usize = 128;
const SENT: usize = 200;
const REPEATED: usize = 208;
const SIZE: usize = 216;

/// In the options: timestamps (RFC 7323), selective acknowledgements (RFC 2018), window scales, congestion notification
/// (RFC 3168), timestamps in microseconds (Linux 6.7).
const TIMESTAMPS: u8 = 1;
const SELECTIVE: u8 = 2;
const SCALED: u8 = 4;
const CONGESTION: u8 = 8;
const MICROSECONDS: u8 = 64;

/// A socket's answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Information([u8; SIZE]);

impl Information {
    /// Asks the kernel.
    pub(super) fn of(socket: &impl AsFd) -> nix::Result<Self> {
        let mut bytes = [0; SIZE];
        let mut length = SIZE as libc::socklen_t;
        let descriptor = socket.as_fd().as_raw_fd();
        // SAFETY: the kernel writes at most `length` bytes into the array, and `length` itself; both outlive the call.
        let result = unsafe {
            libc::getsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_INFO, bytes.as_mut_ptr().cast(), &raw mut length)
        };
        Errno::result(result)?;
        // A kernel before Linux 4.19 does not know how much a socket has sent.
        if length as usize == SIZE { Ok(Self(bytes)) } else { Err(Errno::ENOPROTOOPT) }
    }

    /// How far the socket is. One that has connected counts the acknowledgement of its SYN as that of a byte.
    pub(super) fn standing(&self, has_connected: bool) -> Standing {
        let [acknowledged, received, sent, repeated] =
            [ACKNOWLEDGED, RECEIVED, SENT, REPEATED].map(|offset| self.low_word(offset));
        Standing {
            received,
            sent: sent.wrapping_sub(repeated),
            acknowledged: acknowledged.wrapping_sub(has_connected.into()),
        }
    }

    /// Whether one end understands what is meant for the other one, and the programs understand both.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.0[OPTIONS], other.0[OPTIONS]);
        let same = |option| ours & option == theirs & option;
        let none = |option| (ours | theirs) & option == 0;
        // Each side's own scale and the other end's.
        let turned = other.0[SCALES].rotate_left(4);
        ours & theirs & TIMESTAMPS != 0
            && same(SELECTIVE)
            && same(SCALED)
            && none(CONGESTION)
            && none(MICROSECONDS)
            && self.0[SCALES] == turned
    }

    /// By how many bits the windows are shifted that the end is told.
    pub(super) fn scale(&self) -> u32 {
        let scales = self.0[SCALES];
        let own = if cfg!(target_endian = "little") { scales >> 4 } else { scales & 0xf };
        if self.0[OPTIONS] & SCALED == 0 { 0 } else { own.into() }
    }

    /// The lower half of a number of eight bytes.
    fn low_word(&self, offset: usize) -> u32 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[offset..offset + 8]);
        u64::from_ne_bytes(bytes) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[test]
    fn both_sides_of_a_connection_count_its_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        client.write_all(b"four").unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
        server.write_all(b"and six").unwrap();
        client.read_exact(&mut [0; 7]).unwrap();
        let standing = |socket: &TcpStream, has_connected| Information::of(socket).unwrap().standing(has_connected);
        let wanted = [
            (&client, true, Standing { received: 7, sent: 4, acknowledged: 4 }),
            (&server, false, Standing { received: 4, sent: 7, acknowledged: 7 }),
        ];
        // The last acknowledgement may be late.
        let deadline = Instant::now() + Duration::from_secs(10);
        for (socket, has_connected, standing_then) in wanted {
            while standing(socket, has_connected) != standing_then {
                assert!(Instant::now() < deadline, "{:?}", standing(socket, has_connected));
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let [client, server] = [&client, &server].map(|socket| Information::of(socket).unwrap());
        assert!(client.agrees_with(&server) && server.agrees_with(&client));
    }
}
