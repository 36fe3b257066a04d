//! What a node holds is there exactly while it is needed, and no address is lost or given twice: steps by chance, with kills
//! in between, after which the daemon's view, the kernel's and that of a model are compared.

mod kernel;
mod model;

use super::{chance, number};
use crate::node::{Admin, Node, Process, wait_until};
use kernel::Kernel;
use model::{Network, PLANS, Plan, Step};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_netns::Namespace;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const NETWORKS: [&str; 4] = ["n0", "n1", "n2", "n3"];
const CONTAINERS: u8 = 6;
/// How many steps each network makes before a comparison.
const BATCH: usize = 10;

/// Where the namespace of a container is.
fn path_of(container: u8) -> String {
    format!("/run/netns/test-demand-{container}")
}

/// A network and what it should be.
struct Player {
    name: &'static str,
    plan: Plan,
    chance: fastrand::Rng,
    network: Option<Network>,
    /// What it should be if the step that was not answered has been made.
    open: Option<Option<Network>>,
    refused: usize,
    /// Answers that said that a proxy was not back in time. The change is kept then.
    late: usize,
}

/// What died in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Nobody,
    Daemon,
    Proxy,
}

#[test]
fn what_is_needed_is_there_and_nothing_else() {
    let mut chance = chance();
    let steps: usize = number("RINGLB_STEPS", 10_000);
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--state-dir", state_dir.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments);
    let socket = node.run_dir.path().join("admin.sock");
    for container in 0..CONTAINERS {
        Namespace::create(path_of(container).trim_start_matches("/run/netns/")).unwrap();
    }
    let mut players: Vec<_> =
        NETWORKS.into_iter().zip(PLANS).map(|(name, plan)| Player::new(name, plan, chance.fork())).collect();
    let view = View::new(&node);
    let (mut made, mut daemons, mut proxies, began) = (0, 0, 0, Instant::now());
    while made < steps {
        let victim = match chance.u8(..8) {
            0 => Victim::Daemon,
            1 => Victim::Proxy,
            _ => Victim::Nobody,
        };
        let pause = Duration::from_millis(chance.u64(..300));
        std::thread::scope(|scope| {
            for player in &mut players {
                scope.spawn(|| player.play(&socket, victim == Victim::Daemon));
            }
            if victim == Victim::Nobody {
                return;
            }
            std::thread::sleep(pause);
            match victim {
                Victim::Daemon => {
                    kill_daemon(&mut node.daemon);
                    daemons += 1;
                }
                Victim::Proxy => proxies += usize::from(view.kill_a_proxy(&mut chance)),
                Victim::Nobody => {}
            }
        });
        if victim == Victim::Daemon {
            node.daemon = Node::start_daemon_logging(node.run_dir.path(), &arguments, Stdio::null());
        }
        made += BATCH * players.len();
        view.compare(&mut players);
    }
    let refused: usize = players.iter().map(|player| player.refused).sum();
    let late: usize = players.iter().map(|player| player.late).sum();
    println!(
        "{made} steps in {:.1?}, {refused} of them refused as they must be, {late} acknowledged late; {daemons} daemons and {proxies} proxies killed",
        began.elapsed()
    );
    assert!(late <= proxies, "{late} changes were late, but only {proxies} proxies were killed");
    // The last need goes, and with it all there is.
    for player in &mut players {
        player.step(&mut Admin::connect(&socket), Step::Delete { remove_lb: true }).unwrap();
    }
    view.compare(&mut players);
    assert_eq!(ringlb_netns::leftovers(&view.prefix).unwrap(), Vec::<String>::new());
}

fn kill_daemon(daemon: &mut Process) {
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
}

impl Player {
    fn new(name: &'static str, plan: Plan, chance: fastrand::Rng) -> Self {
        Self { name, plan, chance, network: None, open: None, refused: 0, late: 0 }
    }

    /// Makes a batch of steps. The daemon may end meanwhile, if that is said.
    fn play(&mut self, socket: &Path, may_end: bool) {
        let number = NETWORKS.iter().position(|name| *name == self.name).unwrap();
        // Whatever happens to the daemon, the next batch goes on with the same numbers.
        let mut chance = self.chance.fork();
        let Ok(mut admin) = Admin::try_connect(socket) else {
            assert!(may_end, "there is no daemon");
            return;
        };
        for _ in 0..BATCH {
            let step = Step::any(&mut chance, number);
            if let Err(error) = self.step(&mut admin, step) {
                assert!(may_end, "{step:?}: {error}");
                return;
            }
        }
    }

