//! Each capability that the service has is one that it cannot do without.

use super::repository;
use super::rights::{line_of, set_of};
use super::unit::Unit;
use crate::cluster::Cluster;
use crate::requests::{ask, wait_for_servers};
use crate::wait::{finish, wait_until};
use crate::wire::port_of;
use ringlb_netns::Namespace;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A service on port 80 of a network and of the node.
struct Stage<'a> {
    cluster: &'a Cluster,
    unit: Unit<'a>,
    client: Namespace,
    vip: SocketAddr,
    servers: Vec<String>,
}

/// A capability, and what is seen without it.
type Need = (&'static str, fn(&Stage<'_>) -> bool);

const NEEDS: [Need; 10] = [
    ("CAP_SYS_ADMIN", |stage| stage.says("Operation not permitted") && !stage.vip_is_served()),
    ("CAP_NET_ADMIN", |stage| stage.says("Operation not permitted") && !stage.vip_is_served()),
    ("CAP_IPC_LOCK", |stage| stage.says("memory") && !stage.vip_is_served()),
    ("CAP_NET_BIND_SERVICE", |stage| stage.says("CAP_NET_BIND_SERVICE") && stage.vip_is_served()),
    ("CAP_SYS_PTRACE", |stage| stage.vip_is_served() && !stage.attaches_a_process()),
    ("CAP_KILL", |stage| stage.vip_is_served() && !stage.ends_a_proxy_that_hangs()),
    // Without it neighbours learn of VIPs later.
    ("CAP_NET_RAW", |stage| stage.vip_is_served() && !stage.sends_frames()),
    // Without these proxies are less confined.
    ("CAP_SETUID", |stage| stage.vip_is_served() && stage.proxies_are_roots()),
    ("CAP_SETGID", |stage| stage.vip_is_served() && stage.proxies_are_roots()),
    ("CAP_SETPCAP", |stage| stage.vip_is_served() && stage.proxies_could_gain_capabilities()),
];

#[test]
fn each_capability_of_the_service_is_needed() {
    let unit = std::fs::read_to_string(repository("packaging/ringlb.service")).unwrap();
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let mut given: Vec<&str> = set.split(' ').collect();
    let mut needed: Vec<&str> = NEEDS.iter().map(|(capability, _)| *capability).collect();
    given.sort_unstable();
    needed.sort_unstable();
    assert_eq!(given, needed);

    let cluster = Cluster::boot(1);
    cluster.create_network("net");
    cluster.create_service("web", &["--network", "net", "--replicas", "2", "--publish", "80:80"]);
    cluster.wait_for_replicas("web", 2);
    let engine = cluster.manager();
    let (client, vip, servers) =
        (engine.client("client", "net"), cluster.target("web", "net", 80), cluster.servers_of("web"));
    let stage = Stage { cluster: &cluster, unit: Unit::install(engine), client, vip, servers };

    stage.start_without("");
    stage.unit.ringlb(&["network", "create", "own", "--subnet", "10.200.0.0/24"]);
    wait_for_servers(&stage.client, stage.vip, &stage.servers);
    wait_for_servers(&cluster.wire.namespace, port_of(1, 80), &stage.servers);
    for (capability, is_missed) in NEEDS {
        assert!(!is_missed(&stage), "{capability}, which is there");
    }
    for (capability, is_missed) in NEEDS {
        stage.end();
        stage.start_without(capability);
        wait_until(&format!("{capability} is missed"), || is_missed(&stage));
    }
}

impl Stage<'_> {
    fn start_without(&self, capability: &str) {
        // What a user's rings may hold without CAP_IPC_LOCK is otherwise enough for a few of them.
        let changes = format!("[Service]\nLimitMEMLOCK=4K\nCapabilityBoundingSet=~{capability}\n");
        self.unit.change(&changes);
        self.unit.systemctl("start");
        self.unit.wait_until_it_answers();
    }

    /// Ends the daemon and its proxies, and forgets what they said.
    fn end(&self) {
        self.unit.systemctl("stop");
        for proxy in self.unit.running_proxies() {
            finish(self.cluster.manager().machine.command("kill").args(["-KILL", &proxy.to_string()]));
        }
        wait_until("the proxies have ended", || self.unit.running_proxies().is_empty());
        std::fs::write(self.unit.log(), "").unwrap();
    }

    fn vip_is_served(&self) -> bool {
        ask(&self.client, self.vip).is_ok()
    }

    /// Whether the daemon or a proxy has said it.
    fn says(&self, what: &str) -> bool {
        std::fs::read_to_string(self.unit.log()).unwrap().contains(what)
    }

    /// Whether a container can be attached to a network of ringlb's own by the number of its process.
    fn attaches_a_process(&self) -> bool {
        let engine = self.cluster.manager();
        let process = &engine.get("/containers/client/json")["State"]["Pid"];
        let attach = ["attach", "own", "client", "--netns", &format!("/proc/{process}/ns/net")];
        let attached = engine.machine.command("ringlb").args(attach).output().unwrap();
        if attached.status.success() {
            self.unit.ringlb(&["detach", "own", "client"]);
        }
        attached.status.success()
    }

    /// Whether somebody has a socket for frames in the network's sandbox.
    fn sends_frames(&self) -> bool {
        let sandbox = self.cluster.manager().overlay_sandbox("net");
        let sockets = sandbox.run(|| std::fs::read_to_string("/proc/thread-self/net/packet").unwrap()).unwrap();
        // After the head.
        sockets.lines().count() > 1
    }

    /// Whether the daemon ends a proxy that does not do so itself.
    fn ends_a_proxy_that_hangs(&self) -> bool {
        let before = self.unit.running_proxies();
        self.unit.ringlb(&["service", "create", "own", "web", "--publish", "81:80/tcp"]);
        let proxies = self.unit.running_proxies();
        let proxy = *proxies.iter().find(|proxy| !before.contains(proxy)).unwrap();
        finish(self.cluster.manager().machine.command("kill").args(["-STOP", &proxy.to_string()]));
        self.unit.ringlb(&["service", "rm", "own", "web"]);
        let mut ended = false;
        wait_until("the daemon has tried to end the proxy", || {
            ended = !self.unit.running_proxies().contains(&proxy);
            ended || self.says("cannot kill the proxy")
        });
        ended
    }

    fn proxies_are_roots(&self) -> bool {
        self.proxies().all(|proxy| line_of(&proxy, "Uid") == "0\t0\t0\t0")
    }

    fn proxies_could_gain_capabilities(&self) -> bool {
        self.proxies().all(|proxy| set_of(&proxy, "CapBnd") != 0)
    }

    /// The directories of the proxies' processes.
    fn proxies(&self) -> impl Iterator<Item = PathBuf> {
        let proc = self.cluster.manager().machine.path(Path::new("/proc"));
        self.unit.running_proxies().into_iter().map(move |proxy| proc.join(proxy.to_string()))
    }
}
