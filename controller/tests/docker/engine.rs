//! A Docker Engine on a machine of its own.

use crate::http;
use crate::image::{ENTRY_POINT, IMAGE, import_image};
use crate::leftovers::control_group;
use crate::machine::{Machine, child_of};
use crate::wait::{finish, wait_until};
use crate::wire::Wire;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_netns::Namespace;
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Ended with all its containers when dropped.
pub(crate) struct Engine {
    /// The number of its node.
    pub(crate) number: u8,
    pub(crate) machine: Machine,
    process: Option<Running>,
    /// On the machine.
    socket: PathBuf,
    exec_root: PathBuf,
}

/// A running `dockerd`.
struct Running {
    /// `nsenter`, which ends with it.
    child: Child,
    dockerd: Pid,
}

/// Something that happened to a container.
#[derive(Debug)]
pub(crate) struct ContainerEvent {
    pub(crate) action: String,
    /// The name that a server in the container answers with: the first 12 characters of its id.
    pub(crate) container: String,
    pub(crate) time: SystemTime,
}

impl Engine {
    /// A machine whose Engine has not been started.
    pub(crate) fn new(wire: &Wire, number: u8) -> Self {
        let machine = Machine::start(wire, number);
        let (socket, exec_root) = (machine.directory.join("docker.sock"), machine.directory.join("exec"));
        Self { number, machine, process: None, socket, exec_root }
    }

    /// A booted machine on which nothing has been started. The Engine is that of the package, with its units, and everything
    /// of it is where the package puts it.
    pub(crate) fn boot(wire: &Wire, number: u8) -> Self {
        let (socket, exec_root) = ("/run/docker.sock".into(), "/run/docker".into());
        Self { number, machine: Machine::boot(wire, number), process: None, socket, exec_root }
    }

    /// Starts `dockerd`, without waiting for it.
    pub(crate) fn start(&mut self) {
        if self.machine.is_booted() {
            self.machine.systemctl(&["start", "docker"]);
            return;
        }
        assert!(self.process.is_none(), "the Engine runs already");
        let directory = &self.machine.directory;
        let configuration = json!({
            "data-root": directory.join("data"),
            "exec-root": self.exec_root,
            "pidfile": directory.join("pid"),
            "hosts": [format!("unix://{}", self.socket.display())],
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": format!("/{}", control_group(&self.machine.name)),
            // The directory is in memory, and can be an overlay's upper layer.
            "storage-driver": "overlay2",
            // The file is otherwise one of the host's.
            "deprecated-key-path": directory.join("key.json"),
        });
        let file = directory.join("daemon.json");
        std::fs::write(&file, configuration.to_string()).unwrap();
        // One that was killed leaves it, and its number may be some other process's by now.
        let _ = std::fs::remove_file(directory.join("pid"));
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.machine.command("dockerd");
        command.arg("--config-file").arg(file).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let mut dockerd = None;
        wait_until("dockerd is started", || {
            dockerd = child_of(child.id());
            dockerd.is_some()
        });
        self.process = Some(Running { child, dockerd: dockerd.unwrap() });
    }

    /// Waits until the Engine answers.
    pub(crate) fn wait_until_ready(&mut self) {
        let socket = self.socket();
        let log = self.log();
        wait_until("the Engine answers", || {
            if let Some(running) = &mut self.process
                && let Some(status) = running.child.try_wait().unwrap()
            {
                panic!("dockerd ended, {status}: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            http::get(&socket, "/_ping").is_ok_and(|(status, _)| status == 200)
        });
    }

    /// Makes the test image known.
    pub(crate) fn import_image(&self) {
        import_image(self, IMAGE, &[ENTRY_POINT]);
    }

    /// Kills `dockerd` with SIGKILL. Containers go on.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Ends `dockerd` and all containers.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut running) = self.process.take() else { return };
        kill(running.dockerd, signal).unwrap();
        running.child.wait().unwrap();
    }

    /// Where its socket is found from here.
    pub(crate) fn socket(&self) -> PathBuf {
        if self.machine.is_booted() { self.machine.path(&self.socket) } else { self.socket.clone() }
    }

    pub(crate) fn log(&self) -> PathBuf {
        if self.machine.is_booted() { self.machine.service_log("docker") } else { self.machine.directory.join("log") }
    }

    /// Runs `docker`, which must succeed; gives what it printed.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        finish(self.cli().args(arguments))
    }

    /// The `docker` command on this Engine.
    pub(crate) fn cli(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command.env("DOCKER_CONFIG", &self.machine.directory).env_remove("DOCKER_CONTEXT");
        command
    }

    /// What the API says at a path.
    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = http::get(&self.socket(), path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Runs a container of the test image that does nothing on the network, and gives its namespace.
    pub(crate) fn client(&self, name: &str, network: &str) -> Namespace {
        self.docker(&["run", "-d", "--name", name, "--network", network, IMAGE, "serve", "--listen", "127.0.0.1:7000"]);
        self.namespace_of(name)
    }

    /// The network namespace of a container.
    pub(crate) fn namespace_of(&self, container: &str) -> Namespace {
        let inspected = self.get(&format!("/containers/{container}/json"));
        let path = Path::new(inspected["NetworkSettings"]["SandboxKey"].as_str().unwrap());
        self.sandbox(path.file_name().unwrap().to_str().unwrap())
    }

    /// The sandbox of an overlay network on this node.
    pub(crate) fn overlay_sandbox(&self, network: &str) -> Namespace {
        let inspected = self.get(&format!("/networks/{network}"));
        self.sandbox(&format!("lb_{}", &inspected["Id"].as_str().unwrap()[..9]))
    }

    /// The sandbox by which published ports of a swarm arrive.
    pub(crate) fn ingress_sandbox(&self) -> Namespace {
        self.sandbox("ingress_sbox")
    }

    /// A sandbox by its name.
    pub(crate) fn sandbox(&self, name: &str) -> Namespace {
        Namespace::open_path(&self.machine.path(&self.exec_root.join("netns").join(name))).unwrap()
    }

    /// What happened to containers since then.
    pub(crate) fn container_events(&self, since: SystemTime) -> Vec<ContainerEvent> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let filters = http::encode(r#"{"type":{"container":true}}"#);
        let (since, until) = (seconds(since), seconds(SystemTime::now()));
        let (status, body) =
            http::get(&self.socket(), &format!("/events?since={since:.6}&until={until:.6}&filters={filters}")).unwrap();
        assert_eq!(status, 200, "{body}");
        // Several documents are no document; then it is a text.
        let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        let events = serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap);
        events.map(|event| ContainerEvent::read(&event)).collect()
    }
}

impl ContainerEvent {
    fn read(event: &Value) -> Self {
        let nanoseconds = event["timeNano"].as_u64().unwrap();
        Self {
            action: event["Action"].as_str().unwrap().to_owned(),
            container: event["Actor"]["ID"].as_str().unwrap()[..12].to_owned(),
            time: UNIX_EPOCH + std::time::Duration::from_nanos(nanoseconds),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("RINGLB_TEST_DOCKER_LOG").is_some() {
            println!("{}: {}", self.machine.name, std::fs::read_to_string(self.log()).unwrap_or_default());
        }
        // The machine's end ends all the rest; this only collects the child.
        if let Some(mut running) = self.process.take() {
            let _ = kill(running.dockerd, Signal::SIGKILL);
            let _ = running.child.wait();
        }
    }
}
