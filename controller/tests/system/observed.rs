//! Networks that a source observes, in sandboxes that somebody else makes: here, the test.

use crate::node::{Container, program, wait_until};
use ringlb::model::{
    Change, Families, Name, ObservedBackend, ObservedNetwork, ObservedSandbox, ObservedService, Port, Protocol,
    PublishedPort, RejectionKind, Weight,
};
use ringlb::reconcile::{ControlDirectory, MemoryGroups, Reconcilers, Settings, name_prefix};
use ringlb::source::{Desired, WishError};
use ringlb_netns::Namespace;
use ringlb_proxy::control::version::Versions;
use ringlb_proxy::privileges::FirstUser;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 200);
pub(crate) const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);
const LB_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// A sandbox with one leg to the namespace of the client, which is the backend too.
pub(crate) async fn make_sandbox(name: &str, client: &Namespace) -> Namespace {
    let sandbox = Namespace::create(name).unwrap();
    let links = client.links().await.unwrap();
    links.delete_link("eth0").await.unwrap();
    links.veth("eth0", "eth0", &sandbox, None).await.unwrap();
    for (namespace, address) in [(client, BACKEND), (&sandbox, LB_ADDRESS)] {
        let links = namespace.links().await.unwrap();
        links.add_address("eth0", address.into(), 24).await.unwrap();
        links.set_up("eth0").await.unwrap();
    }
    sandbox
}

pub(crate) fn network(sandbox: Option<&Namespace>, port: u16) -> ObservedNetwork {
    let name = |text: &str| Name::new(text).unwrap();
    ObservedNetwork {
        name: name("swarm"),
        subnet: Families::from("10.9.0.0/24".parse::<ipnet::IpNet>().unwrap()),
        sandbox: sandbox.map(|sandbox| ObservedSandbox {
            path: PathBuf::from("/run/netns").join(sandbox.name().unwrap()),
            identity: sandbox.identity().unwrap(),
            lb_address: Families::from(IpAddr::V4(LB_ADDRESS)),
            takeover: false,
        }),
        services: vec![ObservedService {
            name: name("web"),
            vip: Families::from(IpAddr::V4(VIP)),
            settings: Default::default(),
            published: vec![PublishedPort { published: Port { protocol: Protocol::Tcp, number: port }, target: 80 }],
            backends: vec![ObservedBackend {
                address: BACKEND.into(),
                weight: Weight(1),
                draining: false,
                local: true,
            }],
        }],
    }
}

fn settings(run_dir: &tempfile::TempDir) -> Settings {
    Settings {
        control: ControlDirectory::open(run_dir.path()).unwrap(),
        name_prefix: name_prefix(run_dir.path()),
        proxy_program: program("ringlb-proxy"),
        access_log: None,
        threads: NonZeroUsize::MIN,
        max_connections: None,
        proxy_first_user: FirstUser::default(),
        memory: MemoryGroups::new("unused-", None).unwrap(),
        upgrade_proxies: true,
        shortcuts: true,
        versions: Versions::default(),
        acknowledge_timeout: Duration::from_secs(20),
    }
}

pub(crate) fn desired(run_dir: &tempfile::TempDir) -> Desired {
    Desired::new(Reconcilers::new(settings(run_dir)))
}

/// Observes it and waits until it is so.
pub(crate) async fn settle(desired: &Desired, network: Option<ObservedNetwork>) {
    let observed = desired.observe("test", network.into_iter().collect());
    assert!(observed.refused.is_empty(), "{:?}", observed.refused);
    for (_, receipt) in observed.receipts {
        receipt.settled().await.unwrap();
    }
}

pub(crate) fn echo(mut stream: TcpStream) {
    stream.write_all(b"echo").unwrap();
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"echo");
}

pub(crate) async fn pid(desired: &Desired) -> Option<u32> {
    let (status, _) = desired.reconcilers().status(&Name::new("swarm").unwrap()).await?;
    status.proxy?.pid
}

pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn an_observed_network_is_served_where_its_sandbox_is() {
    const SANDBOX: &str = "test-observed-sandbox";
    run(async {
        let run_dir = tempfile::tempdir().unwrap();
        let desired = desired(&run_dir);
        let client = Container { namespace: Namespace::create("test-observed").unwrap(), address: BACKEND.into() };
        Namespace::remove(SANDBOX).unwrap();
        let mut sandbox = make_sandbox(SANDBOX, &client.namespace).await;
        let _server = client.serve("one", 80);
        let vip = SocketAddr::from((VIP, 80));
        let published = SocketAddr::from((Ipv4Addr::LOCALHOST, 18090));
        let mut earlier = None;
        for _round in 0..3 {
            settle(&desired, Some(network(Some(&sandbox), 18090))).await;
            echo(client.connect(vip));
            echo(TcpStream::connect(published).unwrap());
            let now = pid(&desired).await;
            assert!(now.is_some() && now != earlier);
            earlier = now;
            // The same again is no change.
            assert!(desired.observe("test", vec![network(Some(&sandbox), 18090)]).receipts.is_empty());
            // It is taken down, and comes back as another namespace at the same path.
            Namespace::remove(SANDBOX).unwrap();
            sandbox = make_sandbox(SANDBOX, &client.namespace).await;
        }
        settle(&desired, Some(network(None, 18090))).await;
        assert_eq!(pid(&desired).await, None);
        assert!(TcpStream::connect(published).is_err());
        settle(&desired, Some(network(Some(&sandbox), 18090))).await;
        echo(client.connect(vip));

        let change = Change::RemoveNetwork { remove_lb: true };
        let Err(WishError::Rejected(rejection)) = desired.change("swarm", &change) else { panic!("it was taken") };
        assert_eq!(rejection.kind, RejectionKind::Conflict);
        assert!(rejection.to_string().contains("observed by source `test`"), "{rejection}");

        // The namespace stays as it was, without the routes.
        settle(&desired, None).await;
        let links = sandbox.links().await.unwrap();
        assert!(links.local_routes().await.unwrap().is_empty());
        assert!(links.link_exists("eth0").await.unwrap());
        assert_eq!(Namespace::open(SANDBOX).unwrap().identity().unwrap(), sandbox.identity().unwrap());
        desired.reconcilers().stop(false).await;
        Namespace::remove(SANDBOX).unwrap();
    });
}

