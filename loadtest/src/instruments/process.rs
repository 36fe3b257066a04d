//! The programs that a benchmark starts.

use super::BenchError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_netns::{Namespace, isolate};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of what a program wrote goes into a message.
const SAID: usize = 4096;

/// A running program. Ended when dropped; it does not outlive the thread that started it, either.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    program: String,
    log: PathBuf,
}

impl Process {
    /// Starts the command, in the namespace if there is one. What it writes goes to `log`.
    pub(crate) fn start(command: &mut Command, namespace: Option<&Namespace>, log: &Path) -> Result<Self, BenchError> {
        let program = name_of(command);
        let file = File::create(log).map_err(BenchError::file("create", log))?;
        let also = file.try_clone().map_err(BenchError::file("open", log))?;
        if let Some(namespace) = namespace {
            namespace.enter_on_exec(command)?;
        }
        isolate::end_with_parent(command);
        let child = command.stdin(Stdio::null()).stdout(file).stderr(also).spawn();
        match child {
            Ok(child) => Ok(Self { child, program, log: log.to_owned() }),
            Err(source) => Err(BenchError::Program { attempted: "start", program, source }),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Whether it has ended within that time once it was told to end in order.
    pub(crate) fn ends_within(&mut self, patience: Duration) -> bool {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + patience;
        while !self.has_ended() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Waits until the condition holds.
    pub(crate) fn wait_until(&mut self, what: &str, condition: impl Fn() -> bool) -> Result<(), BenchError> {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            if self.has_ended() || Instant::now() >= deadline {
                return Err(self.misbehaved(format!("did not {what}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it has written.
    pub(crate) fn said(&self) -> String {
        let said = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&said[said.len().saturating_sub(SAID)..]).into_owned()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // One that has ended needs none.
        let _ = kill(self.pid(), signal);
    }

    /// Waits until it ends by itself; kills it if it takes too long.
    pub(crate) fn wait(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// That it did not do its part, with what it has said.
    pub(crate) fn misbehaved(&self, failed: String) -> BenchError {
        BenchError::Misbehaved { program: self.program.clone(), failed, said: self.said() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal(Signal::SIGTERM);
        }
        self.wait();
    }
}

/// Runs a command to its end and returns what it wrote, both streams.
pub(crate) fn output(command: &mut Command) -> Result<String, BenchError> {
    let program = name_of(command);
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(source) => return Err(BenchError::Program { attempted: "run", program, source }),
    };
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        Ok(said)
    } else {
        Err(BenchError::Misbehaved { program, failed: format!("ended with {}", output.status), said })
    }
}

fn name_of(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_before_it_ends_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut process = Process::start(Command::new("sh").args(["-c", "echo no such luck"]), None, &log).unwrap();
        let error = process.wait_until("serve", || false).unwrap_err().to_string();
        assert!(error.contains("sh did not serve") && error.contains("no such luck"), "{error}");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start(Command::new("sleep").arg("1000"), None, &directory.path().join("log")).unwrap();
        let pid = process.pid();
        drop(process);
        assert!(kill(pid, None).is_err());
    }

    #[test]
    fn a_failed_command_tells_why() {
        assert_eq!(output(Command::new("echo").arg("yes")).unwrap(), "yes\n");
        let error = output(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("broken"), "{error}");
        let error = output(&mut Command::new("/nonexistent/program")).unwrap_err().to_string();
        assert!(error.contains("cannot run program"), "{error}");
    }
}
