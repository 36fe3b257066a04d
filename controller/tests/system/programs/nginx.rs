//! nginx, with curl and wrk as clients.

use super::{Server, Stage, VIP, number_before, one_backend, pattern, text};
use crate::node::Container;
use nix::sys::signal::Signal;
use std::path::Path;

const STATUS_PORT: u16 = 8080;

/// nginx that serves the files of `directory` on port 80, and its counters on another one.
fn serve(backend: &Container, directory: &Path) -> Server {
    let root = directory.to_str().unwrap();
    let name = backend.address;
    let configuration = format!(
        "worker_processes 1; pid {root}/{name}.pid; error_log {root}/{name}.log; daemon off; user root;
         events {{ worker_connections 256; }}
         http {{ access_log off; client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;
                 uwsgi_temp_path {root}/d; scgi_temp_path {root}/e; keepalive_requests 10000000;
                 server {{ listen 80; root {root}; }}
                 server {{ listen {STATUS_PORT}; stub_status; }} }}"
    );
    let path = directory.join(format!("{name}.conf"));
    std::fs::write(&path, configuration).unwrap();
    let process = backend.spawn("nginx", &["-c", path.to_str().unwrap()]);
    let server = Server { process, end: Signal::SIGTERM };
    backend.wait_for_port(80);
    server
}

/// How many requests it has answered. `stub_status` says `accepts handled requests` in its third line.
fn requests(backend: &Container) -> u64 {
    let said = text(backend.output("curl", &["-sS", "--fail", &format!("http://127.0.0.1:{STATUS_PORT}/")]));
    let count = said.lines().nth(2).and_then(|line| line.split_whitespace().nth(2)?.parse().ok());
    count.unwrap_or_else(|| panic!("{said}"))
}

#[test]
fn curl_with_keep_alive_from_nginx() {
    let (_node, backend, client) = one_backend();
    let directory = tempfile::tempdir().unwrap();
    let page = pattern(5_000_000);
    std::fs::write(directory.path().join("large"), &page).unwrap();
    std::fs::write(directory.path().join("small"), b"hello").unwrap();
    let _nginx = serve(&backend, directory.path());
    // One curl, one connection, a hundred requests.
    let small = format!("http://{VIP}/small?[1-100]");
    let connects = text(client.output("curl", &["-sS", "--fail", "-w", "%{num_connects} ", "-o", "/dev/null", &small]));
    let opened: u32 = connects.split_whitespace().map(|count| count.parse::<u32>().unwrap()).sum();
    assert_eq!((opened, connects.split_whitespace().count()), (1, 100), "keep-alive was lost: {connects}");
    let large = client.output("curl", &["-sS", "--fail", &format!("http://{VIP}/large")]);
    assert!(large == page, "the file came through changed");
}

/// wrk, with connections that are kept and with one for each request.
#[test]
fn wrk_from_two_nginx() {
    let stage = Stage::new();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("small"), pattern(1_000)).unwrap();
    let _servers = stage.backends.each_ref().map(|backend| serve(backend, directory.path()));
    let before = stage.backends.each_ref().map(requests);
    let url = format!("http://{VIP}/small");
    let mut answered = 0;
    for header in ["Connection: keep-alive", "Connection: close"] {
        let said = text(stage.client.output("wrk", &["-t", "2", "-c", "32", "-d", "1s", "-H", header, &url]));
        // wrk prints either line only if there is something to tell.
        assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
        let requests = number_before(" requests in", &said);
        assert!(requests > 100, "{said}");
        answered += requests;
    }
    let [first, second] = [0, 1].map(|index| requests(&stage.backends[index]) - before[index]);
    // Each of the two runs may end with a request under way on each connection, and the question itself counts once.
    let unread = (first + second).saturating_sub(answered);
    assert!(
        first > 0 && second > 0 && first + second >= answered && unread <= 2 * 32 + 2,
        "{first} {second} {answered}"
    );
    stage.assert_nothing_failed();
}
