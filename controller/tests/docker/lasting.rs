//! Connections that last: each says something every 100 ms and must hear the same.

use crate::load::SteadyLoad;
use ringlb_netns::Namespace;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

const HEARTBEAT: Duration = Duration::from_millis(100);
/// How long an echo may take: stop and go of a task's last moments are no cut.
const DEADLINE: Duration = Duration::from_secs(5);

/// A set of lasting connections.
pub(crate) struct Lasting {
    stop: watch::Sender<bool>,
    connections: Vec<Connection>,
}

struct Connection {
    server: String,
    ended: Arc<Mutex<Option<End>>>,
    thread: JoinHandle<()>,
}

/// How and when a connection ended by itself.
#[derive(Debug, Clone)]
pub(crate) struct End {
    /// Whom it was with.
    pub(crate) server: String,
    pub(crate) time: SystemTime,
    pub(crate) reason: String,
}

impl Lasting {
    /// Opens connections from inside a namespace until each of these servers has at least so many.
    pub(crate) fn open(from: &Namespace, target: SocketAddr, servers: &[String], each: usize) -> Self {
        let (stop, _) = watch::channel(false);
        let mut lasting = Self { stop, connections: Vec::new() };
        for _ in 0..servers.len() * each * 4 {
            let counts = lasting.counts();
            if servers.iter().all(|server| counts.get(server).is_some_and(|count| *count >= each)) {
                return lasting;
            }
            let connection = Connection::open(from.clone(), target, lasting.stop.subscribe());
            lasting.connections.push(connection);
        }
        panic!("the servers {servers:?} have {:?}", lasting.counts());
    }

    /// How many connections each server got.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for connection in &self.connections {
            *counts.entry(connection.server.clone()).or_default() += 1;
        }
        counts
    }

    /// Those that have ended by themselves.
    pub(crate) fn ends(&self) -> Vec<End> {
        self.connections.iter().filter_map(|connection| connection.ended.lock().unwrap().clone()).collect()
    }

    /// Closes those that are left; gives those that have ended by themselves.
    pub(crate) fn close(self) -> Vec<End> {
        let ends = self.ends();
        let _ = self.stop.send(true);
        self.connections.into_iter().for_each(|connection| connection.thread.join().unwrap());
        ends
    }
}

/// Ends a scenario in which nobody may have noticed anything: no request failed, and no connection ended by itself.
#[track_caller]
pub(crate) fn end_undisturbed(loads: impl IntoIterator<Item = SteadyLoad>, lasting: impl IntoIterator<Item = Lasting>) {
    for load in loads {
        let record = load.stop();
        println!("{record}");
        record.assert_no_failure();
    }
    for lasting in lasting {
        let ends = lasting.close();
        assert!(ends.is_empty(), "{ends:?}");
    }
}

impl Connection {
    fn open(from: Namespace, target: SocketAddr, stopped: watch::Receiver<bool>) -> Self {
        let ended = Arc::new(Mutex::new(None));
        let (named, name) = std::sync::mpsc::channel();
        let end = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            from.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(last(target, &named, stopped, &end));
            })
            .unwrap();
        });
        let server = name.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no connection to {target}"));
        Self { server, ended, thread }
    }
}

async fn last(
    target: SocketAddr,
    named: &std::sync::mpsc::Sender<String>,
    mut stopped: watch::Receiver<bool>,
    ended: &Mutex<Option<End>>,
) {
    let mut stream = BufReader::new(TcpStream::connect(target).await.unwrap());
    stream.write_all(b"ECHO\n").await.unwrap();
    let mut server = String::new();
    stream.read_line(&mut server).await.unwrap();
    let server = server.trim().to_owned();
    // A test that has failed does not wait for it.
    let _ = named.send(server.clone());
    let reason = tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => return,
        reason = beat(&mut stream) => reason,
    };
    *ended.lock().unwrap() = Some(End { server, time: SystemTime::now(), reason });
}

/// Gives why it ended.
async fn beat(stream: &mut BufReader<TcpStream>) -> String {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    let mut echo = [0; 4];
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // Nothing is to come without having been asked for.
            result = stream.read(&mut echo) => return format!("between heartbeats: {result:?}"),
        }
        let exchange = async {
            stream.write_all(b"beat").await?;
            stream.read_exact(&mut echo).await
        };
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        if let Err(error) = tokio::time::timeout(DEADLINE, exchange).await.map_err(late).flatten() {
            return error.to_string();
        }
    }
}
