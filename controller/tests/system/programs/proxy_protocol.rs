//! Who the client is, told by the PROXY protocol: to nginx and HAProxy behind a VIP, and by HAProxy in front of one.

use super::{Server, VIP, text};
use crate::node::{Container, Node};
use nix::sys::signal::Signal;
use std::net::IpAddr;
use std::path::Path;

const CLIENT: &str = "10.0.0.100";
const SECOND_VIP: &str = "10.0.200.2";

/// nginx on port 80, which says who the client is and where it went, as the header says. It also logs that.
fn serve_nginx(backend: &Container, directory: &Path) -> Server {
    let root = directory.to_str().unwrap();
    let configuration = format!(
        "worker_processes 1; pid {root}/nginx.pid; error_log {root}/nginx.log; daemon off; user root;
         events {{ worker_connections 64; }}
         http {{ client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;
                 uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;
                 log_format client '$remote_addr'; access_log {root}/access client;
                 server {{ listen 80 proxy_protocol; set_real_ip_from 10.0.0.0/16; real_ip_header proxy_protocol;
                           default_type text/plain;
                           location / {{ return 200 '$remote_addr $proxy_protocol_server_addr $proxy_protocol_server_port'; }} }} }}"
    );
    let path = directory.join("nginx.conf");
    std::fs::write(&path, configuration).unwrap();
    let process = backend.spawn("nginx", &["-c", path.to_str().unwrap()]);
    backend.wait_for_port(80);
    Server { process, end: Signal::SIGTERM }
}

fn run_haproxy(container: &Container, directory: &Path, port: u16, section: &str) -> Server {
    let configuration = format!(
        "global\n maxconn 100\ndefaults\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n{section}\n"
    );
    let path = directory.join(format!("haproxy-{}.cfg", container.address));
    std::fs::write(&path, configuration).unwrap();
    let process = container.spawn("haproxy", &["-db", "-f", path.to_str().unwrap()]);
    container.wait_for_port(port);
    Server { process, end: Signal::SIGTERM }
}

fn get(client: &Container, address: &str, port: u16) -> String {
    text(client.output("curl", &["-sS", "--fail", &format!("http://{address}:{port}/")]))
}

#[test]
fn the_clients_address_comes_through() {
    let node = Node::with_network();
    let (nginx, haproxy, front) = (node.container(11), node.container(12), node.container(50));
    let client = node.container(100);
    assert_eq!(client.address, CLIENT.parse::<IpAddr>().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let _nginx = serve_nginx(&nginx, directory.path());
    let section = "frontend web\n mode http\n bind :80 accept-proxy\n http-request return status 200 content-type text/plain lf-string \"%[src] %[dst] %[dst_port]\"";
    let _haproxy = run_haproxy(&haproxy, directory.path(), 80, section);
    node.service("nginx", VIP.parse().unwrap(), "rr", &[&nginx]);
    node.service("haproxy", SECOND_VIP.parse().unwrap(), "rr", &[&haproxy]);

    for version in ["v1", "v2"] {
        for (service, vip) in [("nginx", VIP), ("haproxy", SECOND_VIP)] {
            node.ringlb(&["service", "create", "net", service, "--vip", vip, "--proxy-protocol", version]);
            assert_eq!(get(&client, vip, 80), format!("{CLIENT} {vip} 80"), "{service} by {version}");
        }
    }

    // HAProxy in front of the VIP is believed, and passes on whom it speaks for; the client itself still may come directly.
    let through = front.address.to_string();
    node.ringlb(&["service", "create", "net", "nginx", "--vip", VIP, "--accept-proxy-protocol", &through]);
    let section = format!("listen front\n mode tcp\n bind :8080\n server vip {VIP}:80 send-proxy-v2");
    let _front = run_haproxy(&front, directory.path(), 8080, &section);
    for version in ["v1", "v2"] {
        let flags = ["--proxy-protocol", version, "--accept-proxy-protocol", &through];
        node.ringlb(&[&["service", "create", "net", "nginx", "--vip", VIP][..], &flags].concat());
        assert_eq!(get(&client, &through, 8080), format!("{CLIENT} {through} 8080"), "by {version}");
        assert_eq!(get(&client, VIP, 80), format!("{CLIENT} {VIP} 80"), "directly");
    }
    let logged = std::fs::read_to_string(directory.path().join("access")).unwrap();
    assert!(logged.lines().count() >= 6 && logged.lines().all(|line| line == CLIENT), "{logged}");

    // What the header says decides who may come in.
    let flags = ["--proxy-protocol", "v2", "--accept-proxy-protocol", &through, "--deny", CLIENT];
    node.ringlb(&[&["service", "create", "net", "nginx", "--vip", VIP][..], &flags].concat());
    let refused = client.command("curl", &["-sS", &format!("http://{through}:8080/")]).output().unwrap();
    assert!(!refused.status.success(), "a client that is denied came in through the front");
    let connections = &node.ringlb(&["status"])["networks"][0]["connections"];
    // HAProxy takes a reset that comes early for a failed connect, and tries again.
    assert!(connections["refused_denied"].as_u64() >= Some(1), "{connections:#}");
}
