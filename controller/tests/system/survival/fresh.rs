//! Fresh connections at a fixed rate, each with a byte that goes there and comes back.

use crate::node::Container;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a connection may take in all, lost packets included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Begins connections until it is stopped.
pub(super) struct Fresh {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Attempt>>>,
}

/// One connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) outcome: Result<(), ErrorKind>,
}

impl Fresh {
    /// Begins so many connections a second, as long as there are not more than `threads` of them open.
    pub(super) fn start(client: &Container, target: SocketAddr, per_second: u32, threads: u32) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let threads = (0..threads).map(|index| {
            let (stopped, client) = (Arc::clone(&stopped), client.clone());
            let pause = Duration::from_secs(1) / per_second;
            std::thread::spawn(move || {
                let mut attempts = Vec::new();
                client.run(|| {
                    for turn in 0.. {
                        let due = start + pause * (turn * threads + index);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        if stopped.load(Ordering::Relaxed) {
                            break;
                        }
                        attempts.push(Attempt::make(target));
                    }
                });
                attempts
            })
        });
        Self { threads: threads.collect(), stopped }
    }

    pub(super) fn stop(self) -> Vec<Attempt> {
        self.stopped.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

impl Attempt {
    /// Connects from the namespace that the thread is in.
    pub(super) fn make(target: SocketAddr) -> Self {
        let began = Instant::now();
        let outcome = exchange(target).map_err(|error| error.kind());
        Self { began, ended: Instant::now(), outcome }
    }
}

fn exchange(target: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}
