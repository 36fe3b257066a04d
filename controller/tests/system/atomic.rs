//! A batch is seen whole or not at all.

use crate::node::{Container, Node};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

const CONNECTIONS: u64 = 200_000;
const CLIENTS: usize = 8;
/// The address of the backend with label 0; a label is the distance from it.
const FIRST: u32 = u32::from_be_bytes([10, 64, 0, 0]);

/// Each batch moves two services together to a backend that is labelled with the batch's number. On each client that
/// connects to the two in turn the label never decreases, and no connection that starts after an acknowledgement has an
/// older label.
#[test]
fn labels_never_go_back() {
    let node = Node::start();
    node.ringlb(&["network", "create", "net", "--subnet", "10.0.0.0/8", "--vip-prefix", "10.192.0.0/16"]);
    let (backend, client) = (node.container(11), node.container(100));
    // All labels live in one namespace, reached over one neighbour: the kernel's table of neighbours is small.
    backend.output("ip", &["route", "add", "local", "10.64.0.0/10", "dev", "lo"]);
    serve_labels(&backend);
    let acknowledged = AtomicU32::new(0);
    let mut admin = node.admin();
    let mut move_to = |label: u32| {
        admin.done("POST", "/v1/apply", &desired_state(&node, label));
        acknowledged.store(label, Ordering::SeqCst);
    };
    move_to(1);
    let sandbox = Container { namespace: node.sandbox(), address: backend.address };
    sandbox.output("ip", &["route", "add", "10.64.0.0/10", "via", "10.0.0.11"]);

    let (done, reset, running) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(true));
    let mut batches = 1;
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| client.run(|| watch_labels(&acknowledged, &done, &reset)))).collect();
        while running.load(Ordering::SeqCst) {
            batches += 1;
            move_to(batches);
            running.store(clients.iter().any(|client| !client.is_finished()), Ordering::SeqCst);
        }
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    let (done, reset) = (done.into_inner(), reset.into_inner());
    println!("{done} connections over {batches} batches, {reset} cut by the removal of their backend");
    assert!(done >= CONNECTIONS && batches > 100, "{done} connections, {batches} batches");
    assert!(reset < done / 10, "{reset} of {done} connections were cut");
}

/// How many batches a backend drains before it is removed, so that connections have time to end.
const DRAINING: u32 = 12;

/// The backend of this batch; those of the batches before drain. Written by hand: the test must not be busier with its
/// documents than the daemon is with the changes.
fn desired_state(node: &Node, label: u32) -> String {
    let address = |label: u32| Ipv4Addr::from(FIRST + label);
    let mut backends = format!(r#"{{"ip": "{}"}}"#, address(label));
    for older in label.saturating_sub(DRAINING).max(1)..label {
        backends += &format!(r#", {{"ip": "{}", "drain": true}}"#, address(older));
    }
    let service = |name: &str, vip: &str| format!(r#"{{"name": "{name}", "vip": "{vip}", "backends": [{backends}]}}"#);
    let attachment = |last: u8| {
        let netns = node.container_path(last);
        format!(r#"{{"name": "container-{last}", "netns": "{netns}", "ip": "10.0.0.{last}"}}"#)
    };
    format!(
        r#"{{"version": 1, "networks": [{{"name": "net", "subnet": "10.0.0.0/8", "vip_prefix": "10.192.0.0/16",
            "attachments": [{}, {}], "services": [{}, {}]}}]}}"#,
        attachment(11),
        attachment(100),
        service("a", "10.192.0.1"),
        service("b", "10.192.0.2"),
    )
}

/// Says the label of the address that was connected to, then closes.
fn serve_labels(backend: &Container) {
    let listener = backend.listen(80);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            if let Ok(SocketAddr::V4(address)) = stream.local_addr() {
                let _ = stream.write_all(&(u32::from(*address.ip()).wrapping_sub(FIRST)).to_be_bytes());
            }
        }
    });
}

/// Connects to the two services in turn until all clients together have made enough connections.
fn watch_labels(acknowledged: &AtomicU32, done: &AtomicU64, reset: &AtomicU64) {
    let mut last = 0;
    for turn in 0.. {
        if done.load(Ordering::Relaxed) >= CONNECTIONS {
            return;
        }
        let vip = IpAddr::from([10, 192, 0, 1 + (turn % 2) as u8]);
        let floor = acknowledged.load(Ordering::SeqCst);
        let mut said = Vec::new();
        // To the end: who closes first keeps the port, and the client's ports would run short.
        let outcome = TcpStream::connect((vip, 80)).and_then(|mut stream| {
            stream.set_read_timeout(Some(crate::node::PATIENCE))?;
            stream.read_to_end(&mut said)
        });
        // A connection that is still open when its backend is removed, batches later, is cut.
        if let Err(error) = outcome {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
            reset.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let label = u32::from_be_bytes(said.try_into().unwrap());
        assert!(label >= last, "label {label} after {last}");
        assert!(label >= floor, "label {label} although {floor} was acknowledged before");
        last = label;
        done.fetch_add(1, Ordering::Relaxed);
    }
}
