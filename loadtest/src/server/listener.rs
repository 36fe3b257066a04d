//! Accepting connections.

use super::connection::{self, Shared};
use crate::{LoadError, uring};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_uring::net::TcpListener;

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// tokio-uring has no multishot accept: so many accept operations wait at a time, so that one turn of the loop takes
/// as many connections of a burst.
const ACCEPTS: usize = 8;
/// How long to wait after a failed accept: the usual reason, no free descriptor, does not pass at once.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Listens on `address` and serves what comes, as tasks of this thread's runtime. Returns the address listened on.
pub(super) fn start(address: SocketAddr, shared: &Rc<Shared>) -> Result<SocketAddr, LoadError> {
    let failed = |source| LoadError::Listen { address, source };
    let listener = TcpListener::from_std(listen(address).map_err(failed)?.into());
    let bound = listener.local_addr().map_err(failed)?;
    let listener = Rc::new(listener);
    for _ in 0..ACCEPTS {
        tokio_uring::spawn(accept(Rc::clone(&listener), Rc::clone(shared)));
    }
    Ok(bound)
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

async fn accept(listener: Rc<TcpListener>, shared: Rc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio_uring::spawn(connection::serve(stream, Rc::clone(&shared)));
            }
            // The client gave up while it waited.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => {
                shared.counters().accept_failures.fetch_add(1, Ordering::Relaxed);
                uring::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}
