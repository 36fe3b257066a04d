//! Each capability that the service has is one that it cannot do without.

use super::repository;
use super::rights::{CAP_SYS_RESOURCE, capabilities_of, may_raise_limits};
use super::unit::Unit;
use crate::cluster::Cluster;
use crate::requests::{ask, wait_for_servers};
use crate::wait::{finish, wait_until};
use crate::wire::port_of;
use ringlb_netns::Namespace;
use std::net::SocketAddr;
use std::path::Path;

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

const NEEDS: [Need; 8] = [
    ("CAP_SYS_ADMIN", |stage| stage.says("Operation not permitted") && !stage.vip_is_served()),
    ("CAP_NET_ADMIN", |stage| stage.says("Operation not permitted") && !stage.vip_is_served()),
    ("CAP_SYS_PTRACE", |stage| !stage.attaches_a_process() && stage.vip_is_served()),
    ("CAP_IPC_LOCK", |stage| stage.says("memory") && !stage.vip_is_served()),
    ("CAP_NET_BIND_SERVICE", |stage| stage.says("CAP_NET_BIND_SERVICE") && stage.vip_is_served()),
    // Without it neighbours learn of VIPs later.
    ("CAP_NET_RAW", |stage| stage.vip_is_served() && !stage.sends_frames()),
    // Without these proxies are less confined, and their pipes small.
    ("CAP_SETPCAP", |stage| stage.vip_is_served() && stage.proxies_have("CapBnd", u64::MAX)),
    ("CAP_SYS_RESOURCE", |stage| stage.vip_is_served() && !stage.proxies_have("CapEff", CAP_SYS_RESOURCE)),
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
        // What nobody has cannot be missed.
        let is_there = capability != "CAP_SYS_RESOURCE" || may_raise_limits();
        assert_eq!(is_missed(&stage), !is_there, "{capability}, when it is there");
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

    /// Whether there are proxies that have any of these capabilities in that set (proc_pid_status(5)).
    fn proxies_have(&self, set: &str, capabilities: u64) -> bool {
        let proc = self.cluster.manager().machine.path(Path::new("/proc"));
        let proxies = self.unit.running_proxies();
        proxies.iter().any(|proxy| capabilities_of(&proc.join(proxy.to_string()), set) & capabilities != 0)
    }
}
