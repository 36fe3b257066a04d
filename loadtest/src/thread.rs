//! Threads with something to do first.

use crate::LoadError;
use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Called first on a new thread, before it makes any socket.
pub(crate) type Prepare = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A thread that was started.
pub(crate) struct Started<T> {
    /// The thread.
    pub(crate) thread: JoinHandle<()>,
    /// Gives its result, once.
    pub(crate) result: mpsc::Receiver<Result<T, LoadError>>,
}

/// Starts a thread that calls `prepare` and then `body`, and sends its result.
/// `what` names it, in errors and in `ps -L`.
pub(crate) fn start<T: Send + 'static>(
    what: &'static str,
    prepare: Prepare,
    body: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<Started<T>, LoadError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("ringlb-{what}"))
        .spawn(move || {
            let result = prepare().map_err(|source| LoadError::Prepare { what, source }).and_then(|()| body());
            // A receiver that is gone does not want the result.
            let _ = sender.send(result);
        })
        .map_err(|source| LoadError::Thread { what, source })?;
    Ok(Started { thread, result: receiver })
}
