//! What is done in a namespace that is somebody else's is taken back, and nothing else.

use crate::support::{ip, net, sysctl};
use ringlb_netns::{Addresses, Cleared, Namespace, Sandbox, SteeredSockets, SteeringKind, TakenOver, Takeover, clear};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const ADDRESS: &str = "10.66.0.2";

/// A namespace with an interface, addresses, and a local route that are its owner's.
async fn foreign(name: &str) -> Namespace {
    Namespace::remove(name).unwrap();
    let namespace = Namespace::create(name).unwrap();
    let links = namespace.links().await.unwrap();
    links.bridge("eth0").await.unwrap();
    links.add_address("eth0", ip(ADDRESS), 24).await.unwrap();
    links.set_up("eth0").await.unwrap();
    print(&namespace, "ip route add local 10.66.9.9/32 dev lo");
    namespace
}

/// Addresses, routes, tables and kernel parameters, sorted.
fn state(namespace: &Namespace) -> Vec<String> {
    // What the kernel counts, and what comes and goes with its checks of addresses.
    let passing = |line: &&str| ["fe80:", "ff00:", "ff02:", "conntrack_count"].iter().any(|text| line.contains(text));
    let commands = [
        "ip -o addr show",
        "ip route show table all",
        "ip -6 route show table all",
        "nft list ruleset",
        "grep -rs . /proc/sys/net",
    ];
    let outputs = commands.map(|words| print(namespace, words));
    let lines = outputs.iter().flat_map(|output| output.lines()).filter(|line| !passing(line));
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

fn print(namespace: &Namespace, words: &str) -> String {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    namespace.enter_on_exec(&mut command).unwrap();
    let output = command.args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

async fn use_as_sandbox(namespace: &Namespace) -> Sandbox {
    let path = Path::new("/run/netns").join(namespace.name().unwrap());
    let sandbox = Sandbox::enter(&path, namespace.identity().unwrap(), ip(ADDRESS)).await.unwrap();
    for prefix in ["10.66.0.200/32", "10.66.0.201/32", "fd66::200/128"] {
        sandbox.add_vip_route(net(prefix)).await.unwrap();
    }
    sandbox
}

#[tokio::test]
async fn everything_is_taken_back_and_what_is_others_stays() {
    let namespace = foreign("ringlb-test-clearing").await;
    let before = state(&namespace);
    let sandbox = use_as_sandbox(&namespace).await;
    let addresses = Addresses { v4: Some(ADDRESS.parse().unwrap()), v6: Some("fd66::2".parse().unwrap()) };
    let steered = SteeredSockets::open(&namespace, addresses, NonZeroUsize::MIN, Some(SteeringKind::Tproxy)).unwrap();
    let served = TakenOver { vips: vec!["10.66.0.200".parse().unwrap()], ports: Vec::new() };
    drop(Takeover::begin(&namespace, &served, Duration::from_secs(600)).unwrap());
    assert_ne!(state(&namespace), before);
    drop((steered, sandbox));

    let (cleared, errors) = clear(&namespace).await;
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(cleared.routes, ["10.66.0.200/32", "10.66.0.201/32", "fd66::200/128"].map(net));
    assert_eq!(cleared.tables, ["ip ringlb", "ip6 ringlb", "ip ringlb-takeover"]);
    assert!(cleared.parameters.iter().any(|path| path == "net/ipv4/ip_local_port_range"), "{cleared:?}");
    assert_eq!(state(&namespace), before);
    let (again, errors) = clear(&namespace).await;
    assert!(again == Cleared::default() && again.is_empty() && errors.is_empty(), "{again:?} {errors:?}");
    Namespace::remove("ringlb-test-clearing").unwrap();
}

#[tokio::test]
async fn leaving_a_sandbox_takes_back_the_same() {
    let namespace = foreign("ringlb-test-leaving").await;
    let before = state(&namespace);
    let sandbox = use_as_sandbox(&namespace).await;
    assert_ne!(state(&namespace), before);
    sandbox.leave().await.unwrap();
    assert_eq!(state(&namespace), before);
    Namespace::remove("ringlb-test-leaving").unwrap();
}

#[tokio::test]
async fn a_parameter_that_somebody_has_set_since_stays() {
    let namespace = foreign("ringlb-test-parameter").await;
    let sandbox = use_as_sandbox(&namespace).await;
    namespace.set_sysctl("net/ipv4/ip_local_port_range", "20000 30000").unwrap();
    sandbox.leave().await.unwrap();
    assert_eq!(sysctl(&namespace, "net/ipv4/ip_local_port_range").as_deref(), Some("20000 30000"));
    assert_ne!(sysctl(&namespace, "net/ipv4/ip_unprivileged_port_start").as_deref(), Some("0"));
    Namespace::remove("ringlb-test-parameter").unwrap();
}
