//! Who may do what over TCP.

use crate::support::{Daemon, http_tcp};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

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
