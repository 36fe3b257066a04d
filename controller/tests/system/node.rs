//! A node with a real daemon, networks and containers, in namespaces of the test's own.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_load::{Load, LoadHandle, LoadOptions, Server, ServerHandle, ServerOptions};
use ringlb_netns::Namespace;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Long enough for everything that should happen, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon with a run directory of its own. Ended when dropped.
pub(crate) struct Node {
    pub(crate) daemon: Process,
    pub(crate) run_dir: tempfile::TempDir,
    number: u32,
}

/// A container: a namespace that is attached to a network.
#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) namespace: Namespace,
    pub(crate) address: IpAddr,
}

/// A child process, killed when dropped.
pub(crate) struct Process(pub(crate) Child);

static NODES: AtomicU32 = AtomicU32::new(0);

impl Node {
    /// A running daemon.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A running daemon with these arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let run_dir = tempfile::tempdir().unwrap();
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let daemon = Self::start_daemon(run_dir.path(), arguments);
        Self { daemon, run_dir, number }
    }

    /// Starts a daemon and waits until it answers.
    pub(crate) fn start_daemon(run_dir: &Path, arguments: &[&str]) -> Process {
        Self::start_daemon_logging(run_dir, arguments, Stdio::inherit())
    }

    pub(crate) fn start_daemon_logging(run_dir: &Path, arguments: &[&str], log: Stdio) -> Process {
        let daemon = Self::spawn_daemon(run_dir, arguments, log);
        wait_until("the daemon answers", || UnixStream::connect(run_dir.join("admin.sock")).is_ok());
        daemon
    }

    /// Starts a daemon and does not wait for it.
    pub(crate) fn spawn_daemon(run_dir: &Path, arguments: &[&str], log: Stdio) -> Process {
        let mut command = Command::new(program("ringlb"));
        Process::spawn(command.arg("--run-dir").arg(run_dir).arg("daemon").args(arguments).stderr(log))
    }

    /// A node with one network `net`, 10.0.0.0/16 with VIPs from 10.0.192.0/18.
    pub(crate) fn with_network() -> Self {
        let node = Self::start();
        node.ringlb(&["network", "create", "net", "--subnet", "10.0.0.0/16"]);
        node
    }

    /// A node with one network `net` of these subnets.
    pub(crate) fn with_subnets(subnets: &[&str]) -> Self {
        let node = Self::start();
        node.create_network(subnets);
        node
    }

    /// The network `net` of these subnets.
    pub(crate) fn create_network(&self, subnets: &[&str]) {
        let subnets = subnets.iter().flat_map(|subnet| ["--subnet", subnet]);
        self.ringlb(&["network", "create", "net"].into_iter().chain(subnets).collect::<Vec<_>>());
    }

    /// Runs `ringlb --json`, which must succeed; gives what it says.
    pub(crate) fn ringlb(&self, arguments: &[&str]) -> Value {
        let output = self.try_ringlb(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ringlb {arguments:?}: {error}");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    pub(crate) fn try_ringlb(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("ringlb"));
        command.arg("--run-dir").arg(self.run_dir.path()).arg("--json").args(arguments);
        command.output().unwrap()
    }

    /// A service `name` on network `net`.
    pub(crate) fn service(&self, name: &str, vip: IpAddr, algorithm: &str, backends: &[&Container]) {
        let vip = vip.to_string();
        self.ringlb(&["service", "create", "net", name, "--vip", &vip, "--algorithm", algorithm]);
        for backend in backends {
            self.ringlb(&["backend", "add", "net", name, &backend.address.to_string()]);
        }
    }

    /// A namespace that is attached to network `net` as 10.0.0.`last`.
    pub(crate) fn container(&self, last: u8) -> Container {
        self.container_at(last, &[&format!("10.0.0.{last}")])
    }

    /// A namespace that is attached to network `net` with these addresses; the first one is the container's address.
    pub(crate) fn container_at(&self, number: u8, addresses: &[&str]) -> Container {
        self.container_on("net", number, addresses)
    }

    /// The same on another network. The number is the namespace's, whatever the network.
    pub(crate) fn container_on(&self, network: &str, number: u8, addresses: &[&str]) -> Container {
        let path = self.container_path(number);
        let namespace = Namespace::create(path.trim_start_matches("/run/netns/")).unwrap();
        let name = format!("container-{number}");
        let arguments = ["attach", network, &name, "--netns", &path].into_iter();
        let addresses_given = addresses.iter().flat_map(|address| ["--ip", address]);
        self.ringlb(&arguments.chain(addresses_given).collect::<Vec<_>>());
        Container { namespace, address: addresses[0].parse().unwrap() }
    }

    /// Where the namespace of that container is.
    pub(crate) fn container_path(&self, last: u8) -> String {
        format!("/run/netns/test-{}-{last}", self.number)
    }

    /// An open connection to the admin socket.
    pub(crate) fn admin(&self) -> Admin {
        Admin::connect(&self.run_dir.path().join("admin.sock"))
    }

    /// The process id of the proxy of network `net`.
    pub(crate) fn proxy_pid(&self) -> i32 {
        let status = self.ringlb(&["status"]);
        let pid = find(&status, "proxy").and_then(|proxy| proxy["pid"].as_i64());
        i32::try_from(pid.unwrap_or_else(|| panic!("no proxy in {status:#}"))).unwrap()
    }

    /// How many connections the proxy of network `net` has.
    pub(crate) fn active(&self) -> u64 {
        let status = self.ringlb(&["status"]);
        find(&status, "connections")
            .and_then(|connections| connections["active"].as_u64())
            .unwrap_or_else(|| panic!("{status:#}"))
    }

    /// The namespaces that this node's daemon made.
    pub(crate) fn sandbox(&self) -> Namespace {
        let names = Namespace::list().unwrap();
        let name = names.iter().find(|name| name.ends_with("-net-lb"));
        Namespace::open(name.unwrap_or_else(|| panic!("no sandbox in {names:?}"))).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A clean end, so that the proxies end too.
        self.daemon.signal(Signal::SIGTERM);
        self.daemon.wait();
    }
}

