//! The PROXY protocol towards backends and from trusted peers, with real connections.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::message::{Algorithm, Change, ServiceSettings, ServiceSpec};
use ringlb_proxy::control::settings::{MaxConnectionsPerClient, Prefixes, ProxyProtocol, ProxyProtocolTimeout};
use ringlb_proxy::proxy_protocol::{self, Addresses, Progress, Transport, Version, version1, version2};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use support::{
    Options, Proxy, address, backend, bulk, echo, listen, listen_as_group, patience, read_pattern, reset, serve,
    write_pattern,
};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 1, 1));

fn start(vip: IpAddr, settings: ServiceSettings) -> Proxy {
    let options =
        Options { arguments: vec!["--threads", "3"], listeners: listen_as_group(vip, 3), ..Options::default() };
    let mut proxy = Proxy::start_without_table(&options);
    proxy.snapshot(vec![spec(vip, settings)]);
    proxy
}

fn spec(vip: IpAddr, settings: ServiceSettings) -> ServiceSpec {
    ServiceSpec { name: "s".into(), vips: vec![vip], settings, published: Vec::new(), backends: vec![backend(1)] }
}

fn set(proxy: &mut Proxy, settings: ServiceSettings) {
    let spec = spec(proxy.target.ip(), settings);
    proxy.change(vec![Change::PutService(Arc::new(spec))]);
}

fn telling(proxy_protocol: ProxyProtocol) -> ServiceSettings {
    ServiceSettings { proxy_protocol, ..ServiceSettings::default() }
}

fn trusting(prefix: &str) -> ServiceSettings {
    ServiceSettings { accept_proxy_protocol: Prefixes(vec![prefix.parse().unwrap()]), ..ServiceSettings::default() }
}

fn listen_as_backend(proxy: &Proxy) -> TcpListener {
    listen(SocketAddr::new(address(1), proxy.target.port()))
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(patience())).unwrap();
    stream
}

/// Reads a header from the stream and nothing behind it.
fn read_header(stream: &mut TcpStream) -> (Version, Addresses) {
    let mut bytes = Vec::new();
    loop {
        match proxy_protocol::read(&bytes).unwrap() {
            Progress::Missing(count) => {
                let mut more = vec![0; count];
                stream.read_exact(&mut more).unwrap();
                bytes.extend(more);
            }
            Progress::Complete(header) => {
                assert_eq!(header.length, bytes.len());
                let (transport, addresses) = header.relayed.unwrap();
                assert_eq!(transport, Transport::Stream);
                return (header.version, addresses);
            }
        }
    }
}

fn somebody() -> Addresses {
    Addresses { source: "192.0.2.7:4711".parse().unwrap(), destination: "198.51.100.1:443".parse().unwrap() }
}

fn is_reset<T>(outcome: Result<T, std::io::Error>) -> bool {
    outcome.is_err_and(|error| matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}

/// The header is first and exact, also where the backend speaks before the client does, and bytes are counted without it.
#[test]
fn a_backend_is_told_the_client_and_the_vip() {
    let mut proxy = start(VIP, telling(ProxyProtocol::V1));
    let listener = listen_as_backend(&proxy);
    for (setting, version) in [(ProxyProtocol::V1, Version::One), (ProxyProtocol::V2, Version::Two)] {
        set(&mut proxy, telling(setting));
        let before = proxy.statistics().services[0].backends[0].bytes_to_backend;
        let mut client = proxy.connect_from([127, 0, 3, 5].into());
        let mut server = accept(&listener);
        let (found, addresses) = read_header(&mut server);
        let source = client.local_addr().unwrap();
        assert_eq!((found, addresses), (version, Addresses { source, destination: proxy.target }));
        server.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        client.write_all(b"there").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"there");
        let statistics = proxy.statistics();
        assert_eq!(statistics.services[0].backends[0].bytes_to_backend - before, 5);
    }
    set(&mut proxy, telling(ProxyProtocol::Off));
    let mut client = proxy.connect();
    client.write_all(b"plain").unwrap();
    let mut server = accept(&listener);
    let mut plain = [0; 5];
    server.read_exact(&mut plain).unwrap();
    assert_eq!(&plain, b"plain");
}

