//! The program, as it is run by hand and by scripts.

use crate::support::{DEADLINE, connect, read_exactly, read_to_end, server, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_load::{EndReason, ErrorKind, Report, SCHEMA_VERSION, Workload};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringlb-load");

fn load(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("tcp").args(arguments).output().unwrap()
}

fn udp_load(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("udp").args(arguments).output().unwrap()
}

#[track_caller]
fn report(output: &Output) -> Report {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A running program, ended if the test fails before it does.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    fn status(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(arguments: &[&str], listeners: usize) -> (Running, Vec<SocketAddr>) {
    let mut running = Running::start(Command::new(PROGRAM).arg("serve").args(arguments));
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let addresses = (0..listeners)
        .map(|_| lines.next().unwrap().unwrap().strip_prefix("listening on ").unwrap().parse().unwrap())
        .collect();
    (running, addresses)
}

#[test]
fn json_reads_back_into_the_types() {
    let server = server("backend-1");
    let target = server.addresses()[0].to_string();
    let output = load(&[&target, "--requests", "200", "--connections", "4", "--json", "--quiet"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let report = report(&output);
    assert_eq!((report.schema_version, report.workload), (SCHEMA_VERSION, Workload::Connect));
    assert_eq!((report.requests, report.failures, report.requests_of("backend-1")), (200, 0, 200));
    assert_eq!(report.latency.total.unwrap().count, 200);

    // Names that scripts rely on.
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["workload"]["mode"], "connect");
    assert_eq!(json["ended_by"], "requests");
    assert_eq!(json["backends"][0]["name"], "backend-1");
    for quantile in ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"] {
        assert!(json["latency"]["total"][quantile].is_u64(), "{quantile}");
    }
    assert!(json["latency"]["wait"].is_null());
}

#[test]
fn every_mode_can_be_asked_for() {
    let server = server("backend-1");
    let target = server.addresses()[0].to_string();
    for (arguments, workload) in [
        (&["--mode", "pingpong", "--size", "1K", "--requests", "100"][..], r#"{"mode":"pingpong","size_bytes":1024}"#),
        (
            &["--mode", "bulk", "--bulk", "up", "--duration", "100ms"],
            r#"{"mode":"bulk","direction":"up","size_bytes":null}"#,
        ),
        (
            &["--mode", "bulk", "--size", "1M", "--requests", "3"],
            r#"{"mode":"bulk","direction":"down","size_bytes":1048576}"#,
        ),
        (&["--rate", "500", "--requests", "50"], r#"{"mode":"connect"}"#),
        (&["--size", "64", "--requests", "50"], r#"{"mode":"connect-echo","size_bytes":64}"#),
    ] {
        let output = load(&[&[target.as_str(), "--json", "--fail-on-error"][..], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(serde_json::to_string(&report(&output).workload).unwrap(), workload);
    }
}

#[test]
fn the_json_of_udp_has_what_scripts_rely_on() {
    let server = server("backend-1");
    let target = server.addresses()[0].to_string();
    let output = udp_load(&[&target, "--names", "--requests", "100", "--connections", "4", "--json", "--quiet"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let report = report(&output);
    assert_eq!((report.requests, report.failures, report.requests_of("backend-1")), (100, 0, 100));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        json["workload"],
        serde_json::json!({ "mode": "udp", "exchange": "pingpong", "size_bytes": 128, "names": true })
    );
    for (count, expected) in [
        ("sent", 100),
        ("received", 100),
        ("lost", 0),
        ("late", 0),
        ("duplicates", 0),
        ("reordered", 0),
        ("corrupt", 0),
        ("foreign", 0),
    ] {
        assert_eq!(json["datagrams"][count].as_u64(), Some(expected), "{count}");
    }
    assert!(json["datagrams"]["goodput_bits_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(json["latency"]["total"]["count"], 100);
    assert!(json["latency"]["connect"].is_null() && json["latency"]["first_byte"].is_null());
    assert_eq!(json["backends"][0]["name"], "backend-1");

    // TCP has none.
    let output = load(&[&target, "--requests", "1", "--json", "--quiet"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["datagrams"].is_null());
}

#[test]
fn every_mode_of_udp_can_be_asked_for() {
    let server = server("backend-1");
    let target = server.addresses()[0].to_string();
    for (arguments, exchange, size, names) in [
        (&[][..], "pingpong", 64, false),
        (&["--mode", "pingpong", "--size", "9000"], "pingpong", 9000, false),
        (&["--mode", "connect", "--names"], "connect", 128, true),
        (&["--mode", "bulk", "--rate", "1000", "--timeout", "5s"], "bulk", 1400, false),
        (&["--mode", "bulk", "--rate", "1000", "--size", "32"], "bulk", 32, false),
        (&["--rate", "1000", "--source", "127.0.0.8"], "pingpong", 64, false),
    ] {
        let arguments = [&[target.as_str(), "--json", "--fail-on-error", "-q", "--requests", "50"], arguments].concat();
        let output = udp_load(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            json["workload"],
            serde_json::json!({ "mode": "udp", "exchange": exchange, "size_bytes": size, "names": names })
        );
        assert_eq!(json["requests"], 50);
    }
}

#[test]
fn the_readable_report_of_udp_names_what_matters() {
    let server = server("backend-1");
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let target = server.addresses()[0].to_string();
    let output = udp_load(&[&target, &closed, "--mode", "connect", "--names", "--requests", "100", "-q"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in
        ["UDP connect of 128 B", "64 clients", "datagrams", "duplicates", "foreign", "p99.9", "backend-1", "refused"]
    {
        assert!(text.contains(part), "{part:?} is missing from:\n{text}");
    }
    let output = udp_load(&[&closed, "--requests", "1", "--fail-on-error", "-q"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn ipv6_targets_and_listeners_are_understood() {
    let (_running, addresses) = serve(&["--listen", "[::1]:0", "--listen", "[::]:0", "--id", "six"], 2);
    for address in &addresses {
        assert!(address.is_ipv6());
        let target = format!("[::1]:{}", address.port());
        for output in [udp_load, load].map(|load| load(&[&target, "--requests", "10", "--json", "-q"])) {
            assert_eq!(report(&output).requests, 10);
        }
    }
    // Bound to `[::]`, it serves IPv4 too.
    let target = format!("127.0.0.1:{}", addresses[1].port());
    let output = udp_load(&[&target, "--requests", "10", "--names", "--json", "-q"]);
    assert_eq!(report(&output).requests_of("six"), 10);
}

#[test]
fn the_readable_report_names_what_matters() {
    let server = server("backend-1");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let target = server.addresses()[0].to_string();
    let output = load(&[&target, &closed, "--requests", "100", "--connections", "4", "-q"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["requests done", "p99.9", "first byte", "backend-1", "100.0 %", "refused", "50", "connecting: "] {
        assert!(text.contains(part), "{part:?} is missing from:\n{text}");
    }
}

#[test]
fn errors_decide_the_status_only_if_asked_to() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let arguments = [&closed, "--requests", "5", "--json", "-q"];
    let output = load(&arguments);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(report(&output).failures_of(ErrorKind::Refused), 5);
    let output = load(&[&arguments[..], &["--fail-on-error"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report(&output).failures, 5);
}

#[test]
fn usage_errors_say_what_is_wrong() {
    for (arguments, part) in [
        (&[][..], "TARGET"),
        (&["127.0.0.1"], "127.0.0.1"),
        (&["127.0.0.1:1", "--mode", "sideways"], "sideways"),
        (&["127.0.0.1:1", "--rate", "0"], "--rate"),
        (&["127.0.0.1:1", "--connections", "0"], "--connections"),
        (&["127.0.0.1:1", "--size", "0"], "--size"),
        (&["127.0.0.1:1", "--bulk", "up"], "--bulk"),
        (&["127.0.0.1:1", "--mode", "bulk", "--requests", "1"], "--size"),
        (&["127.0.0.1:1", "--mode", "pingpong", "--size", "0"], "--size"),
        (&["127.0.0.1:1", "--duration", "tomorrow"], "tomorrow"),
        (&["127.0.0.1:1", "--source", "::1"], "--source"),
        (&["127.0.0.1:1", "--unknown"], "--unknown"),
    ] {
        let output = load(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(part), "{part:?} is missing from: {message}");
    }
    for (arguments, part) in [
        (&[][..], "TARGET"),
        (&["127.0.0.1:1", "--mode", "sideways"], "sideways"),
        (&["127.0.0.1:1", "--size", "31"], "--size"),
        (&["127.0.0.1:1", "--size", "95", "--names"], "--size"),
        (&["127.0.0.1:1", "--size", "65508"], "65507"),
        (&["127.0.0.1:1", "--connections", "0"], "--connections"),
        (&["127.0.0.1:1", "--source", "::1"], "--source"),
        (&["127.0.0.1:1", "--bulk", "up"], "--bulk"),
    ] {
        let output = udp_load(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(part), "{part:?} is missing from: {message}");
    }
    let output = Command::new(PROGRAM).args(["serve", "--id", "two words"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn progress_is_told_on_standard_error() {
    let server = server("backend-1");
    let target = server.addresses()[0].to_string();
    let arguments = [&target, "--duration", "300ms", "--connections", "2", "--rate", "100", "--json"];
    let output = load(&[&arguments[..], &["--interval", "50ms"]].concat());
    assert_eq!(report(&output).failures, 0);
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.lines().count() >= 2, "{progress}");
    assert!(progress.lines().all(|line| line.contains("req/s") && line.contains("failed")), "{progress}");
}

#[test]
fn an_interrupted_run_reports() {
    let server = server("backend-1");
    let target = server.addresses()[0].to_string();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let accepted = server.counters().accepted;
        let running = Running::start(Command::new(PROGRAM).args(["tcp", &target, "--duration", "1h", "--json", "-q"]));
        wait_until("it is under way", || server.counters().accepted > accepted + 100);
        running.signal(signal);
        let output = finish(running);
        assert_eq!(output.status.code(), Some(0));
        let report = report(&output);
        assert_eq!((report.ended_by, report.failures), (EndReason::Stopped, 0));
        assert!(report.requests >= 100);
    }
}

/// Waits for the program's end and takes its output, which is short enough to wait in the pipes.
fn finish(mut running: Running) -> Output {
    use std::io::Read;
    let status = running.status();
    let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
    running.0.stdout.take().unwrap().read_to_end(&mut output.stdout).unwrap();
    running.0.stderr.take().unwrap().read_to_end(&mut output.stderr).unwrap();
    output
}

#[test]
fn a_second_signal_ends_a_run_that_waits() {
    // Accepts in the kernel's queue and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let mut running = Running::start(Command::new(PROGRAM).args(["tcp", &target, "--timeout", "1h", "-q"]));
    let (stream, _) = listener.accept().unwrap();
    running.signal(Signal::SIGINT);
    assert!(running.0.try_wait().unwrap().is_none());
    // Two of the same kind that are pending at once are one.
    let begun = Instant::now();
    while running.0.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < DEADLINE, "the program does not end");
        running.signal(Signal::SIGINT);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(running.status().code(), Some(130));
    drop(stream);
}

#[test]
fn too_few_descriptors_are_told_and_counted() {
    let server = server("backend-1");
    let target = server.addresses()[0].to_string();
    let output = Command::new("sh")
        .args(["-c", r#"ulimit -n 30; exec "$0" "$@""#, PROGRAM, "tcp", &target])
        .args(["--mode", "pingpong", "--connections", "50", "--requests", "200", "--json", "-q"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("limit of 30 open descriptors"));
    let report = report(&output);
    assert!(report.failures_of(ErrorKind::NoDescriptors) >= 20);
    assert_eq!(report.failures_of(ErrorKind::NoDescriptors), report.failures);
    assert!(report.requests > 0);
}

#[test]
fn too_few_descriptors_for_udp_are_told_and_counted() {
    let server = server("backend-1");
    let target = server.addresses()[0].to_string();
    for mode in ["pingpong", "bulk", "connect"] {
        let output = Command::new("sh")
            .args(["-c", r#"ulimit -n 30; exec "$0" "$@""#, PROGRAM, "udp", &target])
            .args(["--mode", mode, "--connections", "50", "--requests", "2000", "--json", "-q"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains("limit of 30 open descriptors"));
        let report = report(&output);
        assert!(report.failures_of(ErrorKind::NoDescriptors) >= 20, "{mode}: {report}");
        assert!(report.requests > 0, "{mode}: {report}");
    }
}

#[test]
fn a_reader_that_goes_away_is_an_error_and_no_crash() {
    let server = server("backend-1");
    let target = server.addresses()[0].to_string();
    let mut running = Running::start(Command::new(PROGRAM).args(["tcp", &target, "--requests", "10"]));
    drop(running.0.stdout.take());
    drop(running.0.stderr.take());
    assert_eq!(running.status().code(), Some(1));
}

#[test]
fn serve_serves_until_it_is_told_to_end() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (mut running, addresses) =
            serve(&["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0", "--id", "by-hand"], 2);
        for address in &addresses {
            let mut client = connect(*address);
            client.write_all(b"ID\n").unwrap();
            assert_eq!(read_to_end(&mut client), b"by-hand\n");
        }
        let mut open = connect(addresses[0]);
        open.write_all(b"still open").unwrap();
        assert_eq!(read_exactly(&mut open, 10), b"still open");
        running.signal(signal);
        assert_eq!(running.status().code(), Some(0));
    }
}

#[test]
fn serve_keeps_thousands_of_idle_connections_and_ends_cleanly() {
    ringlb_load::raise_descriptor_limit().unwrap();
    let (mut running, addresses) = serve(&["--listen", "127.0.0.1:0"], 1);
    let mut clients: Vec<_> = (0..2000).map(|_| connect(addresses[0])).collect();
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
    }
    for client in &mut clients {
        assert_eq!(read_exactly(client, 5), b"hello");
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.status().code(), Some(0));
}

#[test]
fn serve_starts_to_listen_later_and_can_be_ended_before() {
    let begun = Instant::now();
    let (mut running, addresses) = serve(&["--listen", "127.0.0.1:0", "--listen-after", "150ms"], 1);
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    let mut client = connect(addresses[0]);
    client.write_all(b"hello").unwrap();
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.status().code(), Some(0));

    let mut waiting = Running::start(Command::new(PROGRAM).args(["serve", "--listen-after", "1h"]));
    // Before it takes signals itself, one would end it the usual way.
    let pid = waiting.0.id();
    wait_until("it waits for signals", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains("\nThreads:\t2\n")
    });
    waiting.signal(Signal::SIGTERM);
    assert_eq!(waiting.status().code(), Some(0));
}

#[test]
fn serve_goes_on_for_a_while_when_told_to_end() {
    let (mut running, addresses) = serve(&["--listen", "127.0.0.1:0", "--stop-after", "300ms"], 1);
    running.signal(Signal::SIGTERM);
    let told = Instant::now();
    let mut client = connect(addresses[0]);
    client.write_all(b"hello").unwrap();
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    assert_eq!(running.status().code(), Some(0));
    assert!(told.elapsed() >= Duration::from_millis(300), "{:?}", told.elapsed());

    let (mut running, _) = serve(&["--listen", "127.0.0.1:0", "--stop-after", "1h"], 1);
    let pid = running.0.id();
    running.signal(Signal::SIGTERM);
    wait_until("it has taken the signal", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().any(|line| line == "ShdPnd:\t0000000000000000")
    });
    running.signal(Signal::SIGTERM);
    assert_eq!(running.status().code(), Some(128 + Signal::SIGTERM as i32));
}

#[test]
fn serve_says_why_it_cannot() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(PROGRAM).args(["serve", "--listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains(&address) && message.contains("Address already in use"), "{message}");
}

#[test]
fn serve_short_of_descriptors_says_so_and_goes_on() {
    let mut running = Running::start(Command::new("sh").args([
        "-c",
        r#"ulimit -n 30; exec "$0" serve --listen 127.0.0.1:0"#,
        PROGRAM,
    ]));
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let address: SocketAddr = lines.next().unwrap().unwrap().strip_prefix("listening on ").unwrap().parse().unwrap();
    let clients: Vec<_> = (0..40).map(|_| connect(address)).collect();
    let complaint = BufReader::new(running.0.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(complaint.contains("cannot accept connections"), "{complaint}");
    drop(clients);
    let mut client = connect(address);
    client.write_all(b"hello").unwrap();
    assert_eq!(read_exactly(&mut client, 5), b"hello");
}
