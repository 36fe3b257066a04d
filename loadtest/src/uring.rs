//! What tokio-uring 0.5 does not offer by itself: connecting a socket that was prepared before (bound to an address,
//! with options), precise timers, appending to a buffer.
//!
//! A future of tokio-uring that is dropped does not cancel its operation: the kernel keeps it, and with it the socket,
//! until it completes. Whoever gives up on an operation shuts the socket down, which completes every operation on it.

use crate::LoadError;
use io_uring::types::{Fd, Timespec};
use io_uring::{cqueue, opcode};
use socket2::SockAddr;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

/// Submission entries: enough to hand over what one turn of the loop produces in few calls.
const SUBMISSION_ENTRIES: u32 = 1024;
/// Completion entries: completions that do not fit are kept by the kernel, at the price of a slower path.
const COMPLETION_ENTRIES: u32 = 16 * 1024;

/// Runs `future` on a new tokio-uring runtime of this thread.
pub(crate) fn run<F: Future>(future: F) -> Result<F::Output, LoadError> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_single_issuer().setup_coop_taskrun().setup_cqsize(COMPLETION_ENTRIES);
    let mut builder = tokio_uring::builder();
    builder.entries(SUBMISSION_ENTRIES).uring_builder(&ring);
    let runtime = tokio_uring::Runtime::new(&builder).map_err(|source| LoadError::Ring { source })?;
    Ok(runtime.block_on(future))
}

/// Connects `socket` to `target`.
pub(crate) async fn connect(socket: Rc<TcpStream>, target: SocketAddr) -> io::Result<()> {
    let descriptor = Fd(socket.as_raw_fd());
    // Boxed: the kernel reads it at an address that must not change when this future moves.
    let address = Box::new(SockAddr::from(target));
    let entry = opcode::Connect::new(descriptor, address.as_ptr().cast(), address.len()).build();
    result_of(UnsubmittedOneshot::new((socket, address), Raw::default(), entry).submit().await)
}

/// Sleeps for `duration`. tokio's own timers are only good to a millisecond.
pub(crate) async fn sleep(duration: Duration) {
    let duration = Box::new(Timespec::from(duration));
    let entry = opcode::Timeout::new(&raw const *duration).build();
    // The result is always "timer expired".
    UnsubmittedOneshot::new(duration, Raw::default(), entry).submit().await;
}

/// Lets everything else on this thread have its turn. A task that only yielded to tokio, again and again, would keep
/// operations from being handed to the kernel, which tokio-uring does when the thread has nothing else to do.
pub(crate) async fn turn() {
    UnsubmittedOneshot::new((), Raw::default(), opcode::Nop::new().build()).submit().await;
}

/// Reads once, to the end of what `buffer` holds. The buffer must have room: a read of nothing looks like the end.
pub(crate) async fn read_more(stream: &TcpStream, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
    let filled = buffer.len();
    if filled == buffer.capacity() {
        return (Err(io::Error::new(io::ErrorKind::InvalidInput, "a read into a full buffer")), buffer);
    }
    let (result, slice) = stream.read(buffer.slice(filled..)).await;
    (result, slice.into_inner())
}

/// Gives an operation's plain result: what the system call would return.
struct Raw<T>(std::marker::PhantomData<T>);

impl<T> Default for Raw<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T> OneshotOutputTransform for Raw<T> {
    type Output = i32;
    type StoredData = T;

    fn transform_oneshot_output(self, _data: T, completion: cqueue::Entry) -> i32 {
        completion.result()
    }
}

fn result_of(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