#[test]
fn over_ipv6() {
    let vip = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mut proxy = start(vip, telling(ProxyProtocol::V1));
    let listener = listen_as_backend(&proxy);
    for setting in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let settings = ServiceSettings { proxy_protocol: setting, ..trusting("2001:db8::/32") };
        set(&mut proxy, settings);
        let client = proxy.connect();
        let (_, addresses) = read_header(&mut accept(&listener));
        assert_eq!(addresses, Addresses { source: client.local_addr().unwrap(), destination: proxy.target });
    }
    // From a trusted peer, about somebody who came over IPv6 too.
    set(&mut proxy, ServiceSettings { proxy_protocol: ProxyProtocol::V2, ..trusting("::1") });
    let relayed =
        Addresses { source: "[2001:db8::7]:4711".parse().unwrap(), destination: "[2001:db8::1]:443".parse().unwrap() };
    for header in [version1(relayed), version2(Transport::Stream, relayed)] {
        proxy.connect().write_all(&header).unwrap();
        assert_eq!(read_header(&mut accept(&listener)).1, relayed);
    }
}

/// Much data at once behind a header, both ways: not a byte is lost, doubled or taken for the header.
#[test]
fn bulk_behind_headers_arrives() {
    let settings = ServiceSettings { proxy_protocol: ProxyProtocol::V2, ..trusting("127.0.0.0/8") };
    let proxy = start(VIP, settings);
    let listener = listen_as_backend(&proxy);
    let total = bulk(20_000_000);
    let mut client = proxy.connect();
    let mut writer = client.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        writer.write_all(&version1(somebody())).unwrap();
        write_pattern(&mut writer, total).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut server = accept(&listener);
    assert_eq!(read_header(&mut server), (Version::Two, somebody()));
    let mut answers = server.try_clone().unwrap();
    let answerer = std::thread::spawn(move || {
        write_pattern(&mut answers, total).unwrap();
        answers.shutdown(Shutdown::Write).unwrap();
    });
    let reader = std::thread::spawn(move || read_pattern(&mut client).unwrap());
    assert_eq!(read_pattern(&mut server).unwrap(), total);
    assert_eq!(reader.join().unwrap(), total);
    sender.join().unwrap();
    answerer.join().unwrap();
}