impl Container {
    /// Runs `work` inside.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work).unwrap()
    }

    pub(crate) fn listen(&self, port: u16) -> TcpListener {
        self.run(|| TcpListener::bind((IpAddr::from([0, 0, 0, 0]), port)).unwrap())
    }

    pub(crate) fn connect(&self, target: SocketAddr) -> TcpStream {
        let stream = self.run(|| TcpStream::connect(target).unwrap());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// An echo server that can name itself.
    pub(crate) fn serve(&self, name: &str, port: u16) -> ServerHandle {
        let mut options = ServerOptions::new(name.parse().unwrap());
        options.listen = vec![SocketAddr::from(([0, 0, 0, 0], port))];
        self.serve_with(options)
    }

    pub(crate) fn serve_with(&self, options: ServerOptions) -> ServerHandle {
        self.run(|| Server::start(options).unwrap())
    }

    pub(crate) fn load(&self, options: LoadOptions) -> LoadHandle {
        self.run(|| Load::start(options).unwrap())
    }

    /// What starts a program inside, with nothing to read.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        self.namespace.enter_on_exec(&mut command).unwrap();
        command
    }

    /// A process inside.
    pub(crate) fn spawn(&self, program: &str, arguments: &[&str]) -> Process {
        Process::spawn(self.command(program, arguments).stdout(Stdio::null()))
    }

    /// Runs a program inside to its end; it must succeed. Gives what it printed.
    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        finish(&mut self.command(program, arguments))
    }

    /// Its interface on the network.
    pub(crate) fn interface(&self) -> String {
        let links = String::from_utf8(self.output("ip", &["-o", "link", "show", "type", "veth"])).unwrap();
        links.split([' ', '@']).nth(1).unwrap_or_else(|| panic!("{links}")).to_owned()
    }

    /// Waits until something listens on the TCP port inside. Nothing connects to it: there are programs that serve one
    /// client only, and would take this for it.
    pub(crate) fn wait_for_port(&self, port: u16) {
        wait_until(&format!("something listens on port {port}"), || self.run(|| listens(port)));
    }
}

