//! A real proxy on loopback: the VIPs and the backends are addresses of 127.0.0.0/8, so that nothing has to be set up.
#![allow(dead_code, reason = "each test file uses its own part")]

use command_fds::{CommandFdExt, FdMapping};
use ringlb_proxy::control::frame::{MAX_PACKET, Reassembler, encode_in};
use ringlb_proxy::control::message::{
    Algorithm, BackendSpec, Change, Delta, Hello, PROTOCOL_VERSION, Reply, Request, ServiceSettings, ServiceSpec,
    Snapshot, Statistics,
};
use ringlb_proxy::control::settings::DrainTimeout;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Long enough for everything that should happen, on a busy machine too.
///
/// `RINGLB_TEST_SLOW`, set to anything but the empty string or `0`, says that this machine is an emulated one, tens of
/// times slower than a real one (see `scripts/test-kernel`): then deadlines are ten times as long, and [`bulk`] is smaller.
/// It changes nothing else: every test runs, and checks the same.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(if is_slow() { 200 } else { 20 })
}

/// How much to transfer where the amount itself is not the subject: `bytes`, or a tenth of it on a slow machine.
pub(crate) fn bulk(bytes: u64) -> u64 {
    if is_slow() { bytes / 10 } else { bytes }
}

fn is_slow() -> bool {
    std::env::var_os("RINGLB_TEST_SLOW").is_some_and(|value| !value.is_empty() && value != "0")
}

/// A proxy process. Killed when dropped.
pub(crate) struct Proxy {
    pub(crate) child: Child,
    pub(crate) target: SocketAddr,
    pub(crate) generation: u64,
    pub(crate) hello: Hello,
    pub(crate) control: Control,
    control_address: SockAddr,
    listeners: Vec<TcpListener>,
    directory: tempfile::TempDir,
}

/// The daemon's end of a control channel.
pub(crate) struct Control {
    pub(crate) socket: Socket,
    /// What it speaks.
    pub(crate) version: u16,
    reassembler: Reassembler,
}

/// How a test's proxy differs from others.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) arguments: Vec<&'static str>,
    pub(crate) descriptors: Option<u64>,
    /// A program and its arguments that runs it, and becomes it.
    pub(crate) under: Vec<String>,
    /// Where its access log goes; nowhere if there is nothing here.
    pub(crate) access_log: Option<std::fs::File>,
    /// What it accepts from, the target first; one listener of its own if there is none here.
    pub(crate) listeners: Vec<TcpListener>,
    /// What it receives datagrams from.
    pub(crate) datagrams: Vec<UdpSocket>,
}

impl Proxy {
    /// A proxy that serves one service, named `s`, whose VIP is the target's address.
    pub(crate) fn start(backends: &[BackendSpec]) -> Self {
        Self::start_with(&Options::default(), Algorithm::Rr, backends)
    }

    pub(crate) fn start_with(options: &Options, algorithm: Algorithm, backends: &[BackendSpec]) -> Self {
        let mut proxy = Self::start_without_table(options);
        proxy.snapshot(vec![service("s", proxy.target.ip(), algorithm, backends)]);
        proxy
    }