/// A trusted peer's header in any pieces, with or without data in the last one.
#[test]
fn a_trusted_header_may_come_in_pieces() {
    let proxy = start(VIP, ServiceSettings { proxy_protocol: ProxyProtocol::V1, ..trusting("127.0.0.0/8") });
    let listener = listen_as_backend(&proxy);
    let headers = [version1(somebody()).to_vec(), version2(Transport::Stream, somebody()).to_vec()];
    for header in headers {
        for size in [1, 7, 16, 40, header.len(), header.len() + 2] {
            let mut client = proxy.connect();
            client.set_nodelay(true).unwrap();
            for part in [&header[..], b"data"].concat().chunks(size) {
                client.write_all(part).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
            let mut server = accept(&listener);
            assert_eq!(read_header(&mut server), (Version::One, somebody()), "in pieces of {size}");
            let mut data = [0; 4];
            server.read_exact(&mut data).unwrap();
            assert_eq!(&data, b"data");
        }
    }
}

/// A header that tells nothing leaves the peer's own address.
#[test]
fn local_and_unknown_mean_the_peer_itself() {
    let proxy = start(VIP, ServiceSettings { proxy_protocol: ProxyProtocol::V2, ..trusting("127.0.0.0/8") });
    let listener = listen_as_backend(&proxy);
    for version in [Version::One, Version::Two] {
        let mut client = proxy.connect();
        client.write_all(&proxy_protocol::unknown(version)).unwrap();
        let (_, addresses) = read_header(&mut accept(&listener));
        assert_eq!(addresses, Addresses { source: client.local_addr().unwrap(), destination: proxy.target });
    }
}

#[test]
fn what_is_no_header_is_refused_and_counted() {
    let mut settings = trusting("127.0.0.0/8");
    settings.proxy_protocol_timeout = ProxyProtocolTimeout(Duration::from_millis(300));
    let mut proxy = start(VIP, settings);
    serve(1, proxy.target.port(), echo);
    let wrong: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.2.3.4\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31", b"PROXY \n"];
    for bytes in wrong {
        let mut client = proxy.connect();
        client.write_all(bytes).unwrap();
        assert!(is_reset(client.read(&mut [0])), "{}", bytes.escape_ascii());
    }
    // The end instead of a whole header, and none at all.
    for bytes in [&b""[..], b"PROXY TCP4 "] {
        let mut client = proxy.connect();
        client.write_all(bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(is_reset(client.read(&mut [0])));
    }
    for bytes in [&b""[..], b"PROXY TCP4 "] {
        let mut client = proxy.connect();
        client.write_all(bytes).unwrap();
        assert!(is_reset(client.read(&mut [0])));
    }
    let mut gone = proxy.connect();
    gone.write_all(b"PROXY TCP4 ").unwrap();
    proxy.wait_for("it is there", |statistics| statistics.proxy.active == 1);
    reset(gone);
    let statistics = proxy.wait_for("nobody is there", |statistics| statistics.proxy.active == 0);
    let counters = &statistics.proxy;
    assert_eq!((counters.refused_header_invalid, counters.refused_header_timeout, counters.client_resets), (6, 2, 1));
    assert_eq!(statistics.services[0].connections, 0, "a backend was connected to");
}

/// Who resets before being accepted has no address any more. It may have been a trusted peer, so no backend hears of it.
#[test]
fn who_is_gone_before_being_accepted_reaches_no_backend() {
    let mut proxy = Proxy::start_without_table(&Options::default());
    serve(1, proxy.target.port(), echo);
    let mut gone = proxy.connect();
    gone.write_all(b"PROXY TCP4 ").unwrap();
    reset(gone);
    proxy.snapshot(vec![spec(proxy.target.ip(), trusting("127.0.0.0/8"))]);
    let statistics = proxy.wait_for("it is gone", |statistics| statistics.proxy.client_resets == 1);
    assert_eq!(statistics.services[0].connections, 0, "a backend was connected to");
}

/// From somebody who is not trusted a header is data like any other, and believed by nobody here.
#[test]
fn a_header_from_anybody_else_is_data() {
    let mut settings = trusting("127.0.3.0/24");
    settings.deny = Prefixes(vec!["192.0.2.0/24".parse().unwrap()]);
    let proxy = start(VIP, settings);
    serve(1, proxy.target.port(), echo);
    let header = version1(somebody());
    let mut client = proxy.connect_from([127, 0, 4, 1].into());
    client.write_all(&header).unwrap();
    let mut back = vec![0; header.len()];
    client.read_exact(&mut back).unwrap();
    assert_eq!(back, *header);
    // A trusted one is believed: this client may not come in.
    let mut client = proxy.connect_from([127, 0, 3, 1].into());
    client.write_all(&header).unwrap();
    assert!(is_reset(client.read(&mut [0])));
}

/// Limits and hashes are those of whom the header names, not of the peer that all come through.
#[test]
fn the_relayed_address_counts_for_limits_and_hashes() {
    let settings = ServiceSettings {
        max_connections_per_client: MaxConnectionsPerClient(1),
        algorithm: Algorithm::SourceHash,
        ..trusting("127.0.0.0/8")
    };
    let mut proxy = start(VIP, settings.clone());
    let backends: Vec<_> = (1..=8).map(backend).collect();
    let service = ServiceSpec { name: "s".into(), vips: vec![VIP], settings, published: Vec::new(), backends };
    proxy.change(vec![Change::PutService(Arc::new(service))]);
    for n in 1..=8 {
        serve(n, proxy.target.port(), move |mut stream| {
            let _ = stream.write_all(&[n]);
            echo(stream);
        });
    }
    let number = |source: &str| {
        let mut client = proxy.connect();
        client.write_all(&version2(Transport::Stream, Addresses { source: source.parse().unwrap(), ..somebody() }))?;
        let mut number = [0];
        client.read_exact(&mut number)?;
        Ok::<_, std::io::Error>((number[0], client))
    };
    let clients: Vec<_> = (1..=20).map(|last| number(&format!("192.0.2.{last}:1000")).unwrap()).collect();
    assert!(clients.iter().any(|(number, _)| *number != clients[0].0), "all went to one backend");
    assert!(is_reset(number("192.0.2.1:2000").map(drop)));
    let first = clients[0].0;
    drop(clients);
    proxy.wait_for("all have ended", |statistics| statistics.proxy.active == 0);
    let number = |source: &str| {
        let mut client = proxy.connect();
        client.write_all(&version1(Addresses { source: source.parse().unwrap(), ..somebody() })).unwrap();
        let mut number = [0];
        client.read_exact(&mut number).unwrap();
        number[0]
    };
    assert_eq!(number("192.0.2.1:3000"), first);
}
