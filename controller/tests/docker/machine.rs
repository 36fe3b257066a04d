//! A node as Docker sees it: a network, mount, process and host name namespace of its own.

mod booted;

use crate::leftovers;
use crate::wait::PATIENCE;
use crate::wire::Wire;
use nix::unistd::Pid;
use ringlb_netns::Namespace;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The first process in the machine's process namespace. All others there end with it, and it ends when the test does:
/// then its standard input ends. The shell collects the orphans that become its children.
///
/// The Engine keeps some paths under `/run/docker` whatever it is told, and asks for the kernel's modules.
const FIRST_PROCESS: &str = r#"mount -t tmpfs none /run/docker && hostname "$0" && echo ready && read -r _"#;

/// Everything on it ends when it is dropped, and when the test's process ends.
pub(crate) struct Machine {
    /// Its host name too.
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    /// A directory of its own.
    pub(crate) directory: PathBuf,
    /// `unshare`, which ends with it.
    unshare: Child,
    /// In whose namespaces everything on it runs.
    first_process: Pid,
}

impl Machine {
    /// The machine of that number (1 to 253) on the wire.
    pub(crate) fn start(wire: &Wire, number: u8) -> Self {
        Self::start_with(wire, number, FIRST_PROCESS)
    }

    /// Starts it with a script that writes `ready` when it is.
    fn start_with(wire: &Wire, number: u8, script: &str) -> Self {
        let name = format!("node-{}-{number}", wire.number);
        let namespace = Namespace::create(&name).unwrap();
        wire.connect(number, &name);
        let directory = Path::new("/run/ringlb-test-docker").join(&name);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::create_dir_all("/run/docker").unwrap();
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        command.args(["bash", "-c", script, &name, &leftovers::control_group(&name)]);
        namespace.enter_on_exec(&mut command).unwrap();
        let mut unshare = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(unshare.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{name} does not start; this needs root");
        let first_process = child_of(unshare.id()).unwrap();
        Self { name, namespace, directory, unshare, first_process }
    }

    /// A command that runs on the machine. The process that it starts is the parent of the program's, whose end it waits for.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first_process.to_string(), "--mount", "--uts", "--pid", "--net", program]);
        command
    }

    /// Where a path of the machine is found from here.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.first_process)).join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The kernel ends its child with it, and all others in the namespace before that one is gone. It may have ended already.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let deadline = Instant::now() + PATIENCE;
        while is_running(self.first_process) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = Namespace::remove(&self.name);
        leftovers::remove_control_groups(&self.name);
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// The first child of a process (proc_pid_task(5)).
pub(crate) fn child_of(pid: u32) -> Option<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Some(Pid::from_raw(children.split(' ').next()?.parse().ok()?))
}
