//! Serving in the place of IPVS. It is imitated, so that the test runs on a kernel without it: rules mark packets as an
//! Engine's do, and what begins anew with a mark is refused instead of balanced.

use crate::node::{Container, wait_until};
use crate::observed::{BACKEND, VIP, desired, echo, make_sandbox, network, pid, run, settle};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb::model::{Name, ObservedNetwork};
use ringlb::source::Desired;
use ringlb_netns::Namespace;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Where the Engine sends connections to published ports.
const FORWARDED: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 4);
const PORT: u16 = 18_092;

#[test]
fn new_connections_are_taken_from_ipvs_while_the_daemon_lives() {
    const SANDBOX: &str = "test-ipvs-sandbox";
    run(async {
        let run_dir = tempfile::tempdir().unwrap();
        let desired = desired(&run_dir);
        let client = Container { namespace: Namespace::create("test-ipvs").unwrap(), address: BACKEND.into() };
        Namespace::remove(SANDBOX).unwrap();
        let sandbox = make_sandbox(SANDBOX, &client.namespace).await;
        set_up_engine(&sandbox).await;
        let _server = client.serve("one", 80);
        let (vip, published) = (SocketAddr::from((VIP, 80)), SocketAddr::from((FORWARDED, PORT)));
        let both_served = || [vip, published].map(|to| connect(&client, to).is_some()) == [true, true];
        let none_served = || [vip, published].map(|to| connect(&client, to).is_none()) == [true, true];
        assert!(none_served());

        settle(&desired, Some(taken_over(&sandbox))).await;
        eventually(both_served).await;
        assert_eq!(shown(&desired).await, (1, 1));
        // The port is the Engine's here.
        assert!(TcpListener::bind(("0.0.0.0", PORT)).is_ok());
        let open = [vip, published].map(|to| connect(&client, to).unwrap());

        // Beyond the time for which it holds when it is said once.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(both_served());
        open.into_iter().for_each(echo);

        // Without a proxy nothing is taken over; with the next one it is again.
        let first = pid(&desired).await.unwrap();
        kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).unwrap();
        while pid(&desired).await.is_none_or(|now| now == first) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        eventually(both_served).await;

        // What is not observed any more is not taken over either.
        let mut unpublished = taken_over(&sandbox);
        unpublished.services[0].published.clear();
        settle(&desired, Some(unpublished)).await;
        assert!(connect(&client, vip).is_some() && connect(&client, published).is_none());
        assert_eq!(shown(&desired).await, (1, 0));
        settle(&desired, Some(taken_over(&sandbox))).await;
        eventually(both_served).await;

        // The daemon ends and its proxies stay: nobody says it any more.
        let open = [vip, published].map(|to| connect(&client, to).unwrap());
        let last = pid(&desired).await.unwrap();
        desired.reconcilers().stop(true).await;
        wait_until("it ends by itself", none_served);
        open.into_iter().for_each(echo);
        kill(Pid::from_raw(last.cast_signed()), Signal::SIGKILL).unwrap();
        Namespace::remove(SANDBOX).unwrap();
    });
}

#[test]
fn an_orderly_end_leaves_new_connections_to_ipvs_at_once() {
    const SANDBOX: &str = "test-ipvs-end-sandbox";
    run(async {
        let run_dir = tempfile::tempdir().unwrap();
        let desired = desired(&run_dir);
        let client = Container { namespace: Namespace::create("test-ipvs-end").unwrap(), address: BACKEND.into() };
        Namespace::remove(SANDBOX).unwrap();
        let sandbox = make_sandbox(SANDBOX, &client.namespace).await;
        set_up_engine(&sandbox).await;
        let _server = client.serve("one", 80);
        let vip = SocketAddr::from((VIP, 80));
        settle(&desired, Some(taken_over(&sandbox))).await;
        eventually(|| connect(&client, vip).is_some()).await;
        let before = nft(&sandbox, &["list", "tables"]);
        assert!(before.contains("table ip ringlb-takeover"), "{before}");

        desired.reconcilers().stop(false).await;
        assert!(connect(&client, vip).is_none());
        assert_eq!(nft(&sandbox, &["list", "tables"]), "table ip engine\n");
        // The Engine's address is where it was.
        assert!(sandbox.links().await.unwrap().local_routes().await.unwrap().is_empty());
        Namespace::remove(SANDBOX).unwrap();
    });
}

fn taken_over(sandbox: &Namespace) -> ObservedNetwork {
    let mut network = network(Some(sandbox), PORT);
    network.sandbox.as_mut().unwrap().takeover = true;
    network
}

async fn set_up_engine(sandbox: &Namespace) {
    let links = sandbox.links().await.unwrap();
    links.add_address("eth0", VIP.into(), 32).await.unwrap();
    links.add_address("eth0", FORWARDED.into(), 32).await.unwrap();
    let rules = format!(
        "table ip engine {{
            chain arrival {{
                type filter hook prerouting priority mangle;
                tcp dport {PORT} meta mark set 0x100
            }}
            chain marking {{
                type filter hook input priority mangle;
                ip daddr {VIP} meta mark set 0x101
            }}
            chain balancing {{
                type filter hook input priority 99;
                meta mark != 0 tcp flags & (syn | ack) == syn reject with tcp reset
            }}
        }}"
    );
    nft(sandbox, &[&rules]);
}

fn nft(namespace: &Namespace, arguments: &[&str]) -> String {
    let mut command = Command::new("nft");
    command.args(arguments);
    namespace.enter_on_exec(&mut command).unwrap();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// None if it was refused, as what would have gone to IPVS is.
fn connect(client: &Container, to: SocketAddr) -> Option<TcpStream> {
    let patience = Duration::from_secs(10);
    client.namespace.run(|| TcpStream::connect_timeout(&to, patience).ok()).unwrap()
}

/// Waits for it, while the network's task goes on.
async fn eventually(condition: impl Fn() -> bool) {
    for _attempt in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain");
}

/// How many VIPs and published ports the status shows as taken over.
async fn shown(desired: &Desired) -> (usize, usize) {
    let (status, _) = desired.reconcilers().status(&Name::new("swarm").unwrap()).await.unwrap();
    let takeover = status.sandbox.unwrap().takeover.unwrap();
    assert_eq!(takeover.error, None);
    (takeover.vips, takeover.ports)
}
