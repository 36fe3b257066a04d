//! Connections that are over soon: how few packets they take, and that their ends are whole.

use crate::node::{Container, Node, PATIENCE, snmp_counter, wait_until};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 200, 1));
const PORT: u16 = 80;

struct Site {
    node: Node,
    client: Container,
    backend: Container,
    listener: TcpListener,
}

impl Site {
    fn new() -> Self {
        let node = Node::with_network();
        let (client, backend) = (node.container(100), node.container(11));
        node.service("web", VIP, "rr", &[&backend]);
        let listener = backend.listen(PORT);
        Self { node, client, backend, listener }
    }

    fn wait_until_all_have_ended(&self) {
        wait_until("the proxy has no connection", || self.node.active() == 0);
    }

    /// Makes so many connections one after the other, with a question and an answer each. How many packets the sandbox
    /// has sent for them.
    fn packets_of(&self, connections: usize) -> u64 {
        let sandbox = self.node.sandbox();
        let sent = || snmp_counter(&sandbox, "Tcp", "OutSegs");
        let before = sent();
        for _ in 0..connections {
            let mut client = self.client.connect(SocketAddr::new(VIP, PORT));
            client.write_all(b"question").unwrap();
            let (mut backend, _) = self.listener.accept().unwrap();
            let mut question = [0; 8];
            backend.read_exact(&mut question).unwrap();
            backend.write_all(b"answer").unwrap();
            let mut answer = [0; 6];
            client.read_exact(&mut answer).unwrap();
            drop(client);
            assert_eq!((backend.read(&mut question).unwrap(), &question, &answer), (0, b"question", b"answer"));
        }
        self.wait_until_all_have_ended();
        sent() - before
    }
}

/// Once clients have spoken first often enough, a backend's answer to a connect is acknowledged with the client's first bytes.
#[test]
fn a_packet_is_saved_where_clients_speak_first() {
    let site = Site::new();
    site.packets_of(1);
    let before = site.packets_of(50);
    site.packets_of(20);
    let after = site.packets_of(50);
    // One less for each; the kernel decides about some others.
    assert!(after + 40 <= before, "{after} packets after {before}");
}

/// Both ends have said that they are done, and the backend has not got everything: the proxy's socket is not used again before.
#[test]
fn what_is_not_acknowledged_at_the_end_is_repeated() {
    let site = Site::new();
    let mut client = site.client.connect(SocketAddr::new(VIP, PORT));
    client.write_all(b"first").unwrap();
    let (mut backend, _) = site.listener.accept().unwrap();
    backend.read_exact(&mut [0; 5]).unwrap();
    let lose = "table ip loss { chain arrival { type filter hook input priority 0; meta l4proto tcp drop; }; }";
    site.backend.output("nft", &[lose]);
    client.write_all(b"last").unwrap();
    backend.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    site.wait_until_all_have_ended();
    site.backend.output("nft", &["delete", "table", "ip", "loss"]);
    backend.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut last = Vec::new();
    backend.read_to_end(&mut last).unwrap();
    assert_eq!(last, b"last");
}
