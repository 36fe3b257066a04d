//! Redis, with its own benchmark and command line as clients.

use super::{Stage, VIP, text};
use crate::node::{Container, Process};
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};

const PORT: u16 = 6379;
const COMMANDS: [&str; 4] = ["set", "get", "lpush", "incr"];

/// Two servers that know nothing of each other, and what they keep.
pub(super) struct Redis {
    _servers: [Process; 2],
    _directory: tempfile::TempDir,
}

impl Redis {
    pub(super) fn start(stage: &Stage) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, port) = (directory.path().to_str().unwrap(), PORT.to_string());
        // It keeps nothing: no snapshots. Without a password it would serve loopback alone, but for protected-mode.
        let arguments = ["--port", &port, "--dir", path, "--save", "", "--protected-mode", "no"];
        let servers = stage.backends.each_ref().map(|backend| {
            let server = backend.spawn("redis-server", &arguments);
            backend.wait_for_port(PORT);
            server
        });
        Self { _servers: servers, _directory: directory }
    }
}

/// redis-cli through the VIP, or to `host`.
fn ask(client: &Container, host: &str, arguments: &[&str]) -> String {
    text(client.output("redis-cli", &[&["-h", host], arguments].concat()))
}

/// A line of one of the server's reports.
fn report(stage: &Stage, backend: usize, section: &str, name: &str) -> Option<String> {
    let said = ask(&stage.backends[backend], "127.0.0.1", &["info", section]);
    said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
}

/// redis-benchmark over many connections: every command is answered, as the servers count them too.
pub(super) fn benchmark(stage: &Stage) {
    const REQUESTS: u64 = 20_000;
    let total = REQUESTS.to_string();
    for (pipeline, size) in [("1", "3"), ("16", "3"), ("16", "2000")] {
        let tests = COMMANDS.join(",");
        let arguments = ["-h", VIP, "-n", &total, "-c", "50", "-P", pipeline, "-d", size, "-t", &tests, "--csv"];
        // It ends with status 1 at the first error, of a connection or in an answer.
        let said = text(stage.client.output("redis-benchmark", &arguments));
        assert_eq!(said.lines().count(), 1 + COMMANDS.len(), "{said}");
    }
    for command in COMMANDS {
        let calls = [0, 1].map(|backend| {
            let said = report(stage, backend, "commandstats", &format!("cmdstat_{command}")).unwrap_or_default();
            let field = |name: &str| {
                let value = said.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
                value.and_then(|value| value.parse::<u64>().ok()).unwrap_or_else(|| panic!("{command}: {said}"))
            };
            assert_eq!((field("rejected_calls"), field("failed_calls")), (0, 0), "{command}: {said}");
            field("calls")
        });
        assert!(calls[0] > 0 && calls[1] > 0 && calls[0] + calls[1] == 3 * REQUESTS, "{command}: {calls:?}");
    }
}

/// A client that waits for messages.
pub(super) struct Subscriber {
    _process: Process,
    output: BufReader<ChildStdout>,
}

impl Subscriber {
    /// Subscribed when this returns.
    pub(super) fn start(stage: &Stage) -> Self {
        let mut command = stage.client.command("redis-cli", &["-h", VIP, "subscribe", "news"]);
        let mut process = Process::spawn(command.stdout(Stdio::piped()));
        let output = BufReader::new(process.0.stdout.take().unwrap());
        let mut subscriber = Self { _process: process, output };
        assert_eq!(subscriber.lines(), ["subscribe", "news", "1"]);
        subscriber
    }

    /// The next message's lines. Waits for them; the test's own time limit ends a wait in vain.
    fn lines(&mut self) -> [String; 3] {
        [(); 3].map(|()| {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        })
    }

    /// A message that is published through the VIP arrives. The subscriber is known to one of the two servers only, so it
    /// is published twice, on connections that take turns.
    pub(super) fn assert_hears(&mut self, stage: &Stage, message: &str) {
        let published = [(); 2].map(|()| ask(&stage.client, VIP, &["publish", "news", message]).trim().to_owned());
        assert!(published == ["0", "1"] || published == ["1", "0"], "receivers: {published:?}");
        assert_eq!(self.lines(), ["message", "news", message]);
    }
}
