//! Who may do what over TCP.

use crate::support::{Daemon, http_tcp, read_response};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// An address that nobody listens on, in this test's own network namespace.
pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn tcp_needs_the_token_and_the_socket_its_owner() {
    let address = free_address();
    let daemon = Daemon::start_with(&["--admin-listen", &address], &[]);
    let mode = |file: &str| std::fs::metadata(daemon.run_dir().join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("admin.sock"), mode("admin.token"), mode("control")), (0o600, 0o600, 0o700));
    let token = std::fs::read_to_string(daemon.run_dir().join("admin.token")).unwrap();
    let token = token.trim();

    for path in ["/healthz", "/readyz"] {
        assert_eq!(http_tcp(&address, "GET", path, "").status, 200, "{path}");
    }
    let wrong = format!("Authorization: Bearer {}\r\n", token.replace(&token[..1], "z"));
    let longer = format!("Authorization: Bearer {token}0\r\n");
    let basic = format!("Authorization: Basic {token}\r\n");
    for headers in ["", &wrong, &longer, &basic, "Authorization: Bearer\r\n", "Authorization: Bearer \r\n"] {
        for (method, path) in [
            ("GET", "/v1/status"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("GET", "/nothing"),
            ("PUT", "/v1/networks/web/services/api"),
            ("DELETE", "/v1/networks/web"),
            ("POST", "/healthz"),
        ] {
            let response = http_tcp(&address, method, path, headers);
            let expected = if path == "/healthz" { 405 } else { 401 };
            assert_eq!(response.status, expected, "{method} {path} with {headers:?}");
            if expected == 401 {
                assert_eq!(response.header("www-authenticate"), Some("Bearer"));
                assert_eq!(response.header("content-type"), Some("application/problem+json"));
                assert!(!response.body.to_string().contains(token));
            }
        }
    }
    let right = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(http_tcp(&address, "GET", "/v1/status", &right).status, 200);
    assert_eq!(http_tcp(&address, "GET", "/metrics", &right).status, 200);
    assert_eq!(http_tcp(&address, "DELETE", "/v1/networks/web", &right).status, 404);
}

/// The names of another host are refused, as a page has them whose own name was made to lead here; with the token, too.
#[test]
fn a_request_must_be_for_this_daemon() {
    let address = free_address();
    let daemon = Daemon::start_with(&["--admin-listen", &address, "--admin-host", "node-1.example"], &[]);
    let token = std::fs::read_to_string(daemon.run_dir().join("admin.token")).unwrap();
    let token = token.trim();
    let status = |path: &str, host: &str| {
        let headers = format!("Host: {host}\r\nAuthorization: Bearer {token}\r\n");
        http_tcp(&address, "GET", path, &headers).status
    };
    for path in ["/v1/status", "/healthz"] {
        for host in ["127.0.0.1", "[::1]:80", "localhost", "node-1.example:9480", "NODE-1.example"] {
            assert_eq!(status(path, host), 200, "{path} {host}");
        }
        for host in ["evil.example", "evil.example:9480", "", "127.0.0.1\r\nHost: evil.example"] {
            assert_eq!(status(path, host), 421, "{path} {host}");
        }
    }
    let refused = http_tcp(&address, "GET", "/v1/status", "Host: evil.example\r\n");
    assert_eq!(refused.body["type"], "urn:ringlb:problem:misdirected-request");
    // HTTP/1.0, as simple health checks speak it.
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut stream).status, 200);
}

/// Whoever is too slow, or sends too much, loses the connection, before any token is asked for.
#[test]
fn slow_and_endless_clients_are_cut_off() {
    let address = free_address();
    let daemon = Daemon::start_with(&["--admin-listen", &address], &[]);
    let token = std::fs::read_to_string(daemon.run_dir().join("admin.token")).unwrap();
    let token = token.trim();
    let begin = |text: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n");
    let mut idle = begin("");
    let mut slow_head = begin("GET /healthz HTTP/1.1\r\nHost:");
    let mut slow_body =
        begin(&(request("POST /v1/apply") + "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"));
    // Meanwhile: heads without an end, of many headers and of one.
    for endless in ["A: b\r\n".repeat(20_000), format!("A: {}", "b".repeat(100_000))] {
        let mut stream = begin("GET /healthz HTTP/1.1\r\n");
        // It may be refused before it is all sent.
        let _ = stream.write_all(endless.as_bytes());
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{ended:?} {answer}");
    }
    for stream in [&mut idle, &mut slow_head] {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert_eq!(read_response(&mut slow_body).status, 408);
}

#[test]
fn a_token_of_ones_own_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "a-token-of-my-own-0123\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let address = free_address();
    let arguments = ["--admin-listen", &address, "--admin-token-file", file.to_str().unwrap()];
    let daemon = Daemon::start_with(&arguments, &[]);
    assert!(!daemon.run_dir().join("admin.token").exists());
    let right = "Authorization: bearer a-token-of-my-own-0123\r\n";
    assert_eq!(http_tcp(&address, "GET", "/v1/networks", right).status, 200);
}
