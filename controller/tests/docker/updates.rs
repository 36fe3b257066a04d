//! Changes of a service under load: no request fails, and no lasting connection is cut before its task stops.

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::lasting::Lasting;
use crate::load::{Record, SteadyLoad};
use crate::requests::wait_for_servers;
use crate::stops::{assert_none_was_cut, stop_of};
use crate::wait::{finish, wait_until};
use crate::wire::port_of;
use ringlb_netns::Namespace;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

/// New connections a second, on the VIP and on the published port each.
const RATE: u32 = 200;
/// A program that ends at once when it is told to, and needs a moment to start.
const SLOW_TO_START: [&str; 5] = ["serve", "--listen", "0.0.0.0:80", "--listen-after", "200ms"];

/// A service `web` on the first node and others, and load on it.
struct Scene {
    cluster: Cluster,
    _daemons: Vec<Daemon>,
    vip: SocketAddr,
    client: Namespace,
    began: SystemTime,
}

/// Load on the VIP from a container of the first node, and on the last node's published port from outside.
struct Loads {
    vip: SteadyLoad,
    published: SteadyLoad,
}

impl Scene {
    fn new(nodes: u8, replicas: usize, options: &[&str]) -> Self {
        let cluster = Cluster::start(nodes);
        cluster.create_network("net");
        let count = replicas.to_string();
        let fixed = ["--network", "net", "--publish", "8080:80", "--replicas", &count];
        cluster.create_service_running("web", &[&fixed, options].concat(), &SLOW_TO_START);
        cluster.wait_for_replicas("web", replicas);
        let client = cluster.manager().client("client", "net");
        let daemons = cluster.start_daemons();
        let vip = cluster.target("web", "net", 80);
        let scene = Self { cluster, _daemons: daemons, vip, client, began: SystemTime::now() };
        scene.wait_until_served();
        scene
    }

    /// Waits until all current tasks serve, by every way that there is load on.
    fn wait_until_served(&self) {
        let servers = self.cluster.servers_of("web");
        wait_for_servers(&self.client, self.vip, &servers);
        wait_for_servers(&self.cluster.wire.namespace, self.published(), &servers);
    }

    fn published(&self) -> SocketAddr {
        port_of(self.cluster.engines.last().unwrap().number, 8080)
    }

    fn load(&self) -> Loads {
        let vip = SteadyLoad::start(&self.client, self.vip, RATE);
        let published = SteadyLoad::start(&self.cluster.wire.namespace, self.published(), RATE);
        wait_until("there is load", || vip.answered() > 100 && published.answered() > 100);
        Loads { vip, published }
    }

    fn lasting(&self) -> Lasting {
        Lasting::open(&self.client, self.vip, &self.cluster.servers_of("web"), 4)
    }
}

impl Loads {
    /// Goes on for a moment, so that what a change leaves behind shows.
    fn stop(self) -> [Record; 2] {
        let (vip, published) = (self.vip.answered(), self.published.answered());
        wait_until("the load goes on", || {
            self.vip.answered() > vip + 100 && self.published.answered() > published + 100
        });
        let records = [self.vip.stop(), self.published.stop()];
        println!("VIP: {}\npublished port: {}", records[0], records[1]);
        records
    }

    #[track_caller]
    fn stop_without_failure(self) {
        for record in self.stop() {
            record.assert_no_failure();
        }
    }
}

#[track_caller]
fn update(order: &str) {
    let scene = Scene::new(2, 3, &["--update-order", order, "--update-parallelism", "1"]);
    let before = scene.cluster.servers_of("web");
    let lasting = scene.lasting();
    let loads = scene.load();
    scene.cluster.update_service("web", &["--force"]);
    scene.cluster.wait_for_update("web");
    scene.wait_until_served();
    loads.stop_without_failure();
    let after = scene.cluster.servers_of("web");
    assert!(before.iter().all(|server| !after.contains(server)), "{before:?} {after:?}");
    wait_until("the old tasks' connections have ended", || lasting.ends().len() >= 12);
    assert_none_was_cut(&scene.cluster, scene.began, &lasting.close());
}

#[test]
fn a_rolling_update_that_stops_first_fails_no_request() {
    update("stop-first");
}

#[test]
fn a_rolling_update_that_starts_first_fails_no_request() {
    update("start-first");
}