    /// A proxy that has not been told anything.
    pub(crate) fn start_without_table(options: &Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let control_address = SockAddr::unix(directory.path().join("control")).unwrap();
        let control_listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        control_listener.bind(&control_address).unwrap();
        control_listener.listen(8).unwrap();
        let mut listeners: Vec<_> = options.listeners.iter().map(|listener| listener.try_clone().unwrap()).collect();
        if listeners.is_empty() {
            listeners.push(listen(SocketAddr::from(([127, 0, 1, 1], 0))));
        }
        let target = listeners[0].local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringlb-proxy"));
        command.args(["--network", "test", "--control-fd", "3"]).args(&options.arguments);
        let mapping = |fd: OwnedFd, child_fd| FdMapping { parent_fd: fd, child_fd };
        let mut handed = vec![mapping(control_listener.into(), 3)];
        for (listener, child_fd) in listeners.iter().zip(4..) {
            handed.push(mapping(listener.try_clone().unwrap().into(), child_fd));
            command.args(["--listener-fd", &child_fd.to_string()]);
        }
        for (socket, child_fd) in options.datagrams.iter().zip(4 + listeners.len() as i32..) {
            handed.push(mapping(socket.try_clone().unwrap().into(), child_fd));
            command.args(["--datagram-fd", &child_fd.to_string()]);
        }
        if let Some(descriptors) = options.descriptors {
            // Through prlimit(1) of the child's own shell, so that no unsafe code is needed here.
            let program = env!("CARGO_BIN_EXE_ringlb-proxy");
            let mut limited = Command::new("sh");
            limited.arg("-c").arg(format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")).arg(program);
            limited.args(command.get_args());
            command = limited;
        }
        if let Some((program, arguments)) = options.under.split_first() {
            let mut outer = Command::new(program);
            outer.args(arguments).arg(command.get_program()).args(command.get_args());
            command = outer;
        }
        let access_log = options.access_log.as_ref().map_or_else(Stdio::null, |log| log.try_clone().unwrap().into());
        command.stdin(Stdio::null()).stdout(access_log).stderr(Stdio::piped());
        let mut starting = Starting(Some(command.fd_mappings(handed).unwrap().spawn().unwrap()));
        let mut control = Control::connect(&control_address);
        let Reply::Hello(hello) = control.receive() else { panic!("the proxy does not say hello") };
        let child = starting.0.take().unwrap();
        Self { child, target, generation: 0, hello, control, control_address, listeners, directory }
    }

    /// Leaves the process alone with its listeners.
    pub(crate) fn drop_listeners(&mut self) {
        self.listeners.clear();
    }

    /// Another control channel.
    pub(crate) fn connect_control(&self) -> Control {
        Control::connect(&self.control_address)
    }

    /// Where the control channels are connected to.
    pub(crate) fn control_address(&self) -> SockAddr {
        self.control_address.clone()
    }

    /// A connection to the VIP.
    pub(crate) fn connect(&self) -> TcpStream {
        self.try_connect().unwrap()
    }

    /// The same where the proxy may refuse. A reset can be seen by the first read as well as by the connect: that is
    /// what a client gets that was not scheduled between its handshake's end and the reset.
    pub(crate) fn try_connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.target)?;
        stream.set_read_timeout(Some(patience())).unwrap();
        stream.set_write_timeout(Some(patience())).unwrap();
        Ok(stream)
    }

    /// A connection to the VIP from that address.
    pub(crate) fn connect_from(&self, address: IpAddr) -> TcpStream {
        self.try_connect_from(address).unwrap()
    }

    /// The same where the proxy may refuse, as [`Self::try_connect`].
    pub(crate) fn try_connect_from(&self, address: IpAddr) -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.target), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(address, 0).into()).unwrap();
        socket.connect(&self.target.into())?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(patience())).unwrap();
        stream.set_write_timeout(Some(patience())).unwrap();
        Ok(stream)
    }

    pub(crate) fn snapshot(&mut self, services: Vec<ServiceSpec>) {
        self.generation += 1;
        let services = services.into_iter().map(Arc::new).collect();
        self.expect_acknowledged(&Request::Snapshot(Snapshot { generation: self.generation, services }));
    }

    pub(crate) fn change(&mut self, changes: Vec<Change>) {
        self.generation += 1;
        let delta = Delta { from: self.generation - 1, to: self.generation, changes };
        self.expect_acknowledged(&Request::Delta(delta));
    }

    pub(crate) fn put_backend(&mut self, backend: BackendSpec) {
        self.change(vec![Change::PutBackend { service: "s".into(), backend }]);
    }

    pub(crate) fn remove_backend(&mut self, address: IpAddr) {
        self.change(vec![Change::RemoveBackend { service: "s".into(), address }]);
    }

    fn expect_acknowledged(&mut self, request: &Request) {
        let reply = self.request(request);
        assert_eq!(reply, Reply::Acknowledged { generation: self.generation });
    }

    pub(crate) fn request(&mut self, request: &Request) -> Reply {
        self.control.send(request);
        self.control.receive()
    }

    pub(crate) fn statistics(&mut self) -> Statistics {
        match self.request(&Request::Statistics) {
            Reply::Statistics(statistics) => *statistics,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the statistics are as wanted.
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Statistics) -> bool) -> Statistics {
        let deadline = Instant::now() + patience();
        loop {
            let statistics = self.statistics();
            if wanted(&statistics) {
                return statistics;
            }
            assert!(Instant::now() < deadline, "waited in vain until {what}: {statistics:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Anonymous memory in KiB.
    pub(crate) fn anonymous_memory(&self) -> u64 {
        self.status("RssAnon").trim_end_matches(" kB").trim().parse().unwrap()
    }

    /// What the kernel says of the process under that name (proc_pid_status(5)).
    pub(crate) fn status(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let mut fields = status.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| *field == name).map(|(_, value)| value.trim().to_owned()).unwrap()
    }

    /// Sends `Shutdown`, waits for the end; gives the exit code and what was logged.
    pub(crate) fn shut_down(mut self) -> (Option<i32>, String) {
        self.control.send(&Request::Shutdown);
        let status = wait_for_exit(&mut self.child);
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status.code(), log)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A proxy that has not said hello yet, and perhaps never does.
struct Starting(Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(end);
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
    if std::thread::panicking() {
        let mut log = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.read_to_string(&mut log);
        }
        println!("the proxy said: {log}");
    }
}

impl Control {
    pub(crate) fn connect(address: &SockAddr) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(patience())).unwrap();
        Self { socket, version: PROTOCOL_VERSION, reassembler: Reassembler::default() }
    }

    pub(crate) fn send(&mut self, request: &Request) {
        for packet in encode_in(self.version, request).unwrap() {
            self.socket.send(&packet).unwrap();
        }
    }

    pub(crate) fn receive(&mut self) -> Reply {
        let mut packet = vec![0; MAX_PACKET];
        loop {
            let length = (&self.socket).read(&mut packet).unwrap();
            assert!(length > 0, "the control channel was closed");
            if let Some(reply) = self.reassembler.push(&packet[..length]).unwrap() {
                return reply;
            }
        }
    }

    /// The version of what was received last.
    pub(crate) fn heard_version(&self) -> u16 {
        self.reassembler.version()
    }

    /// Whether the proxy has closed the channel.
    pub(crate) fn is_closed(&self) -> bool {
        let mut packet = vec![0; MAX_PACKET];
        loop {
            match (&self.socket).read(&mut packet) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

pub(crate) fn wait_for_exit(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the proxy does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn service(name: &str, vip: IpAddr, algorithm: Algorithm, backends: &[BackendSpec]) -> ServiceSpec {
    ServiceSpec {
        name: name.into(),
        vips: vec![vip],
        settings: ServiceSettings { algorithm, drain_timeout: DrainTimeout(None), ..ServiceSettings::default() },
        published: Vec::new(),
        backends: backends.to_vec(),
    }
}

/// Backend number `n` of a test: 127.0.2.n.
pub(crate) fn backend(n: u8) -> BackendSpec {
    BackendSpec { address: address(n), weight: 1, draining: false, backup: false, local: false }
}

pub(crate) fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 2, n))
}