/// A daemon and its proxies were killed, and a VIP of theirs is a container's address by now.
#[test]
fn a_route_that_was_left_behind_takes_no_address_from_a_container() {
    const SANDBOX: &str = "test-stale-route-sandbox";
    run(async {
        let run_dir = tempfile::tempdir().unwrap();
        let desired = desired(&run_dir);
        let client = Container { namespace: Namespace::create("test-stale-route").unwrap(), address: BACKEND.into() };
        Namespace::remove(SANDBOX).unwrap();
        let sandbox = make_sandbox(SANDBOX, &client.namespace).await;
        let links = sandbox.links().await.unwrap();
        let route = |address: Ipv4Addr| ipnet::IpNet::from(IpAddr::from(address));
        links.add_local_route(route(BACKEND)).await.unwrap();
        let _server = client.serve("one", 80);
        settle(&desired, Some(network(Some(&sandbox), 18093))).await;
        assert_eq!(links.local_routes().await.unwrap(), [route(VIP)]);
        echo(client.connect((VIP, 80).into()));
        desired.reconcilers().stop(false).await;
        Namespace::remove(SANDBOX).unwrap();
    });
}

/// The daemon that comes next does not observe the network, as when the Engine's balancer serves it by then.
#[test]
fn what_an_earlier_daemon_left_in_a_sandbox_is_taken_back() {
    const SANDBOX: &str = "test-left-sandbox";
    run(async {
        let run_dir = tempfile::tempdir().unwrap();
        let desired = desired(&run_dir);
        let client = Container { namespace: Namespace::create("test-left").unwrap(), address: BACKEND.into() };
        Namespace::remove(SANDBOX).unwrap();
        let sandbox = make_sandbox(SANDBOX, &client.namespace).await;
        let _server = client.serve("one", 80);
        let vip = SocketAddr::from((VIP, 80));
        settle(&desired, Some(network(Some(&sandbox), 18093))).await;
        echo(client.connect(vip));
        let proxy = pid(&desired).await.unwrap();
        desired.reconcilers().stop(true).await;
        drop(desired);
        echo(client.connect(vip));

        let (reconcilers, meetings) = Reconcilers::taking_over(settings(&run_dir));
        assert_eq!(meetings.len(), 1);
        Arc::new(Desired::new(reconcilers.clone())).meet(meetings);
        reconcilers.end_leftovers().await;
        assert!(!std::path::Path::new(&format!("/proc/{proxy}")).exists());
        let links = sandbox.links().await.unwrap();
        assert_eq!(links.local_routes().await.unwrap(), []);
        assert!(links.link_exists("eth0").await.unwrap());
        reconcilers.stop(false).await;
        Namespace::remove(SANDBOX).unwrap();
    });
}

#[test]
fn a_port_that_somebody_has_is_told_and_tried_again() {
    const SANDBOX: &str = "test-port-taken-sandbox";
    run(async {
        let run_dir = tempfile::tempdir().unwrap();
        let desired = desired(&run_dir);
        let client = Container { namespace: Namespace::create("test-port-taken").unwrap(), address: BACKEND.into() };
        Namespace::remove(SANDBOX).unwrap();
        let sandbox = make_sandbox(SANDBOX, &client.namespace).await;
        let _server = client.serve("one", 80);
        let taken = TcpListener::bind("0.0.0.0:18091").unwrap();
        let observed = desired.observe("test", vec![network(Some(&sandbox), 18091)]);
        for (_, receipt) in observed.receipts {
            let error = receipt.settled().await.unwrap_err().to_string();
            assert!(error.contains("published port 18091/tcp") && error.contains("another program has it"), "{error}");
        }
        let failed = async || {
            let (status, _) = desired.reconcilers().status(&Name::new("swarm").unwrap()).await.unwrap();
            status.failed_ports
        };
        assert_eq!(failed().await.keys().collect::<Vec<_>>(), ["18091/tcp"]);
        let acknowledged = async || {
            let (status, _) = desired.reconcilers().status(&Name::new("swarm").unwrap()).await.unwrap();
            status.acknowledged_generation
        };
        // The port's failure is told without waiting for the proxy, and a client that blocks this thread would keep the
        // network's task from sending the table.
        while acknowledged().await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        echo(client.connect(SocketAddr::from((VIP, 80))));
        drop(taken);
        while !failed().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        echo(TcpStream::connect("127.0.0.1:18091").unwrap());
        desired.reconcilers().stop(false).await;
        wait_until("the port is free", || TcpListener::bind("0.0.0.0:18091").is_ok());
        Namespace::remove(SANDBOX).unwrap();
    });
}