    /// Makes a step, whose answer must be what the model says.
    fn step(&mut self, admin: &mut Admin, step: Step) -> std::io::Result<()> {
        let expected = Network::after(self.network.as_ref(), step, &self.plan);
        let (method, path, body) = step.request(&self.plan);
        self.open = Some(expected.after.clone());
        let (status, answer) = admin.try_request(method, &format!("/v1/networks/{}{path}", self.name), &body)?;
        self.open = None;
        if status == 504 && expected.status < 300 {
            self.late += 1;
        } else {
            assert_eq!(status, expected.status, "{step:?} with {:?}: {answer}", self.network);
        }
        self.refused += usize::from((400..500).contains(&status));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        // The addresses are those that the model chose.
        match (step, &expected.after) {
            (Step::Attach(container), Some(network)) if status < 300 => {
                assert_eq!(answer["attachment"]["ip"], json!(network.attachments[&container]), "{:?}", self.network);
            }
            (Step::PutService { service, .. }, Some(network)) if status < 300 => {
                assert_eq!(answer["service"]["vip"], json!(network.services[&service].vip), "{:?}", self.network);
            }
            _ => {}
        }
        self.network = expected.after;
        Ok(())
    }
}

/// Looks at a node.
struct View {
    socket: PathBuf,
    run_dir: PathBuf,
    prefix: String,
    runtime: Runtime,
}

impl View {
    fn new(node: &Node) -> Self {
        let run_dir = node.run_dir.path().canonicalize().unwrap();
        let prefix = ringlb::reconcile::name_prefix(&run_dir);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { socket: run_dir.join("admin.sock"), run_dir, prefix, runtime }
    }

    /// Whether there was one.
    fn kill_a_proxy(&self, chance: &mut fastrand::Rng) -> bool {
        let status = Admin::connect(&self.socket).get("/v1/status");
        let networks = status["networks"].as_array().unwrap();
        let pids: Vec<_> = networks.iter().filter_map(|network| network["proxy"]["pid"].as_i64()).collect();
        let victim = (!pids.is_empty()).then(|| pids[chance.usize(..pids.len())]);
        // It may have ended since.
        victim.is_some_and(|pid| kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).is_ok())
    }

    /// Waits until all is as it should be, and compares the daemon's view, the kernel's and the model's.
    fn compare(&self, players: &mut [Player]) {
        let exported = Admin::connect(&self.socket).get("/v1/export");
        let exported = exported["networks"].as_array().unwrap();
        for player in players.iter_mut() {
            let there = exported.iter().find(|network| network["name"] == player.name).map(reduced);
            let document = |network: &Option<Network>| Some(network.as_ref()?.document(player.name, &player.plan));
            if let Some(open) = player.open.take()
                && there == document(&open)
            {
                player.network = open;
            }
            assert_eq!(there, document(&player.network), "network {}", player.name);
        }
        let mut last = Value::Null;
        wait_until("the daemon has made it so", || {
            last = Admin::connect(&self.socket).get("/v1/status");
            players.iter().all(|player| is_as_it_should_be(player, &last))
        });
        let networks: Vec<_> = players.iter().map(|player| player.network.clone()).collect();
        let expected = Kernel::expected(&networks);
        let deadline = Instant::now() + crate::node::PATIENCE;
        loop {
            let observed = Kernel::observed(&self.runtime, &self.prefix, &self.run_dir);
            if observed == expected {
                return;
            }
            // What is not removed yet goes soon; what is lost does not come back.
            assert!(Instant::now() < deadline, "there is {observed:#?}, and should be {expected:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What a status says of a network is what the model says.
fn is_as_it_should_be(player: &Player, status: &Value) -> bool {
    let status = status["networks"].as_array().unwrap().iter().find(|network| network["name"] == player.name);
    let (Some(network), Some(status)) = (&player.network, status) else {
        return player.network.is_none() && status.is_none();
    };
    let attached = status["failed_attachments"].as_object().is_none_or(serde_json::Map::is_empty);
    let published = status["failed_ports"].as_object().is_none_or(serde_json::Map::is_empty);
    status["acknowledged_generation"] == status["generation"]
        && status["error"].is_null()
        && attached
        && published
        && status["sandbox"]["lb_address"] == json!(network.lb_endpoint)
        && status["proxy"]["pid"].is_u64() == network.lb_endpoint.is_some()
}

/// What of an exported network the model knows.
fn reduced(network: &Value) -> Value {
    let services = network["services"].as_array().unwrap().iter().map(|service| {
        let published = service.get("published").cloned().unwrap_or_else(|| json!([]));
        json!({"name": service["name"], "vip": service["vip"], "published": published})
    });
    json!({
        "name": network["name"], "subnet": network["subnet"], "vip_prefix": network["vip_prefix"],
        "attachments": network["attachments"], "services": services.collect::<Vec<_>>(),
    })
}