pub(crate) fn listen(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(1024).unwrap();
    socket.into()
}

/// So many listeners on one port of that address, over which the kernel spreads connections.
pub(crate) fn listen_as_group(address: IpAddr, count: usize) -> Vec<TcpListener> {
    let mut port = 0;
    let listen = |_| {
        let socket = Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&SocketAddr::new(address, port).into()).unwrap();
        socket.listen(1024).unwrap();
        let listener = TcpListener::from(socket);
        port = listener.local_addr().unwrap().port();
        listener
    };
    (0..count).map(listen).collect()
}

/// Serves every connection to backend `n` on a thread of its own.
pub(crate) fn serve(n: u8, port: u16, handler: impl Fn(TcpStream) + Send + Sync + 'static) {
    let listener = listen(SocketAddr::new(address(n), port));
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let handler = Arc::clone(&handler);
            std::thread::spawn(move || handler(stream));
        }
    });
}

/// Sends everything back until the client has said that it is done.
pub(crate) fn echo(mut stream: TcpStream) {
    let mut copy = stream.try_clone().unwrap();
    let _ = std::io::copy(&mut stream, &mut copy);
    let _ = copy.shutdown(std::net::Shutdown::Write);
}

/// The bytes of a test stream from `position`, so that a loss or a swap shows.
pub(crate) fn pattern(position: u64, buffer: &mut [u8]) {
    for (offset, byte) in (position..).zip(buffer) {
        *byte = (offset.wrapping_mul(31) ^ (offset >> 8) ^ (offset >> 17)) as u8;
    }
}

/// Writes `total` bytes of the pattern.
pub(crate) fn write_pattern(stream: &mut TcpStream, total: u64) -> std::io::Result<()> {
    use std::io::Write;
    let mut buffer = vec![0; 64 * 1024];
    let mut position = 0;
    while position < total {
        let length = usize::try_from((total - position).min(buffer.len() as u64)).unwrap();
        pattern(position, &mut buffer[..length]);
        stream.write_all(&buffer[..length])?;
        position += length as u64;
    }
    Ok(())
}

/// Reads to the end and checks the pattern; gives the number of bytes.
pub(crate) fn read_pattern(stream: &mut TcpStream) -> std::io::Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut expected = vec![0; 64 * 1024];
    let mut position = 0;
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(position);
        }
        pattern(position, &mut expected[..length]);
        assert!(buffer[..length] == expected[..length], "bytes differ after {position}");
        position += length as u64;
    }
}

/// Sends `total` bytes of the pattern and says that it is done, and meanwhile reads what comes back, to the end; gives how
/// much that was.
pub(crate) fn exchange_pattern(stream: &mut TcpStream, total: u64) -> std::io::Result<u64> {
    let mut writer = stream.try_clone()?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            write_pattern(&mut writer, total).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        read_pattern(stream)
    })
}

/// Closes with a reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}
