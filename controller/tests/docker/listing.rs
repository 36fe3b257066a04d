//! How long it takes from when an Engine lists a task until the service's VIP serves it on the Engine's node.

use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::load::SteadyLoad;
use crate::requests::wait_for_servers;
use crate::wait::{wait_until, wait_within};
use ringlb_netns::Namespace;
use std::time::{Duration, SystemTime};

const ROUNDS: usize = 10;

#[test]
fn a_new_task_is_served_on_its_own_node_and_on_another() {
    let cluster = Cluster::start(2);
    cluster.create_network("net");
    let second = format!("node.hostname=={}", cluster.engine(2).machine.name);
    cluster.create_service("web", &["--network", "net", "--constraint", &second]);
    cluster.wait_for_replicas("web", 1);
    let clients: Vec<Namespace> =
        cluster.engines.iter().map(|engine| engine.client(&format!("client{}", engine.number), "net")).collect();
    let _daemons = cluster.start_daemons();
    let vip = cluster.target("web", "net", 80);
    for client in &clients {
        wait_for_servers(client, vip, &cluster.servers_of("web"));
    }
    let places: Vec<(&Engine, &Namespace)> = cluster.engines.iter().zip(&clients).collect();
    print_listing_times(&cluster, "web", "net", 1, &places);
}

/// Adds tasks one by one, under load from each place, and prints how long after the place's Engine has listed one its VIP
/// serves it there. No request may fail.
pub(crate) fn print_listing_times(
    cluster: &Cluster,
    service: &str,
    network: &str,
    replicas: usize,
    places: &[(&Engine, &Namespace)],
) {
    let vip = cluster.target(service, network, 80);
    let mut late = vec![Vec::new(); places.len()];
    for count in replicas + 1..=replicas + ROUNDS {
        let known = cluster.servers_of(service);
        let loads: Vec<_> = places.iter().map(|(_, client)| SteadyLoad::start(client, vip, 200)).collect();
        cluster.manager().docker(&["service", "scale", "--detach", &format!("{service}={count}")]);
        let listed: Vec<SystemTime> = std::thread::scope(|scope| {
            let wait = |engine| scope.spawn(move || wait_for_listing(engine, service, network, count));
            let waits: Vec<_> = places.iter().map(|(engine, _)| wait(*engine)).collect();
            waits.into_iter().map(|wait| wait.join().unwrap()).collect()
        });
        cluster.wait_for_replicas(service, count);
        let servers = cluster.servers_of(service);
        let new = servers.iter().find(|server| !known.contains(server)).unwrap();
        for (((load, (_, client)), listed), late) in loads.into_iter().zip(places).zip(listed).zip(&mut late) {
            wait_for_servers(client, vip, &servers);
            let answered = load.answered();
            wait_until("the load has met every task", || load.answered() > answered + 100);
            let record = load.stop();
            record.assert_no_failure();
            let served = record.first_answer_of(new).unwrap();
            late.push(served.duration_since(listed).map_or_else(|early| -millis(early.duration()), millis));
        }
    }
    for ((engine, _), mut late) in places.iter().zip(late) {
        late.sort_by(f64::total_cmp);
        let (median, most) = (late[late.len() / 2], late[late.len() - 1]);
        let name = &engine.machine.name;
        println!("{name}: the VIP serves a task {median:.0} ms after it is listed, at most {most:.0} ms: {late:.0?}");
    }
}

/// Waits until the Engine lists so many tasks of the service on the network; gives when.
fn wait_for_listing(engine: &Engine, service: &str, network: &str, count: usize) -> SystemTime {
    wait_within(Duration::from_secs(60), "the task is listed", || {
        let listed = engine.get(&format!("/networks/{network}?verbose=true"));
        listed["Services"][service]["Tasks"].as_array().is_some_and(|tasks| tasks.len() == count)
    });
    SystemTime::now()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
