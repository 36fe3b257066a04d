//! A real daemon for a test, and the ways to talk to it.

pub(crate) mod exposition;
pub(crate) mod schema;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Long enough for everything that should happen, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon on a run directory of its own. Ended when dropped.
pub(crate) struct Daemon {
    child: Child,
    run_dir: TempDir,
}

impl Daemon {
    /// A running daemon that answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// The same with more arguments and environment variables.
    pub(crate) fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), arguments, environment)
    }

    /// The same on a run directory that another daemon may have used.
    pub(crate) fn start_on(run_dir: TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program("ringlb"));
        command.arg("--run-dir").arg(run_dir.path()).arg("daemon").args(arguments).stdin(Stdio::null());
        command.envs(environment.iter().copied());
        ringlb_netns::isolate::end_with_parent(&mut command);
        let mut daemon = Self { child: command.spawn().unwrap(), run_dir };
        wait_until("the daemon is ready", || {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {ended:?}");
            UnixStream::connect(daemon.socket()).is_ok() && daemon.http("GET", "/readyz", None).status == 200
        });
        daemon
    }

    pub(crate) fn run_dir(&self) -> &Path {
        self.run_dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir().join("admin.sock")
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends one request on a connection of its own.
    pub(crate) fn http(&self, method: &str, path: &str, body: Option<&str>) -> Response {
        let headers = body.map_or("", |_| "Content-Type: application/json\r\n");
        self.http_with(method, path, headers, body.unwrap_or_default().as_bytes())
    }

    /// The same with these header lines.
    pub(crate) fn http_with(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        exchange(&mut stream, method, path, headers, body)
    }

    /// A request that must be done; gives what it answers.
    pub(crate) fn done(&self, method: &str, path: &str, body: Option<&str>) -> Value {
        let response = self.http(method, path, body);
        assert!((200..300).contains(&response.status), "{method} {path}: {response:?}");
        response.body
    }

    pub(crate) fn apply(&self, yaml: &str) -> Response {
        self.http_with("POST", "/v1/apply", "Content-Type: application/yaml\r\n", yaml.as_bytes())
    }

    pub(crate) fn status(&self) -> Value {
        self.done("GET", "/v1/status", None)
    }

    /// The status of the only network.
    pub(crate) fn network(&self) -> Value {
        self.status()["networks"][0].clone()
    }

    /// The process of the only network's proxy.
    pub(crate) fn proxy_pid(&self) -> Option<i32> {
        Some(i32::try_from(self.network()["proxy"]["pid"].as_i64()?).unwrap())
    }

    /// The process of that network's proxy.
    pub(crate) fn proxy_pid_of(&self, network: &str) -> i32 {
        let status = self.status();
        let networks = status["networks"].as_array().unwrap();
        let network = networks.iter().find(|entry| entry["name"] == network).unwrap();
        i32::try_from(network["proxy"]["pid"].as_i64().unwrap()).unwrap()
    }

    /// Runs `ringlb` on this daemon.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(program("ringlb")).arg("--run-dir").arg(self.run_dir()).args(arguments).output().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for its end; gives its exit code and the run directory.
    pub(crate) fn wait(mut self) -> (Option<i32>, TempDir) {
        let code = wait_for_end(&mut self.child);
        let run_dir = std::mem::replace(&mut self.run_dir, tempfile::tempdir().unwrap());
        (code, run_dir)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal(Signal::SIGTERM);
            wait_for_end(&mut self.child);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    /// A text that is not JSON is here as a string.
    pub(crate) body: Value,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// Sends one request on `stream` and reads the answer.
pub(crate) fn exchange(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Response {
    let length = if headers.contains("Transfer-Encoding") || headers.contains("Content-Length") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let host = if headers.contains("Host:") { "" } else { "Host: ringlb\r\n" };
    let head = format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}{length}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // A server that refuses a body need not read it.
    let _ = stream.write_all(body);
    read_response(stream)
}

pub(crate) fn read_response(stream: &mut impl Read) -> Response {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length =
        headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let is_text = headers.iter().any(|(name, value)| name == "content-type" && value.starts_with("text/plain"));
    let body = match body {
        body if body.is_empty() => Value::Null,
        body if is_text => Value::String(String::from_utf8(body).unwrap()),
        body => serde_json::from_slice(&body).unwrap(),
    };
    Response { status, headers, body }
}

/// Sends one request over TCP, for that address unless the headers say otherwise.
pub(crate) fn http_tcp(address: &str, method: &str, path: &str, headers: &str) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {address}\r\n") };
    exchange(&mut stream, method, path, &format!("{host}{headers}"), b"")
}

/// A program of this workspace, built beside the tests.
pub(crate) fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.is_file(), "{} is missing: build it with `cargo build --bins`", path.display());
    path
}

/// Stops a process in the middle of whatever it does, and waits until it stands still.
pub(crate) fn pause(process: Pid) {
    kill(process, Signal::SIGSTOP).unwrap();
    wait_until("the process stands still", || {
        std::fs::read_dir(format!("/proc/{process}/task")).unwrap().all(|task| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            status.lines().any(|line| line.starts_with("State:") && line.contains('T'))
        })
    });
}

pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for_end(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("process {} does not end", child.id());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