/// Whether the calling thread's namespace has a listener of that port: its local address and its state are the second and
/// the fourth column (proc(5), /proc/net/tcp), and the state of a listener is 0A (`TCP_LISTEN`, tcp_states.h).
fn listens(port: u16) -> bool {
    let port = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let sockets = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
        sockets.lines().any(|socket| {
            let columns: Vec<_> = socket.split_whitespace().collect();
            columns.get(1).is_some_and(|local| local.ends_with(&port)) && columns.get(3) == Some(&"0A")
        })
    })
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        ringlb_netns::isolate::end_with_parent(command);
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            kill(Pid::from_raw(self.pid()), signal).unwrap();
        }
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            if Instant::now() >= deadline {
                let _ = self.0.kill();
                panic!("process {} does not end", self.pid());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command to its end; it must succeed. Gives what it printed.
pub(crate) fn finish(command: &mut Command) -> Vec<u8> {
    ringlb_netns::isolate::end_with_parent(command);
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said} {}", String::from_utf8_lossy(&output.stdout));
    output.stdout
}

/// HTTP over the admin socket, one connection for many requests.
pub(crate) struct Admin(BufReader<UnixStream>);

impl Admin {
    pub(crate) fn connect(socket: &Path) -> Self {
        Self::try_connect(socket).unwrap()
    }

    /// The same, where there may be no daemon.
    pub(crate) fn try_connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request, gives status and body.
    pub(crate) fn request(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.try_request(method, path, body).unwrap()
    }

    /// The same, where the daemon may end meanwhile.
    pub(crate) fn try_request(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
        self.try_send(method, path, body)?;
        self.try_answer()
    }

    /// Sends a request, and leaves its answer to [`Self::answer`].
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &str) {
        self.try_send(method, path, body).unwrap();
    }

    /// Waits for the answer of the request that was sent last, gives status and body.
    pub(crate) fn answer(&mut self) -> (u16, String) {
        self.try_answer().unwrap()
    }

    fn try_send(&mut self, method: &str, path: &str, body: &str) -> io::Result<()> {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: ringlb\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        self.0.get_mut().write_all((head + body).as_bytes())
    }

    fn try_answer(&mut self) -> io::Result<(u16, String)> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(status) = line.split(' ').nth(1).and_then(|code| code.parse().ok()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, line));
        };
        let mut length = 0;
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body).unwrap()))
    }

    /// Asks for something that must be there.
    pub(crate) fn get(&mut self, path: &str) -> Value {
        let (status, answer) = self.request("GET", path, "");
        assert_eq!(status, 200, "GET {path}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// Sends a request that must succeed.
    pub(crate) fn done(&mut self, method: &str, path: &str, body: &str) {
        let (status, answer) = self.request(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    }
}

/// A program of this workspace, next to the one under test.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_ringlb")).with_file_name(name);
    assert!(path.exists(), "{} is missing: `make test` builds it", path.display());
    path
}

/// A counter of a protocol in a namespace (proc(5), /proc/net/snmp).
pub(crate) fn snmp_counter(namespace: &Namespace, protocol: &str, name: &str) -> u64 {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap()).unwrap();
    let begins = format!("{protocol}:");
    let mut lines = text.lines().filter(|line| line.starts_with(&begins)).map(str::split_whitespace);
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let (_, value) = names.zip(values).find(|(each, _)| *each == name).unwrap_or_else(|| panic!("{name}: {text}"));
    value.parse().unwrap()
}

pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, condition);
}

pub(crate) fn wait_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The first value of that key, at any depth.
pub(crate) fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|inner| find(inner, key))),
        Value::Array(list) => list.iter().find_map(|inner| find(inner, key)),
        _ => None,
    }
}
