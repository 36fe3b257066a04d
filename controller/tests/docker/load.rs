//! A steady load of short requests for as long as a scenario lasts.

use ringlb_netns::Namespace;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// By when a request must be answered: no client that people use waits less.
const DEADLINE: Duration = Duration::from_secs(5);

/// New connections at a constant rate, whether or not earlier ones have been answered. Each asks for the server's name.
pub(crate) struct SteadyLoad {
    ending: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: JoinHandle<Record>,
}

/// What became of the requests.
pub(crate) struct Record {
    pub(crate) requests: Vec<Request>,
    begun: Instant,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) begun: Instant,
    /// The same moment, to compare with events.
    pub(crate) time: SystemTime,
    pub(crate) took: Duration,
    /// Who answered, or why nobody did.
    pub(crate) result: Result<String, io::Error>,
}

impl SteadyLoad {
    /// So many connections a second from inside a namespace.
    pub(crate) fn start(from: &Namespace, target: SocketAddr, rate: u32) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let (from, end, count) = (from.clone(), Arc::clone(&ending), Arc::clone(&answered));
        let thread = std::thread::spawn(move || {
            from.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(run(target, rate, &end, &count))
            })
            .unwrap()
        });
        Self { ending, answered, thread }
    }

    /// How many requests have been answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets the requests that are under way come to their ends.
    pub(crate) fn stop(self) -> Record {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn run(target: SocketAddr, rate: u32, ending: &AtomicBool, answered: &Arc<AtomicU64>) -> Record {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut open = JoinSet::new();
    let mut requests = Vec::new();
    while !ending.load(Ordering::Relaxed) {
        ticks.tick().await;
        let answered = Arc::clone(answered);
        open.spawn(async move {
            let (begun, time) = (Instant::now(), SystemTime::now());
            let late = |_| io::Error::from(io::ErrorKind::TimedOut);
            let result = tokio::time::timeout(DEADLINE, ask(target)).await.map_err(late).flatten();
            if result.is_ok() {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Request { begun, time, took: begun.elapsed(), result }
        });
        while let Some(request) = open.try_join_next() {
            requests.push(request.unwrap());
        }
    }
    requests.extend(open.join_all().await);
    requests.sort_by_key(|request| request.begun);
    Record { requests, begun }
}

async fn ask(target: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(b"ID\n").await?;
    let mut name = String::new();
    stream.read_to_string(&mut name).await?;
    match name.strip_suffix('\n') {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("no name in {name:?}"))),
    }
}

impl Record {
    pub(crate) fn failures(&self) -> Vec<&Request> {
        self.requests.iter().filter(|request| request.result.is_err()).collect()
    }

    /// How often each server answered.
    pub(crate) fn servers(&self) -> BTreeMap<&str, usize> {
        let mut servers = BTreeMap::new();
        for request in &self.requests {
            if let Ok(name) = &request.result {
                *servers.entry(name.as_str()).or_default() += 1;
            }
        }
        servers
    }

    /// When that server's first answer came.
    pub(crate) fn first_answer_of(&self, server: &str) -> Option<SystemTime> {
        let answers = self.requests.iter().filter(|request| request.result.as_ref().is_ok_and(|name| name == server));
        answers.map(|request| request.time + request.took).min()
    }

    /// Every request must have been answered.
    #[track_caller]
    pub(crate) fn assert_no_failure(&self) {
        assert!(self.failures().is_empty(), "{self}");
        assert!(!self.requests.is_empty());
    }
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures = self.failures();
        let mut took: Vec<Duration> = self.requests.iter().map(|request| request.took).collect();
        took.sort();
        let at = |share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1)));
        let slow = took.iter().filter(|took| **took > Duration::from_millis(500)).count();
        write!(out, "{} requests, {} failed, {} servers", self.requests.len(), failures.len(), self.servers().len())?;
        write!(out, ", median {:?}, 99 % {:?}, longest {:?}, {slow} over 500 ms", at(50), at(99), took.last())?;
        for failure in failures.iter().take(20) {
            let (after, took) = (failure.begun.duration_since(self.begun), failure.took);
            write!(out, "\n  begun at {after:?}, failed after {took:?}: {:?}", failure.result)?;
        }
        Ok(())
    }
}
