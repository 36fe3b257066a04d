//! The process at the other end of a control connection, whether it answers or not.

use super::proxy::Process;
use crate::model::Name;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{MsgFlags, getsockopt, recv};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

/// A proxy that is only known by its control socket.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) pid: i32,
    pub(super) process: Process,
}

impl Peer {
    /// The proxy of `network` that listens where `socket` is connected to. Proxies listen themselves, so that the kernel says
    /// which process it is (unix(7), `SO_PEERCRED`).
    pub(super) fn of(socket: &OwnedFd, network: &Name) -> Result<Self, String> {
        let unknown = |cause: &dyn std::fmt::Display| format!("cannot find out which process it is: {cause}");
        let pid = getsockopt(socket, PeerCredentials).map_err(|error| unknown(&error))?.pid();
        let number = Pid::from_raw(pid).ok_or_else(|| unknown(&"it is in another process namespace"))?;
        let process = pidfd_open(number, PidfdFlags::empty()).map_err(|error| unknown(&error))?;
        // Until the proxy has begun to listen it is the daemon that is named, whose number may be some other process's by now.
        if !is_proxy_of(pid, network) {
            return Err(unknown(&format_args!("process {pid} is no proxy of the network")));
        }
        // A connection that is still there was not closed by the end of the process, so the number was that process's.
        match recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err("it ended meanwhile".to_owned()),
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => {}
            Err(error) => return Err(unknown(&error)),
        }
        Process::adopted(process).map(|process| Self { pid, process }).map_err(|error| unknown(&error))
    }
}

fn is_proxy_of(pid: i32, network: &Name) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<_> = arguments.split(|byte| *byte == 0).collect();
    arguments.windows(2).any(|pair| pair[0] == b"--network" && pair[1] == network.as_bytes())
}
