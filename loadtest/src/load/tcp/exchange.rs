//! Bytes that are to come back as they were sent.

use super::connection::{Connection, Doing, RECEIVING, SENDING};
use crate::failure::Failure;
use crate::pattern;
use std::time::Instant;

/// The largest piece that is received at a time.
const MAX_PIECE: u64 = 64 * 1024;

/// Sends `size` bytes of the pattern from `start` on, and checks that the same come back. Returns when the first did.
/// `buffer` is to receive into.
pub(super) async fn exchange(
    connection: &Connection,
    start: u64,
    size: u64,
    buffer: &mut Vec<u8>,
    doing: &Doing,
) -> Result<Instant, Failure> {
    doing.set(SENDING);
    let send = async {
        let mut sent = 0;
        while sent < size {
            sent += connection.send_pattern(start.wrapping_add(sent), size - sent).await?;
        }
        doing.set(RECEIVING);
        Ok(())
    };
    // Both at once: a large request does not fit into the buffers on the way, and its answer must be taken meanwhile.
    let ((), first_byte) = tokio::try_join!(send, receive(connection, start, size, buffer))?;
    Ok(first_byte)
}

async fn receive(connection: &Connection, start: u64, size: u64, buffer: &mut Vec<u8>) -> Result<Instant, Failure> {
    let mut received = 0;
    let mut first_byte = None;
    loop {
        buffer.clear();
        // One more than the answer has, so that an answer that is too long shows.
        buffer.reserve(usize::try_from(size.min(MAX_PIECE)).unwrap_or_default() + 1);
        *buffer = connection.receive(std::mem::take(buffer)).await?;
        if buffer.is_empty() {
            return Err(Failure::UnexpectedEnd { doing: RECEIVING, received });
        }
        let first = *first_byte.get_or_insert_with(Instant::now);
        if let Some(index) = pattern::first_difference(start.wrapping_add(received), buffer) {
            return Err(Failure::Mismatch { doing: RECEIVING, position: received + index as u64 });
        }
        received += buffer.len() as u64;
        if received > size {
            return Err(Failure::Mismatch { doing: RECEIVING, position: size });
        }
        if received == size {
            return Ok(first);
        }
    }
}
