//! The metrics, with proxies that say known numbers.

use crate::authorization::free_address;
use crate::fake_proxy::FakeProxy;
use crate::support::exposition::Exposition;
use crate::support::{Daemon, Response, http_tcp, pause, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb::admin::metrics::METRICS;
use ringlb_netns::Namespace;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

/// A scrape must be answered by then, with whatever proxies have said.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

fn read(response: &Response) -> Exposition {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    Exposition::read(response.body.as_str().unwrap())
}

fn scrape(daemon: &Daemon) -> Exposition {
    read(&daemon.http("GET", "/metrics", None))
}

/// A network with a proxy, service `api` and backend 10.`second`.0.2.
fn add_network(daemon: &Daemon, network: &str, second: u8) {
    let namespace = format!("metrics-{network}");
    Namespace::create(&namespace).unwrap();
    let path = format!("/v1/networks/{network}");
    daemon.done("PUT", &path, Some(&json!({ "subnet": format!("10.{second}.0.0/24") }).to_string()));
    let attachment = json!({ "netns": format!("/run/netns/{namespace}") }).to_string();
    daemon.done("PUT", &format!("{path}/attachments/c1"), Some(&attachment));
    daemon.done("PUT", &format!("{path}/services/api"), None);
    let backend = format!("{path}/services/api/backends/10.{second}.0.2");
    daemon.done("PUT", &backend, Some(r#"{"weight": 7}"#));
}

/// How often the proxies were asked for statistics.
fn questions(fake: &FakeProxy) -> usize {
    fake.heard().iter().filter(|entry| **entry == "Statistics").count()
}

fn daemon_with(fake: &FakeProxy, arguments: &[&str]) -> Daemon {
    Daemon::start_with(&[&["--proxy-program", fake.program().to_str().unwrap()], arguments].concat(), &[])
}

#[test]
fn every_number_has_its_own_series() {
    let fake = FakeProxy::new("serve");
    let before = SystemTime::now();
    let daemon = daemon_with(&fake, &[]);
    add_network(&daemon, "web", 1);
    let scraped = scrape(&daemon);

    let names: BTreeSet<_> = scraped.0.keys().map(String::as_str).collect();
    assert_eq!(names, METRICS.iter().map(|metric| metric.name).collect());
    for metric in METRICS {
        let family = &scraped.0[metric.name];
        assert_eq!((family.kind.as_str(), family.help.as_str()), (metric.kind.name(), metric.help), "{}", metric.name);
        let labels: BTreeSet<_> = family.samples.keys().flat_map(|labels| labels.keys().map(String::as_str)).collect();
        assert_eq!(labels, metric.labels.iter().copied().collect(), "{}", metric.name);
    }

    let value = |name: &str, labels: &[(&str, &str)]| {
        scraped.value(name, labels).unwrap_or_else(|| panic!("no {name}{labels:?} in {scraped:#?}"))
    };
    assert_eq!(value("ringlb_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1);
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let started = value("process_start_time_seconds", &[]);
    assert!((seconds(before)..=seconds(SystemTime::now())).contains(&started), "{started}");
    for (name, expected) in [
        ("proxy_up", 1),
        ("network_generation", 3),
        ("network_acknowledged_generation", 3),
        ("proxy_restarts_total", 0),
        ("proxy_connections_accepted_total", 1),
        ("proxy_connections_active", 2),
        ("proxy_connections_refused_at_limit_total", 3),
        ("proxy_connections_no_service_total", 4),
        ("proxy_connections_no_backend_total", 5),
        ("proxy_connect_failures_total", 6),
        ("proxy_connect_retries_total", 7),
        ("proxy_connect_retries_denied_total", 14),
        ("proxy_access_log_dropped_total", 15),
        ("proxy_source_ports_exhausted_total", 16),
        ("proxy_connections_waiting", 17),
        ("ring_enters_total", 21),
        ("ring_buffers_exhausted_total", 22),
        ("ring_completion_overflows_total", 23),
        ("ring_spliced_directions_total", 24),
        ("ring_spliced_bytes_total", 25),
    ] {
        assert_eq!(value(&format!("ringlb_{name}"), &[("network", "web")]), expected, "{name}");
    }
    for (reason, expected) in [
        ("denied", 51),
        ("client-rate", 52),
        ("client-full", 53),
        ("service-full", 54),
        ("backends-full", 55),
        ("queue-full", 56),
        ("queue-timeout", 57),
        ("header-invalid", 58),
        ("header-timeout", 59),
    ] {
        let labels = [("network", "web"), ("reason", reason)];
        assert_eq!(value("ringlb_proxy_connections_refused_total", &labels), expected, "{reason}");
    }
    for (cause, expected) in
        [("client", 8), ("backend", 9), ("removed", 10), ("drain", 11), ("idle", 12), ("lifetime", 13)]
    {
        let labels = [("network", "web"), ("cause", cause)];
        assert_eq!(value("ringlb_proxy_connections_reset_total", &labels), expected, "{cause}");
    }
    let service = [("network", "web"), ("service", "api")];
    assert_eq!(value("ringlb_service_connections_total", &service), 100);
    assert_eq!(value("ringlb_service_connect_seconds", &service), 2 * 18);
    assert_eq!(value("ringlb_service_session_seconds", &service), 2 * 15);
    let backend = [("network", "web"), ("service", "api"), ("backend", "10.1.0.2")];
    for (name, expected) in [
        ("connections_total", 2001),
        ("connections_active", 2002),
        ("connect_failures_total", 2003),
        ("sent_bytes_total", 2004),
        ("received_bytes_total", 2005),
        ("ejections_total", 2011),
        ("check_failures_total", 2012),
        ("ejected", 1),
        ("unhealthy", 0),
        ("warmth_percent", 95),
        ("weight", 7),
        ("draining", 0),
    ] {
        assert_eq!(value(&format!("ringlb_backend_{name}"), &backend), expected, "{name}");
    }

    daemon.done("POST", "/v1/networks/web/services/api/backends/10.1.0.2/drain", None);
    assert_eq!(scrape(&daemon).value("ringlb_backend_draining", &backend), Some(1));
    daemon.done("DELETE", "/v1/networks/web/services/api/backends/10.1.0.2", None);
    let left = scrape(&daemon);
    assert!(left.0.keys().all(|name| !name.starts_with("ringlb_backend_")), "{left:#?}");
    assert_eq!(left.value("ringlb_network_acknowledged_generation", &[("network", "web")]), Some(5));
}

#[test]
fn a_network_without_a_proxy_is_not_down() {
    let daemon = Daemon::start();
    daemon.done("PUT", "/v1/networks/web", Some(r#"{"subnet": "10.1.0.0/24"}"#));
    let scraped = scrape(&daemon);
    let web = [("network", "web")];
    assert_eq!(scraped.value("ringlb_proxy_up", &web), None);
    assert_eq!(scraped.value("ringlb_network_generation", &web), Some(1));
    assert_eq!(scraped.value("ringlb_network_acknowledged_generation", &web), Some(1));
}

#[test]
fn a_restart_is_counted() {
    let fake = FakeProxy::new("serve");
    let daemon = daemon_with(&fake, &[]);
    add_network(&daemon, "web", 1);
    kill(Pid::from_raw(daemon.proxy_pid().unwrap()), Signal::SIGKILL).unwrap();
    let web = [("network", "web")];
    wait_until("the restart is counted and the proxy is up", || {
        let scraped = scrape(&daemon);
        let value = |name| scraped.value(name, &web);
        (value("ringlb_proxy_restarts_total"), value("ringlb_proxy_up")) == (Some(1), Some(1))
    });
}

/// A proxy that stands still costs its own series and holds up nothing else.
#[test]
fn a_stopped_proxy_costs_only_its_own_series() {
    let fake = FakeProxy::new("serve");
    let address = free_address();
    let daemon = daemon_with(&fake, &["--metrics-listen", &address]);
    add_network(&daemon, "web", 1);
    add_network(&daemon, "db", 2);
    let pid = Pid::from_raw(daemon.proxy_pid_of("web"));
    let asked_before = questions(&fake);
    pause(pid);

    let began = Instant::now();
    let scraped = read(&http_tcp(&address, "GET", "/metrics", ""));
    assert!(began.elapsed() < SCRAPE_TIMEOUT, "{:?}", began.elapsed());
    let (web, db) = ([("network", "web")], [("network", "db")]);
    assert_eq!((scraped.value("ringlb_proxy_up", &web), scraped.value("ringlb_proxy_up", &db)), (Some(0), Some(1)));
    for name in ["ringlb_proxy_connections_accepted_total", "ringlb_ring_enters_total"] {
        assert!(scraped.value(name, &web).is_none() && scraped.value(name, &db).is_some(), "{name}");
    }
    // What the daemon knows by itself is there all the same.
    assert_eq!(scraped.value("ringlb_network_generation", &web), Some(3));
    let backend = [("network", "web"), ("service", "api"), ("backend", "10.1.0.2")];
    assert_eq!(scraped.value("ringlb_backend_weight", &backend), Some(7));

    // Many scrapes at once share a round of questions. Meanwhile a change of the other network takes no second.
    let began = Instant::now();
    std::thread::scope(|scope| {
        let scrapes: Vec<_> = (0..40)
            .map(|index| {
                let (daemon, address) = (&daemon, &address);
                let over_tcp = index % 4 == 0;
                scope.spawn(
                    move || {
                        if over_tcp { read(&http_tcp(address, "GET", "/metrics", "")) } else { scrape(daemon) }
                    },
                )
            })
            .collect();
        let change = daemon.done("PUT", "/v1/networks/db/services/api/backends/10.2.0.3", None);
        let microseconds = change["acknowledged_in_us"].as_u64().unwrap();
        assert!(microseconds < 1_000_000, "a change waited {microseconds} µs for scrapes");
        for scrape in scrapes {
            assert_eq!(scrape.join().unwrap().value("ringlb_proxy_up", &web), Some(0));
        }
    });
    assert!(began.elapsed() < 2 * SCRAPE_TIMEOUT, "{:?}", began.elapsed());

    // So far only the proxy that runs has heard anything: one question a round.
    let asked = questions(&fake) - asked_before;
    assert!(asked <= 10, "{asked} questions for 41 scrapes");

    kill(pid, Signal::SIGCONT).unwrap();
    wait_until("the proxy is up again", || scrape(&daemon).value("ringlb_proxy_up", &web) == Some(1));
}

#[test]
fn questions_do_not_pile_up_for_a_stopped_proxy() {
    let fake = FakeProxy::new("serve");
    let daemon = daemon_with(&fake, &[]);
    add_network(&daemon, "web", 1);
    let asked_before = questions(&fake);
    let pid = Pid::from_raw(daemon.proxy_pid().unwrap());
    pause(pid);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| assert_eq!(daemon.network()["error"], "the proxy does not answer"));
        }
    });
    kill(pid, Signal::SIGCONT).unwrap();
    wait_until("the proxy is up again", || scrape(&daemon).value("ringlb_proxy_up", &[("network", "web")]) == Some(1));
    // One of `proxy_pid`, one for all who asked while it stood still, and those since.
    let asked = questions(&fake) - asked_before;
    assert!((2..=10).contains(&asked), "{asked} questions");
}

#[test]
fn the_listener_for_scrapers_serves_nothing_else() {
    let fake = FakeProxy::new("serve");
    let address = free_address();
    let daemon = daemon_with(&fake, &["--metrics-listen", &address]);
    add_network(&daemon, "web", 1);
    assert_eq!(read(&http_tcp(&address, "GET", "/metrics", "")).0.len(), METRICS.len());
    assert_eq!(http_tcp(&address, "GET", "/healthz", "").body, json!({ "alive": true }));
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/readyz", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/v1/status", 404),
        ("GET", "/v1/networks", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/metrics?name=ringlb_proxy_up", 400),
        ("DELETE", "/v1/networks/web?remove_lb=true", 404),
        ("PUT", "/v1/networks/new", 404),
        ("POST", "/v1/apply", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/metrics", 405),
        ("PUT", "/healthz", 405),
    ] {
        let response = http_tcp(&address, method, path, "");
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{method} {path}");
    }
    assert_eq!(daemon.status()["networks"].as_array().unwrap().len(), 1);
    // The admin socket has them too, described as they are.
    let description = daemon.done("GET", "/openapi.json", None);
    let content = &description["paths"]["/metrics"]["get"]["responses"]["200"]["content"];
    let response = daemon.http("GET", "/metrics", None);
    assert!(content[response.header("content-type").unwrap()].is_object(), "{content}");
}

/// Clients that say nothing keep nobody else out for long, and the daemon ends in time all the same.
#[test]
fn idle_clients_do_not_keep_scrapers_out() {
    let address = free_address();
    let daemon = Daemon::start_with(&["--metrics-listen", &address], &[]);
    let idle: Vec<_> = (0..16).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert_eq!(http_tcp(&address, "GET", "/healthz", "").status, 200);
    for mut stream in idle {
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "it was closed");
    }
    // One request for each connection.
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: ringlb\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let _idle = TcpStream::connect(&address).unwrap();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().0, Some(0));
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn an_address_that_is_taken_is_named() {
    let address = free_address();
    let _taken = std::net::TcpListener::bind(&address).unwrap();
    let run_dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(crate::support::program("ringlb"));
    command.arg("--run-dir").arg(run_dir.path()).args(["daemon", "--metrics-listen", &address]);
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("cannot listen on {address}: Address already in use")), "{error}");
}
