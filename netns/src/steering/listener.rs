//! The listening socket.

use crate::{Error, Namespace, Result};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;

/// How many connections can wait to be accepted, as far as `net.core.somaxconn` allows: enough for a second without a
/// proxy at the rate that one thread accepts.
pub(crate) const BACKLOG: i32 = 16_384;

/// Below every range that outgoing connections take their ports from (`ip_local_port_range` cannot start below
/// `ip_unprivileged_port_start`, 1024), and above the well-known services: what rresvport(3) uses.
const PORTS: RangeInclusive<u16> = 512..=1023;

/// Makes a listening socket inside the namespace. A transparent one accepts connections to addresses that it is not
/// bound to, which TPROXY demands.
pub(super) fn open(namespace: &Namespace, transparent: bool) -> Result<TcpListener> {
    let error = |action, cause| Error::Listener { action, namespace: namespace.label().to_owned(), cause };
    namespace.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
            .map_err(|cause| error("make a listening socket", cause))?;
        if transparent {
            socket
                .set_ip_transparent_v4(true)
                .map_err(|cause| error("make the listening socket transparent", cause))?;
        }
        bind_to_free_port(&socket).map_err(|cause| error("bind the listening socket to a port below 1024", cause))?;
        socket.listen(BACKLOG).map_err(|cause| error("listen", cause))?;
        Ok(socket.into())
    })?
}

fn bind_to_free_port(socket: &Socket) -> io::Result<()> {
    let mut result = Err(io::ErrorKind::AddrInUse.into());
    for port in PORTS.rev() {
        result = socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into());
        if !matches!(&result, Err(cause) if cause.kind() == io::ErrorKind::AddrInUse) {
            break;
        }
    }
    result
}
