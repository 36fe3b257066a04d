//! HTTP/2: nghttpd, with h2load as the client.

use super::{Stage, VIP, number_before, pattern, text};

const PORT: u16 = 8080;
const CONNECTIONS: u64 = 8;

#[test]
fn h2load_over_thousands_of_streams() {
    let stage = Stage::new();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("small"), pattern(1_000)).unwrap();
    // Larger than a stream's and a connection's first window (65,535 bytes, RFC 9113, 6.9.2): the client's updates of the
    // windows have to come through between the data.
    std::fs::write(directory.path().join("large"), pattern(300_000)).unwrap();
    let (root, port) = (directory.path().to_str().unwrap(), PORT.to_string());
    let _servers = stage.backends.each_ref().map(|backend| {
        let server = backend.spawn("nghttpd", &["--no-tls", "-d", root, &port]);
        backend.wait_for_port(PORT);
        server
    });
    for (file, requests, size) in [("small", 20_000, 1_000), ("large", 1_000, 300_000)] {
        let url = format!("http://{VIP}:{PORT}/{file}");
        let (clients, total) = (CONNECTIONS.to_string(), u64::to_string(&requests));
        let said = text(
            stage.client.output("h2load", &["-n", &total, "-c", &clients, "-m", "100", "-w", "16", "-W", "16", &url]),
        );
        for (word, expected) in
            [(" succeeded", requests), (" failed", 0), (" errored", 0), (" timeout", 0), (" 2xx", requests)]
        {
            assert_eq!(number_before(word, &said), expected, "{word}: {said}");
        }
        assert!(said.contains(&format!("({}) data", requests * size)), "{said}");
    }
    assert_eq!(stage.connections(), [CONNECTIONS; 2]);
    stage.assert_nothing_failed();
}
