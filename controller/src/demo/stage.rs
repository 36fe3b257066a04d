//! What the demo plays on: a daemon, containers, backends. All of it in namespaces of the demo's own.

use super::DemoError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_netns::{Namespace, isolate};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that the demo started. Killed when dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts the program; it does not outlive the demo, however that ends.
    fn start(command: &mut Command, name: &str) -> Result<Self, DemoError> {
        isolate::end_with_parent(command);
        let child = command.stdin(Stdio::null()).spawn().map_err(|source| DemoError::Program {
            name: name.to_owned(),
            attempted: "start",
            source,
        })?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Ends it at once, as a crash would.
    pub(super) fn kill(mut self) -> Result<(), DemoError> {
        self.child.kill().and_then(|()| self.child.wait().map(drop)).map_err(|source| DemoError::Program {
            name: self.name.clone(),
            attempted: "kill",
            source,
        })
    }

    /// Asks it to end and waits until it has.
    pub(super) fn end(mut self) -> Result<(), DemoError> {
        let failed = |source| DemoError::Program { name: self.name.clone(), attempted: "end", source };
        let pid = i32::try_from(self.child.id()).map_err(|_| failed(std::io::ErrorKind::InvalidInput.into()))?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|errno| failed(errno.into()))?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().map_err(failed)?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(failed(std::io::ErrorKind::TimedOut.into()))
    }

    /// Whether it has ended by itself.
    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a daemon and waits until it listens on its admin socket.
pub(super) fn start_daemon(run_dir: &Path, log: &Path) -> Result<Running, DemoError> {
    let own = own_program()?;
    let failed = |source| DemoError::Program { name: "the daemon".into(), attempted: "start", source };
    let log_file = File::create(log).map_err(failed)?;
    let mut command = Command::new(own);
    command.arg("--run-dir").arg(run_dir).arg("daemon");
    command.stdout(Stdio::null()).stderr(log_file);
    let mut daemon = Running::start(&mut command, "the daemon")?;
    let deadline = Instant::now() + PATIENCE;
    while std::os::unix::net::UnixStream::connect(run_dir.join("admin.sock")).is_err() {
        if daemon.has_ended() || Instant::now() >= deadline {
            return Err(DemoError::Daemon { log: std::fs::read_to_string(log).unwrap_or_default() });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(daemon)
}

/// Starts a server of that name on port 80 of the namespace and waits until it listens.
pub(super) fn start_backend(namespace: &Namespace, name: &str) -> Result<Running, DemoError> {
    let program = own_program()?.with_file_name("ringlb-load");
    let mut command = Command::new(program);
    command.args(["serve", "--listen", "0.0.0.0:80", "--id", name]).stdout(Stdio::piped());
    namespace.enter_on_exec(&mut command)?;
    let mut backend = Running::start(&mut command, name)?;
    let mut line = String::new();
    if let Some(output) = backend.child.stdout.take() {
        let failed = |source| DemoError::Program { name: name.to_owned(), attempted: "hear of", source };
        BufReader::new(output).read_line(&mut line).map_err(failed)?;
    }
    if line.starts_with("listening") {
        Ok(backend)
    } else {
        Err(DemoError::Program {
            name: name.to_owned(),
            attempted: "start",
            source: std::io::Error::other(format!("it said `{}` instead of that it listens", line.trim())),
        })
    }
}

fn own_program() -> Result<PathBuf, DemoError> {
    std::env::current_exe().map_err(|source| DemoError::Program { name: "ringlb".into(), attempted: "find", source })
}