#[test]
fn scaling_fails_no_request() {
    let scene = Scene::new(2, 1, &[]);
    let lasting = scene.lasting();
    let loads = scene.load();
    scene.cluster.manager().docker(&["service", "scale", "--detach", "web=10"]);
    scene.cluster.wait_for_replicas("web", 10);
    scene.wait_until_served();
    scene.cluster.manager().docker(&["service", "scale", "--detach", "web=1"]);
    scene.cluster.wait_for_replicas("web", 1);
    wait_until("the other tasks have stopped", || {
        let containers =
            scene.cluster.engines.iter().map(|engine| engine.docker(&["ps", "-q", "--filter", "name=web"]));
        containers.map(|list| list.lines().count()).sum::<usize>() == 1
    });
    scene.wait_until_served();
    loads.stop_without_failure();
    assert_none_was_cut(&scene.cluster, scene.began, &lasting.close());
}

/// Requests to the removed service end with it; another one of the same network does not notice.
#[test]
fn removing_a_service_costs_no_other_a_request() {
    let scene = Scene::new(2, 3, &[]);
    scene.cluster.create_service("other", &["--network", "net", "--replicas", "2", "--publish", "8081:80"]);
    scene.cluster.wait_for_replicas("other", 2);
    let other = scene.cluster.target("other", "net", 80);
    wait_for_servers(&scene.client, other, &scene.cluster.servers_of("other"));
    let outside = &scene.cluster.wire.namespace;
    wait_for_servers(outside, port_of(2, 8081), &scene.cluster.servers_of("other"));
    let untouched = Loads {
        vip: SteadyLoad::start(&scene.client, other, RATE),
        published: SteadyLoad::start(outside, port_of(2, 8081), RATE),
    };
    let lasting = scene.lasting();
    let loads = scene.load();
    let removed = Instant::now();
    scene.cluster.manager().docker(&["service", "rm", "web"]);
    wait_until("the connections have ended", || lasting.ends().len() >= 12);
    let records = [loads.vip.stop(), loads.published.stop()];
    for record in records {
        println!("{record}");
        let early = record.failures().into_iter().find(|request| request.begun + request.took < removed);
        assert!(early.is_none(), "{early:?}");
    }
    untouched.stop_without_failure();
    assert_none_was_cut(&scene.cluster, scene.began, &lasting.close());
}

#[test]
fn draining_a_node_fails_no_request() {
    let scene = Scene::new(3, 3, &[]);
    let lasting = scene.lasting();
    let loads = scene.load();
    let drained = &scene.cluster.engine(2).machine.name;
    scene.cluster.manager().docker(&["node", "update", "--availability", "drain", drained]);
    wait_until("the drained node has no task", || {
        scene.cluster.engine(2).docker(&["ps", "-q", "--filter", "name=web"]).is_empty()
    });
    scene.cluster.wait_for_replicas("web", 3);
    scene.wait_until_served();
    loads.stop_without_failure();
    assert_none_was_cut(&scene.cluster, scene.began, &lasting.close());
}

/// Only what was in flight on it fails. A namespace that goes with its task may answer nothing more, not even a reset.
#[test]
fn a_killed_task_costs_only_what_was_in_flight_on_it() {
    let scene = Scene::new(2, 3, &[]);
    let lasting = scene.lasting();
    let loads = scene.load();
    let killed = Killed::one_of(&scene.cluster);
    wait_until("the task is replaced", || {
        let servers = scene.cluster.wanted_tasks("web");
        servers.iter().all(|task| {
            let status = &task["Status"];
            let container = status["ContainerStatus"]["ContainerID"].as_str().unwrap_or_default();
            status["State"] == "running" && !container.starts_with(&killed.server)
        })
    });
    scene.wait_until_served();
    let records = loads.stop();
    let died = stop_of(&scene.cluster.container_events(scene.began), &killed.server).unwrap();
    for record in &records {
        for failure in record.failures() {
            let kind = failure.result.as_ref().unwrap_err().kind();
            let in_flight = failure.time <= died
                && matches!(kind, ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::TimedOut);
            assert!(in_flight, "killed {:?}, dead {died:?}: {failure:?}\n{record}", killed.time);
        }
        // At this rate a request takes a moment, so that few can be in flight at any time.
        assert!(record.failures().len() <= 10, "{record}");
    }
    assert_none_was_cut(&scene.cluster, scene.began, &lasting.close());
}

/// A task that got SIGKILL.
struct Killed {
    server: String,
    time: SystemTime,
}

impl Killed {
    fn one_of(cluster: &Cluster) -> Self {
        let engine = cluster.engines.last().unwrap();
        let server = engine.docker(&["ps", "-q", "--filter", "name=web"]).lines().next().unwrap().to_owned();
        let pid = engine.get(&format!("/containers/{server}/json"))["State"]["Pid"].to_string();
        let time = SystemTime::now();
        finish(engine.machine.command("kill").args(["-9", &pid]));
        Self { server, time }
    }
}
