//! What an open loop shows and a closed one does not.

use crate::support::{Misbehaving, open, options, run, server};
use ringlb_load::{Report, Server, ServerOptions, Workload};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PINGPONG: Workload = Workload::Pingpong { size_bytes: 100 };
const STALL: Duration = Duration::from_millis(500);

/// Runs a load against a server that stalls once, a while after its first request.
fn run_with_a_stall(rate: Option<f64>) -> Report {
    let stalled = AtomicBool::new(false);
    let server = Misbehaving::start(move |mut stream| {
        open(&mut stream)?;
        let mut data = [0; 100];
        for number in 0.. {
            stream.read_exact(&mut data)?;
            if number == 50 && !stalled.swap(true, Ordering::SeqCst) {
                std::thread::sleep(STALL);
            }
            stream.write_all(&data)?;
        }
        Ok(())
    });
    let mut options = server.options(PINGPONG);
    options.rate = rate;
    options.requests = Some(1000);
    run(options)
}

#[test]
fn a_stall_shows_in_the_open_loop() {
    // 500 ms are a good 250 requests, a quarter of all, that should have begun meanwhile.
    let report = run_with_a_stall(Some(500.0));
    assert_eq!((report.requests, report.failures, report.not_begun), (1000, 0, 0), "{report}");
    let total = report.latency.total.unwrap();
    assert!(total.max_us >= 500_000, "{report}");
    assert!(total.p99_us >= 400_000, "{report}");
    assert!(total.p90_us >= 200_000, "{report}");
    let wait = report.latency.wait.unwrap();
    assert_eq!(wait.count, 1000);
    assert!(wait.p99_us >= 400_000, "{report}");
}

#[test]
fn the_same_stall_is_one_request_of_a_closed_loop() {
    let report = run_with_a_stall(None);
    assert_eq!((report.requests, report.failures), (1000, 0), "{report}");
    let total = report.latency.total.unwrap();
    assert!(total.max_us >= 500_000, "{report}");
    assert!(total.p99_us < 200_000, "{report}");
    assert!(report.latency.wait.is_none());
}

#[test]
fn requests_begin_at_the_rate_and_no_faster() {
    let server = server("a");
    for workload in [Workload::Connect, PINGPONG] {
        let mut options = options(&[&server], workload);
        options.connections = 16;
        options.rate = Some(1000.0);
        options.requests = Some(501);
        let report = run(options);
        assert_eq!((report.requests, report.failures, report.not_begun), (501, 0, 0), "{report}");
        assert!(report.elapsed() >= Duration::from_millis(500), "{report}");
        assert_eq!(report.intended_rate_per_second, Some(1000.0));
        assert!(report.achieved_rate_per_second <= 1002.0, "{report}");
    }
}

#[test]
fn what_the_server_cannot_keep_up_with_waits_and_is_counted() {
    let mut slow = ServerOptions::new("slow".parse().unwrap());
    slow.delay = Duration::from_millis(50);
    let server = Server::start(slow).unwrap();
    let mut options = options(&[&server], Workload::Connect);
    options.connections = 2;
    options.rate = Some(400.0);
    options.duration = Some(Duration::from_secs(1));
    // Two connections do at most 40 requests a second.
    let report = run(options);
    assert_eq!(report.failures, 0, "{report}");
    assert!(report.requests <= 44, "{report}");
    assert!(report.not_begun >= 340, "{report}");
    // 400 or 401 were due in the second: the last one at its very end. The timer is good to some milliseconds.
    let due = report.requests + report.not_begun;
    // On a busy machine the one that makes them due may be late by as much.
    assert!((390..420).contains(&due), "{due}: {report}");
    assert!(report.achieved_rate_per_second <= 44.0);
    // The last that was begun had waited for nearly all of the time.
    assert!(report.latency.wait.unwrap().max_us >= 800_000, "{report}");
}

#[test]
fn rates_above_what_timers_can_do_are_made_up_for() {
    let server = server("a");
    let mut options = options(&[&server], PINGPONG);
    options.connections = 32;
    options.rate = Some(1_000_000.0);
    options.requests = Some(3000);
    let report = run(options);
    assert_eq!((report.requests, report.failures), (3000, 0), "{report}");
}
