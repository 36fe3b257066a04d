//! ringlb's daemon on a node, in the node's network namespace and a mount namespace that is not the Engine's.

use crate::admin::Admin;
use crate::engine::Engine;
use crate::image::program;
use crate::leftovers::{self, MARK};
use crate::wait::{finish, wait_until, wait_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Ended, with all its proxies, when dropped.
pub(crate) struct Daemon {
    child: Child,
    run_dir: PathBuf,
    log: PathBuf,
    admin: Admin,
}

impl Daemon {
    /// Starts a daemon with the node's Engine as its source, without waiting for it. On a node where one was before it
    /// gets the same run directory.
    pub(crate) fn start(engine: &Engine) -> Self {
        Self::start_with(engine, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(engine: &Engine, arguments: &[&str]) -> Self {
        let run_dir = Self::run_dir_of(engine);
        let log = engine.machine.directory.join("ringlb.log");
        let written = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]).arg(program("ringlb"));
        command.arg("--run-dir").arg(&run_dir).arg("daemon");
        command.arg("--source").arg(format!("docker=unix://{}", engine.socket().display())).args(arguments);
        command.stdin(Stdio::null()).stdout(written.try_clone().unwrap()).stderr(written);
        command.env(MARK, format!("{} {}", std::process::id(), run_dir.display()));
        engine.machine.namespace.enter_on_exec(&mut command).unwrap();
        ringlb_netns::isolate::end_with_parent(&mut command);
        let admin = Admin::of(&run_dir);
        Self { child: command.spawn().unwrap(), run_dir, log, admin }
    }

    /// Waits until it answers. Gives how long that took.
    pub(crate) fn wait_until_it_answers(&mut self) -> Duration {
        wait_within(Duration::from_secs(30), "the daemon answers", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended, {ended:?}: {}", self.log());
            self.admin.answers()
        })
    }

    pub(crate) fn status(&self) -> Value {
        self.admin.status()
    }

    /// What `ringlb` prints for such a command, which must succeed.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        finish(Command::new(program("ringlb")).arg("--run-dir").arg(&self.run_dir).args(arguments))
    }

    /// The status of the network of that name.
    pub(crate) fn network(&self, name: &str) -> Option<Value> {
        self.admin.network(name)
    }

    /// The proxy's process of each network that has one, by the network's name.
    pub(crate) fn proxies(&self) -> Vec<(String, i64)> {
        self.admin.proxies()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it with SIGKILL. Its proxies go on.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // What it left is for the next daemon.
        std::mem::forget(self);
    }

    /// Runs `ringlb cleanup --json` for a daemon of that node, there; gives whether it succeeded, what it says, and its errors.
    pub(crate) fn clean_up(engine: &Engine, arguments: &[&str]) -> (bool, Value, String) {
        Self::clean_up_on(engine, &Self::run_dir_of(engine), arguments)
    }

    /// The same for a run directory.
    pub(crate) fn clean_up_on(engine: &Engine, run_dir: &Path, arguments: &[&str]) -> (bool, Value, String) {
        let mut command = Command::new(program("ringlb"));
        command.arg("--run-dir").arg(run_dir).args(["--json", "cleanup"]).args(arguments);
        engine.machine.namespace.enter_on_exec(&mut command).unwrap();
        let output = command.output().unwrap();
        let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.success(), report, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The run directory of a daemon on that node.
    pub(crate) fn run_dir_of(engine: &Engine) -> PathBuf {
        engine.machine.directory.join("ringlb")
    }

    /// Ends it with SIGTERM, which must succeed.
    pub(crate) fn end(mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let mut status = None;
        wait_until("the daemon ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{status:?}: {}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("log of the daemon on {}:\n{}", self.run_dir.display(), self.log());
            if self.admin.answers() {
                println!("its status:\n{:#}", self.status());
            }
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        leftovers::kill_of_run_directory(&self.run_dir);
    }
}
