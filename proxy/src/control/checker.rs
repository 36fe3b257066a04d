//! One health check.

use super::settings::HealthCheck;
use nix::errno::Errno;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How much of an answer is looked at: what is expected must be in its first bytes.
const MOST_READ: usize = 4096;

/// Connects to the backend, from this proxy's sandbox, and exchanges what is to be exchanged. `None` if this host could not:
/// that says nothing of the backend.
pub(super) async fn check(address: IpAddr, check: &HealthCheck) -> Option<bool> {
    match tokio::time::timeout(check.timeout.0, exchange(address, check)).await {
        Ok(Ok(passed)) => Some(passed),
        Ok(Err(error)) if is_ours(&error) => None,
        Ok(Err(_)) | Err(_) => Some(false),
    }
}

async fn exchange(address: IpAddr, check: &HealthCheck) -> io::Result<bool> {
    let mut stream = TcpStream::connect(SocketAddr::new(address, check.port.0)).await?;
    stream.write_all(check.send.0.as_bytes()).await?;
    let expected = check.expect.0.as_bytes();
    let mut answer = Vec::new();
    // A text is found where it begins at any place; the empty one always.
    while !expected.is_empty() && !answer.windows(expected.len()).any(|part| part == expected) {
        if answer.len() >= MOST_READ || stream.read_buf(&mut answer).await? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether descriptors, memory or source ports are short here.
fn is_ours(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EADDRNOTAVAIL | Errno::EAGAIN)
    )
}
