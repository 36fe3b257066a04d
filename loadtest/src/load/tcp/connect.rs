//! Short connections: connect, ask who answers, or send bytes that are to come back, close.

use super::connection::{ASKING, Connection, Doing, NAME};
use super::exchange::exchange;
use crate::failure::Failure;
use crate::load::backoff::Backoff;
use crate::load::run::Run;
use crate::pattern::{self, split_mix};
use crate::protocol::{Command, MAX_NAME, NameLine, parse_name_line};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

/// A name's line and one byte more, so that a longer answer shows.
const ANSWER: usize = MAX_NAME + 2;

/// Does requests until there are none left: with a size, bytes that are to come back, and else the question for the name.
pub(in crate::load) async fn work(run: Rc<Run>, size: Option<u64>) {
    let mut backoff = Backoff::new(&run.options);
    let doing = Doing::new("");
    let mut buffer = Vec::with_capacity(ANSWER);
    while let Some(arrival) = run.arrivals.next().await {
        let begun = Instant::now();
        let (target, address) = run.target(arrival.index);
        let timeout = run.options.timeout;
        let request = async {
            match size {
                None => ask(&run, address, &mut buffer, &doing).await,
                Some(size) => echo(&run, address, arrival.index, size, &mut buffer, &doing).await,
            }
        };
        let result = tokio::time::timeout(timeout, request).await;
        match result.unwrap_or(Err(Failure::Timeout { doing: doing.get(), after: timeout })) {
            Ok(answer) => {
                run.succeeded(target, arrival, begun, answer.name, answer.first_byte);
                backoff.succeeded();
            }
            Err(failure) => {
                run.failed(target, None, &failure);
                backoff.failed().await;
            }
        }
    }
}

struct Answer<'a> {
    /// Of the one that answered, if it was asked.
    name: Option<&'a str>,
    first_byte: Instant,
}

/// A new connection, whose time to connect is recorded.
async fn open(run: &Run, address: SocketAddr, doing: &Doing) -> Result<Connection, Failure> {
    let begun = Instant::now();
    let connection = Connection::open(address, run.options.source, doing).await?;
    run.recorder.lock().connected(begun.elapsed());
    Ok(connection)
}

/// The client closes first, as soon as all has come back.
async fn echo<'a>(
    run: &Run,
    address: SocketAddr,
    index: u64,
    size: u64,
    buffer: &'a mut Vec<u8>,
    doing: &Doing,
) -> Result<Answer<'a>, Failure> {
    let connection = open(run, address, doing).await?;
    let start = beyond_commands(split_mix(index));
    let first_byte = exchange(&connection, start, size, buffer, doing).await?;
    run.recorder.lock().moved(size, size);
    Ok(Answer { name: None, first_byte })
}

/// The first position from this one on where the pattern does not begin as a command could: the server is not asked for
/// anything, and does not wait for more bytes to find out.
fn beyond_commands(position: u64) -> u64 {
    let mut position = position;
    while pattern::chunk(position, 1).first().is_some_and(u8::is_ascii_uppercase) {
        position = position.wrapping_add(1);
    }
    position
}

async fn ask<'a>(
    run: &Run,
    address: SocketAddr,
    buffer: &'a mut Vec<u8>,
    doing: &Doing,
) -> Result<Answer<'a>, Failure> {
    let connection = open(run, address, doing).await?;
    doing.set(ASKING);
    let request = Command::Identify.line();
    let sent = request.len() as u64;
    connection.send(request).await?;
    doing.set(NAME);
    buffer.clear();
    // An earlier request that was given up may have left its buffer with the kernel.
    buffer.reserve(ANSWER);
    let mut first_byte = None;
    // To the end: a server that does not close, or resets instead, has not done its part.
    loop {
        let before = buffer.len();
        *buffer = connection.receive(std::mem::take(buffer)).await?;
        if buffer.len() == before {
            break;
        }
        first_byte.get_or_insert_with(Instant::now);
        if buffer.len() >= ANSWER {
            break;
        }
    }
    let received = buffer.len() as u64;
    run.recorder.lock().moved(sent, received);
    match (parse_name_line(buffer), first_byte) {
        (NameLine::Name { name, length }, Some(first_byte)) if length == buffer.len() => {
            Ok(Answer { name: Some(name), first_byte })
        }
        (NameLine::Name { length, .. }, _) => Err(Failure::Mismatch { doing: NAME, position: length as u64 }),
        (NameLine::Invalid(index), _) => Err(Failure::Mismatch { doing: NAME, position: index as u64 }),
        (NameLine::Undecided, _) => Err(Failure::UnexpectedEnd { doing: NAME, received }),
    }
}
