//! Accepting connections.

use super::connection;
use super::shared::Shared;
use crate::uring;
use socket2::Socket;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_uring::net::TcpListener;

/// tokio-uring has no multishot accept: so many accept operations wait at a time, so that one turn of the loop takes
/// as many connections of a burst.
const ACCEPTS: usize = 8;
/// How long to wait after a failed accept: the usual reason, no free descriptor, does not pass at once.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Serves what comes to a listening socket, as tasks of this thread's runtime.
pub(super) fn start(socket: Socket, shared: &Rc<Shared>) {
    let listener = Rc::new(TcpListener::from_std(socket.into()));
    for _ in 0..ACCEPTS {
        tokio_uring::spawn(accept(Rc::clone(&listener), Rc::clone(shared)));
    }
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
                shared.counters.accept_failures.fetch_add(1, Ordering::Relaxed);
                uring::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}
