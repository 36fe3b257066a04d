//! Connections on which nothing happens for a minute, while others work.

use super::Stage;
use super::redis::{self, Redis, Subscriber};
use super::ssh::{Session, Ssh};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than the idle timeouts that proxies are often given.
const IDLE: Duration = Duration::from_secs(60);

/// A subscriber and a session, neither of which sends a byte for a minute, go on as if nothing had been; meanwhile
/// redis-benchmark and ssh do their work through the same proxy.
#[test]
fn a_subscriber_and_a_session_are_idle_while_redis_and_ssh_work() {
    let stage = Stage::new();
    let _redis = Redis::start(&stage);
    let ssh = Ssh::start(&stage);
    let mut subscriber = Subscriber::start(&stage);
    let mut session = Session::open(&ssh, &stage);
    let began = Instant::now();
    redis::benchmark(&stage);
    ssh.run_commands(&stage);
    ssh.pipe(&stage);
    thread::sleep(IDLE.saturating_sub(began.elapsed()));
    subscriber.assert_hears(&stage, "after a minute");
    session.assert_echoes("after a minute");
    session.close();
    stage.assert_nothing_failed();
}
