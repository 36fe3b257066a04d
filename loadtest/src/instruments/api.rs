//! Requests to ringlb's API over its admin socket: one connection, one request at a time, and no work beside it, as its
//! time is what is measured.

use super::BenchError;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use serde_json::Value;
use std::hint::spin_loop;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longer than any answer to a small change takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two looks for an answer, in turns of a loop: about a microsecond. The daemon's answer has to pass the
/// socket's locks, too.
const PAUSE: u32 = 50;

/// Its end of the socket.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    patience: Duration,
    /// Whether an answer is waited for without sleeping.
    is_awake: bool,
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.is_awake {
            return self.stream.read(buffer);
        }
        let begun = Instant::now();
        loop {
            match recv(self.stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) if begun.elapsed() < self.patience => (0..PAUSE).for_each(|_| spin_loop()),
                received => return Ok(received?),
            }
        }
    }
}

/// A connection to the API.
#[derive(Debug)]
pub(crate) struct Api {
    stream: BufReader<Connection>,
    socket: PathBuf,
    request: Vec<u8>,
    line: String,
    body: Vec<u8>,
    received: u64,
}

impl Api {
    /// Connects.
    pub(crate) fn connect(socket: &Path) -> Result<Self, BenchError> {
        Self::connect_patiently(socket, PATIENCE)
    }

    /// Connects; an answer may take so long.
    pub(crate) fn connect_patiently(socket: &Path, patience: Duration) -> Result<Self, BenchError> {
        let connect = || {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(patience))?;
            Ok(BufReader::new(Connection { stream, patience, is_awake: false }))
        };
        let stream = connect().map_err(BenchError::file("connect to", socket))?;
        let socket = socket.to_owned();
        Ok(Self { stream, socket, request: Vec::new(), line: String::new(), body: Vec::new(), received: 0 })
    }

    /// From now on an answer is waited for without sleeping. What it costs the daemon to wake a sleeping processor is then not
    /// in its CPU time: in a virtual machine that is more than all else that its answer needs, or nothing, as the host sees fit.
    pub(crate) fn stay_awake(&mut self) {
        self.stream.get_mut().is_awake = true;
    }

    /// Makes a request that is to succeed.
    pub(crate) fn done(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<(), BenchError> {
        self.done_with(method, path, &body.map(Value::to_string).unwrap_or_default())
    }

    /// The same with a body that is JSON text already.
    pub(crate) fn done_with(&mut self, method: &str, path: &str, body: &str) -> Result<(), BenchError> {
        self.ask(method, path, body)?;
        self.answered()
    }

    /// Makes a request, whose answer is to be awaited by [`Self::answered`] before the next one is made.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(), BenchError> {
        self.send(method, path, body).map_err(BenchError::file("ask", &self.socket))
    }

    /// Waits for the answer to the last request, which is to succeed.
    pub(crate) fn answered(&mut self) -> Result<(), BenchError> {
        let status = self.receive().map_err(BenchError::file("hear", &self.socket))?;
        if (200..300).contains(&status) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&self.body).into_owned();
        let request = String::from_utf8_lossy(&self.request);
        let request = request.split(" HTTP/").next().unwrap_or_default();
        let failed = format!("answered {request} with status {status}");
        Err(BenchError::Misbehaved { program: "ringlb".to_owned(), failed, said })
    }

    /// How many bytes the answers had, heads and all.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> io::Result<()> {
        self.request.clear();
        write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nHost: ringlb\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        self.stream.get_mut().stream.write_all(&self.request)
    }

    /// The status; the body is in its place.
    fn receive(&mut self) -> io::Result<u16> {
        let status = self.read_line()?.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| invalid("an answer without a status"))?;
        let mut length = 0;
        loop {
            let line = self.read_line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(|_| invalid("an answer without a length"))?;
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        self.received += length as u64;
        Ok(status)
    }

    /// Without its end.
    fn read_line(&mut self) -> io::Result<&str> {
        self.line.clear();
        match self.stream.read_line(&mut self.line)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => self.received += length as u64,
        }
        Ok(self.line.trim_end())
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A server that gives these answers, one for each request, and returns the requests.
    fn serve(socket: &Path, answers: &'static [&'static str]) -> std::thread::JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut requests = Vec::new();
            for answer in answers {
                let mut buffer = [0; 1000];
                let length = stream.read(&mut buffer).unwrap();
                requests.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            requests
        })
    }

    #[test]
    fn requests_follow_each_other_on_one_connection() {
        for awake in [false, true] {
            follow_each_other(awake);
        }
    }

    #[test]
    fn no_answer_is_waited_for_in_vain() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for awake in [false, true] {
            let mut api = Api::connect_patiently(&socket, Duration::from_millis(50)).unwrap();
            if awake {
                api.stay_awake();
            }
            assert!(api.done("GET", "/a", None).unwrap_err().to_string().contains("hear"));
        }
    }

    fn follow_each_other(awake: bool) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let server = serve(
            &socket,
            &[
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
                "HTTP/1.1 404 Not Found\r\nx: y\r\nContent-Length: 7\r\n\r\nnothing",
                "HTTP/1.1 204 No Content\r\n\r\n",
            ],
        );
        let mut api = Api::connect(&socket).unwrap();
        if awake {
            api.stay_awake();
        }
        api.done("PUT", "/a", Some(&serde_json::json!({"b": 1}))).unwrap();
        let error = api.done("GET", "/c", None).unwrap_err().to_string();
        assert!(error.contains("GET /c with status 404") && error.contains("nothing"), "{error}");
        api.done("DELETE", "/d", None).unwrap();
        let requests = server.join().unwrap();
        assert!(requests[0].starts_with("PUT /a HTTP/1.1\r\n") && requests[0].ends_with("\r\n\r\n{\"b\":1}"));
        assert!(requests[2].starts_with("DELETE /d HTTP/1.1\r\n"));
        assert_eq!(api.received(), 40 + 58 + 27);
        assert!(api.done("GET", "/gone", None).is_err());
    }
}
