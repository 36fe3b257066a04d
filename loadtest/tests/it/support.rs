//! What the tests share.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_load::{Load, LoadOptions, Report, Server, ServerHandle, ServerOptions, Workload};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine, shorter than a test runner's patience.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn server(name: &str) -> ServerHandle {
    Server::start(ServerOptions::new(name.parse().unwrap())).unwrap()
}

pub(crate) fn options(servers: &[&ServerHandle], workload: Workload) -> LoadOptions {
    LoadOptions::new(servers.iter().map(|server| server.addresses()[0]).collect(), workload)
}

pub(crate) fn run(options: LoadOptions) -> Report {
    Load::start(options).unwrap().join().unwrap()
}

/// A client connection that fails a test instead of hanging it.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

pub(crate) fn read_exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process's children, and theirs.
pub(crate) fn descendants(pid: Pid) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<_> = lists
        .flat_map(|list| list.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect::<Vec<_>>())
        .collect();
    children.iter().copied().chain(children.iter().flat_map(|child| descendants(*child))).collect()
}

/// Kills a program, which has started these processes; all of them are to end by that.
pub(crate) fn kill_with_all_it_started(mut program: Child, started: &[Pid]) {
    kill(Pid::from_raw(program.id().cast_signed()), Signal::SIGKILL).unwrap();
    program.wait().unwrap();
    wait_until("no process is left", || started.iter().all(|pid| kill(*pid, None).is_err()));
}

/// Runs a program that is to refuse its arguments, and to name one of them; nothing is to be made at `output`.
pub(crate) fn is_refused(program: &mut Command, named: &str, output: &Path) {
    let refused = program.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{program:?}: {said}");
    assert!(said.contains(named), "{program:?}: {said}");
    assert!(!output.exists());
}

/// A server that does whatever a test wants, each connection on a thread.
pub(crate) struct Misbehaving {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Misbehaving {
    pub(crate) fn start(behave: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ending = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ending);
        let behave = Arc::new(behave);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let behave = Arc::clone(&behave);
                // The client may be gone; what it made of the connection is what the test looks at.
                std::thread::spawn(move || behave(stream));
            }
        });
        Self { address, ending, thread: Some(thread) }
    }

    pub(crate) fn options(&self, workload: Workload) -> LoadOptions {
        LoadOptions::new(vec![self.address], workload)
    }
}

impl Drop for Misbehaving {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Reads a client's command and answers with a name.
pub(crate) fn open(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
    }
    stream.write_all(b"misbehaving\n")
}

/// Closes with a reset.
pub(crate) fn reset(stream: TcpStream) -> std::io::Result<()> {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// A client's socket for datagrams that fails a test instead of hanging it.
pub(crate) fn datagram_client(target: SocketAddr) -> UdpSocket {
    let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(target).unwrap();
    socket
}

/// Sends a datagram and returns its answer.
#[track_caller]
pub(crate) fn ask(client: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    assert_eq!(client.send(datagram).unwrap(), datagram.len());
    let mut answer = vec![0; 65_536];
    let length = client.recv(&mut answer).unwrap();
    answer.truncate(length);
    answer
}

/// A UDP server that does whatever a test wants with each datagram.
pub(crate) struct MisbehavingUdp {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MisbehavingUdp {
    /// `behave` gets the socket, the datagram and its client.
    pub(crate) fn start(mut behave: impl FnMut(&UdpSocket, &mut [u8], SocketAddr) + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let ending = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).unwrap();
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                behave(&socket, &mut buffer[..length], client);
            }
        });
        Self { address, ending, thread: Some(thread) }
    }

    pub(crate) fn options(&self, workload: Workload) -> LoadOptions {
        LoadOptions::new(vec![self.address], workload)
    }
}

impl Drop for MisbehavingUdp {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // Wakes the thread that receives.
        let wake = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"end", self.address));
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            // A test that fails already is not to end the process by a second failure.
            if !std::thread::panicking() {
                wake.unwrap();
                result.unwrap();
            }
        }
    }
}
