//! The daemon's start and end, and what it leaves behind or finds.

use crate::support::{Daemon, PATIENCE, pause, program, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_netns::Namespace;
use serde_json::json;
use std::process::{Command, Stdio};

/// A network with a sandbox and a real proxy.
fn busy(daemon: &Daemon, namespace: &str) -> Pid {
    Namespace::create(namespace).unwrap();
    daemon.done("PUT", "/v1/networks/web", Some(r#"{"subnet": "10.1.0.0/24"}"#));
    let body = json!({ "netns": format!("/run/netns/{namespace}") }).to_string();
    daemon.done("PUT", "/v1/networks/web/attachments/c1", Some(&body));
    daemon.done("PUT", "/v1/networks/web/services/api", None);
    Pid::from_raw(daemon.proxy_pid().unwrap())
}

fn is_alive(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // The children of a daemon that was killed may wait for somebody to reap them.
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// The namespaces of the daemon on `run_dir`.
fn namespaces(run_dir: &std::path::Path) -> Vec<String> {
    let prefix = ringlb::reconcile::name_prefix(&run_dir.canonicalize().unwrap());
    ringlb_netns::leftovers(&prefix).unwrap()
}

#[test]
fn a_clean_end_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let daemon = Daemon::start();
        let proxy = busy(&daemon, "clean-end");
        assert_eq!(namespaces(daemon.run_dir()).len(), 2);
        daemon.signal(signal);
        let (code, run_dir) = daemon.wait();
        assert_eq!(code, Some(0));
        assert!(!is_alive(proxy));
        assert!(namespaces(run_dir.path()).is_empty());
        assert!(!run_dir.path().join("admin.sock").exists());
        assert_eq!(std::fs::read_dir(run_dir.path().join("control")).unwrap().count(), 0);
    }
}

#[test]
fn kept_proxies_go_on_until_the_next_daemon() {
    let daemon = Daemon::start_with(&["--keep"], &[]);
    let proxy = busy(&daemon, "kept");
    daemon.signal(Signal::SIGTERM);
    let (code, run_dir) = daemon.wait();
    assert_eq!(code, Some(0));
    assert!(is_alive(proxy));
    assert_eq!(namespaces(run_dir.path()).len(), 2);
    let next = Daemon::start_on(run_dir, &[], &[]);
    wait_until("the proxy has ended", || !is_alive(proxy));
    assert!(namespaces(next.run_dir()).is_empty());
    assert!(!next.run_dir().join("control/web.sock").exists());
    busy(&next, "kept");
}

#[test]
fn the_next_daemon_cleans_up_after_one_that_was_killed() {
    let daemon = Daemon::start();
    let other = Daemon::start();
    let proxy = busy(&daemon, "killed-1");
    let other_proxy = busy(&other, "killed-2");
    daemon.signal(Signal::SIGKILL);
    let (code, run_dir) = daemon.wait();
    assert_eq!(code, None);
    assert!(is_alive(proxy), "a dead daemon costs nothing");
    assert!(run_dir.path().join("admin.sock").exists());
    let next = Daemon::start_on(run_dir, &[], &[]);
    wait_until("the proxy has ended", || !is_alive(proxy));
    assert!(namespaces(next.run_dir()).is_empty());
    // Nothing of another daemon was touched.
    assert!(is_alive(other_proxy));
    assert_eq!(namespaces(other.run_dir()).len(), 2);
    assert_eq!(other.network()["proxy"]["restarts"], 0);
    busy(&next, "killed-1");
}

#[test]
fn what_is_kept_is_made_again() {
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--state-dir", state_dir.path().to_str().unwrap()];
    let daemon = Daemon::start_with(&arguments, &[]);
    busy(&daemon, "remade");
    daemon.done("PUT", "/v1/networks/web/services/api/backends/10.1.0.9", Some(r#"{"weight": 7}"#));
    let before = daemon.network();
    daemon.signal(Signal::SIGKILL);
    let (_, run_dir) = daemon.wait();

    let next = Daemon::start_on(run_dir, &arguments, &[]);
    wait_until("the proxy has its table", || next.network()["acknowledged_generation"] == next.network()["generation"]);
    let after = next.network();
    for field in ["subnet", "vip_prefix", "attachments", "failed_attachments"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(after["sandbox"]["lb_address"], before["sandbox"]["lb_address"]);
    assert_eq!(after["services"][0]["vip"], before["services"][0]["vip"]);
    assert_eq!(after["services"][0]["backends"][0]["weight"], 7);
    assert!(after["generation"].as_u64() >= before["generation"].as_u64());
    assert_eq!(after["proxy"]["pid"], before["proxy"]["pid"], "the proxy goes on");

    // Another daemon must not write to the same files, and what cannot be written does not happen.
    let other = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("ringlb"));
    let output = command.arg("--run-dir").arg(other.path()).arg("daemon").args(arguments).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("another ringlb daemon keeps its state in "), "{error}");
}

#[test]
fn what_cannot_be_kept_is_not_made() {
    // A file system without room.
    let state_dir = tempfile::tempdir().unwrap();
    let options = Some("size=32k");
    nix::mount::mount(Some("full"), state_dir.path(), Some("tmpfs"), nix::mount::MsFlags::empty(), options).unwrap();
    let daemon = Daemon::start_with(&["--state-dir", state_dir.path().to_str().unwrap()], &[]);
    daemon.done("PUT", "/v1/networks/web", Some(r#"{"subnet": "10.1.0.0/24"}"#));
    let filling = state_dir.path().join("filling");
    let mut room = 64 * 1024;
    while room > 0 && std::fs::write(&filling, vec![0; room]).is_err() {
        room -= 4096;
    }
    // What is left of the journal's last page is used up too.
    let refused = (1..200).find_map(|number| {
        let path = format!("/v1/networks/web/services/service-{number}");
        let response = daemon.http("PUT", &path, None);
        (response.status != 201).then_some((path, response))
    });
    let (path, refused) = refused.unwrap();
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!(refused.body["detail"].as_str().unwrap().contains("No space left"), "{refused:?}");
    assert_eq!(daemon.http("GET", &path, None).status, 404);
    let before = daemon.done("GET", "/v1/networks/web/services", None);
    std::fs::remove_file(&filling).unwrap();
    daemon.done("PUT", "/v1/networks/web/services/more", None);
    daemon.done("DELETE", "/v1/networks/web/services/more", None);
    daemon.signal(Signal::SIGKILL);
    let (_, run_dir) = daemon.wait();
    let next = Daemon::start_on(run_dir, &["--state-dir", state_dir.path().to_str().unwrap()], &[]);
    assert_eq!(next.done("GET", "/v1/networks/web/services", None), before);
    drop(next);
    nix::mount::umount(state_dir.path()).unwrap();
}

#[test]
fn one_run_directory_has_one_daemon() {
    let daemon = Daemon::start();
    let mut command = Command::new(program("ringlb"));
    command.arg("--run-dir").arg(daemon.run_dir()).arg("daemon");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("another ringlb daemon runs on "), "{error}");
    assert_eq!(daemon.http("GET", "/healthz", None).status, 200);
}

#[test]
fn what_cannot_work_is_said_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let file = path("file");
    std::fs::write(&file, "").unwrap();
    let long = path(&"d".repeat(120));
    let short = path("run");
    let none = path("none");
    for (run_dir, arguments, expected) in [
        (&long, &[][..], "is too long: with `/admin.sock` its path may have 107 bytes at most"),
        (&file, &[], "as the run directory: "),
        (&short, &["--proxy-program", &none], "cannot find the proxy's program at "),
        (&short, &["--admin-listen", "192.0.2.1:80"], "cannot listen on 192.0.2.1:80: "),
        (&short, &["--admin-listen", "127.0.0.1:0", "--admin-token-file", &none], "cannot read the token from "),
        (
            &short,
            &["--admin-listen", "127.0.0.1:0", "--admin-token-file", &file],
            "can be read by others: make it mode 0600",
        ),
    ] {
        let output =
            Command::new(program("ringlb")).args(["--run-dir", run_dir, "daemon"]).args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.lines().last().unwrap().starts_with("ringlb: ") && error.contains(expected),
            "{expected:?}: {error}"
        );
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let daemon = Daemon::start();
    let proxy = busy(&daemon, "second-signal");
    // A proxy that does not end keeps the daemon waiting.
    pause(proxy);
    daemon.signal(Signal::SIGTERM);
    wait_until("the daemon is ending", || daemon.http("GET", "/readyz", None).status == 503);
    let refused = daemon.http("PUT", "/v1/networks/new", Some(r#"{"subnet": "10.2.0.0/24"}"#));
    assert_eq!(refused.status, 503, "{refused:?}");
    // The one that counts as the second comes later than a moment after the first.
    let pid = Pid::from_raw(daemon.pid());
    wait_until("the daemon has ended", || {
        kill(pid, Signal::SIGTERM).unwrap();
        !is_alive(pid)
    });
    let (code, run_dir) = daemon.wait();
    assert_eq!(code, Some(1));
    kill(proxy, Signal::SIGKILL).unwrap();
    drop(run_dir);
}

/// A parent that dies sends as many as it has threads.
#[test]
fn signals_that_come_together_are_one() {
    let daemon = Daemon::start();
    let proxy = busy(&daemon, "together");
    for _ in 0..20 {
        daemon.signal(Signal::SIGTERM);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let (code, run_dir) = daemon.wait();
    assert_eq!(code, Some(0));
    assert!(!is_alive(proxy));
    assert!(namespaces(run_dir.path()).is_empty());
}

#[test]
fn a_proxy_that_does_not_end_is_killed() {
    let daemon = Daemon::start();
    let proxy = busy(&daemon, "stubborn");
    pause(proxy);
    daemon.signal(Signal::SIGTERM);
    let (code, run_dir) = daemon.wait();
    assert_eq!(code, Some(0));
    assert!(!is_alive(proxy));
    assert!(namespaces(run_dir.path()).is_empty());
}

/// The daemon must be startable where standard input and output are closed, and then not hand a proxy the wrong
/// descriptors.
#[test]
fn it_runs_without_standard_streams() {
    let run_dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" --run-dir \"$1\" daemon 0<&- 1>&- 2>&-"]);
    command.arg(program("ringlb")).arg(run_dir.path()).stdin(Stdio::null());
    ringlb_netns::isolate::end_with_parent(&mut command);
    let mut child = command.spawn().unwrap();
    let socket = run_dir.path().join("admin.sock");
    wait_until("the daemon answers", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    Namespace::create("streams").unwrap();
    let cli = |arguments: &[&str]| {
        let mut command = Command::new(program("ringlb"));
        let output = command.arg("--run-dir").arg(run_dir.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    cli(&["network", "create", "web", "--subnet", "10.1.0.0/24"]);
    cli(&["attach", "web", "c1", "--netns", "/run/netns/streams"]);
    cli(&["service", "create", "web", "api"]);
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
