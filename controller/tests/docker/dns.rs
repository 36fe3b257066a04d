//! Docker's DNS, which alone tells a worker that a task is about to stop, where its answers do not fit into a datagram.

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::stops::stop_of;
use crate::wait::{wait_until, wait_within};
use ringlb_netns::Namespace;
use serde_json::Value;
use simple_dns::rdata::OPT;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};
use std::net::UdpSocket;
use std::time::{Duration, SystemTime};

/// The longest name that a service can have: the DNS writes it beside each address, so that 47 fit into 4,096 bytes.
const SERVICE: &str = "a-service-whose-name-is-as-long-as-docker-lets-any-name-ever-be";
/// More than fit.
const TASKS: usize = 50;

#[test]
fn tasks_drain_before_they_stop_where_the_dns_truncates_its_answers() {
    let cluster = Cluster::start(2);
    // Internal, so that the Engine need not connect each container to a second network.
    cluster.create_network_with("net", &["--internal"]);
    let place = format!("node.hostname=={}", cluster.manager().machine.name);
    let count = TASKS.to_string();
    cluster.create_service(SERVICE, &["--network", "net", "--constraint", &place, "--replicas", &count]);
    let worker = cluster.engine(2);
    worker.client("client", "net");
    wait_within(Duration::from_secs(240), "all tasks run", || {
        cluster.servers_if_running(SERVICE).is_some_and(|servers| servers.len() == TASKS)
    });
    let mut daemon = Daemon::start(worker);
    daemon.wait_until_it_answers();
    wait_until("all tasks are backends", || backends(&daemon).len() == TASKS);
    for size in [None, Some(4096), Some(65_507)] {
        let (bytes, truncated, addresses) = look_up(&worker.overlay_sandbox("net"), SERVICE, size);
        println!("UDP payload size {size:?}: {bytes} bytes, truncated: {truncated}, {addresses} of {TASKS} addresses");
        assert_eq!(truncated, addresses < TASKS);
        assert_eq!(truncated, size != Some(65_507));
    }
    assert!(backends(&daemon).iter().all(|backend| backend["drain"] == false));

    let began = SystemTime::now();
    let before = cluster.servers_of(SERVICE);
    cluster.manager().docker(&["service", "scale", "--detach", &format!("{SERVICE}={}", TASKS - 1)]);
    wait_until("a task drains", || backends(&daemon).iter().any(|backend| backend["drain"] == true));
    let drained = SystemTime::now();
    let stopped = || {
        let left = cluster.servers_of(SERVICE);
        let gone = before.iter().find(|server| !left.contains(server))?;
        stop_of(&cluster.container_events(began), gone)
    };
    wait_until("the task has stopped", || stopped().is_some());
    let stopped = stopped().unwrap();
    println!("drained {:?} before it was told to stop", stopped.duration_since(drained));
    assert!(drained < stopped);
    wait_until("it is forgotten", || backends(&daemon).len() == TASKS - 1);
}

fn backends(daemon: &Daemon) -> Vec<Value> {
    let network = daemon.network("net").unwrap_or_default();
    network["services"][0]["backends"].as_array().cloned().unwrap_or_default()
}

/// Asks the DNS of a sandbox for the tasks of a service; gives the length of the answer, whether it says that it is
/// truncated, and how many addresses are in it.
fn look_up(sandbox: &Namespace, service: &str, size: Option<u16>) -> (usize, bool, usize) {
    let name = format!("tasks.{service}");
    let mut question = Packet::new_query(1);
    question.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(&name).unwrap();
    question.questions.push(Question::new(name, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false));
    *question.opt_mut() = size.map(|udp_packet_size| OPT { opt_codes: Vec::new(), udp_packet_size, version: 0 });
    let question = question.build_bytes_vec().unwrap();
    let answer = sandbox.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(&question, "127.0.0.11:53").unwrap();
        let mut answer = vec![0; 65_536];
        let length = socket.recv(&mut answer).unwrap();
        answer.truncate(length);
        answer
    });
    let answer = answer.unwrap();
    let packet = Packet::parse(&answer).unwrap();
    (answer.len(), packet.has_flags(PacketFlag::TRUNCATION), packet.answers.len())
}
