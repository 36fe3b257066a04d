//! The commands, for people and for programs.

use crate::support::{Daemon, program};
use serde_json::Value;
use std::process::{Command, Output};

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Success, with nothing on standard error; gives standard output.
fn said(output: &Output) -> &str {
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{output:?}");
    text(&output.stdout)
}

/// Failure with nothing on standard output; gives standard error.
fn complained(output: &Output, code: i32) -> &str {
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(code), ""), "{output:?}");
    text(&output.stderr)
}

#[test]
fn the_commands_work_for_people() {
    let daemon = Daemon::start();
    ringlb_netns::Namespace::create("people").unwrap();
    let run = |arguments: &[&str]| said(&daemon.cli(arguments)).to_owned();

    assert_eq!(
        run(&["network", "ls"]),
        "NETWORK  SOURCE  SUBNET  VIP-PREFIX  LB-ENDPOINT  ATTACHMENTS  SERVICES  GENERATION\n"
    );
    assert_eq!(
        run(&["network", "create", "web", "--subnet", "10.1.0.0/24"]),
        "network web has subnet 10.1.0.0/24, VIPs come from 10.1.0.192/26\n"
    );
    assert_eq!(
        run(&["attach", "web", "c1", "--netns", "/run/netns/people", "--ip", "10.1.0.7"]),
        "c1 is attached to network web as 10.1.0.7\n"
    );
    let made = run(&["service", "create", "web", "api", "--algorithm", "p2c", "--drain-timeout", "1m"]);
    assert!(made.starts_with("service api of network web has VIP 10.1.0.192 (generation 2, "), "{made}");
    let added = run(&["backend", "add", "web", "api", "10.1.0.7", "--weight", "3"]);
    assert!(added.starts_with("10.1.0.7 is a backend of service api with weight 3 (generation 3, "), "{added}");
    let drained = run(&["backend", "drain", "web", "api", "10.1.0.7"]);
    assert!(drained.starts_with("10.1.0.7 drains from service api with weight 3 (generation 4, "), "{drained}");

    assert_eq!(
        run(&["network", "ls"]),
        "NETWORK  SOURCE  SUBNET       VIP-PREFIX     LB-ENDPOINT  ATTACHMENTS  SERVICES  GENERATION\n\
         web      api     10.1.0.0/24  10.1.0.192/26  10.1.0.191   1            1         4\n"
    );
    assert_eq!(
        run(&["service", "ls", "web"]),
        "SERVICE  VIP         PUBLISHED  ALGORITHM  DRAIN-TIMEOUT  CONNECT-TIMEOUT  BACKENDS\n\
         api      10.1.0.192  -          p2c        1m             2s               1\n"
    );
    let service = run(&["service", "show", "web", "api"]);
    let lines: Vec<_> = service.lines().collect();
    assert_eq!(lines[..2], ["service:                 api", "VIP:                     10.1.0.192"]);
    for line in ["algorithm:               p2c", "drain timeout:           1m", "connect timeout:         2s"] {
        assert!(lines.contains(&line), "{service}");
    }
    assert_eq!(lines[lines.len() - 2..], ["BACKEND   WEIGHT  STATE", "10.1.0.7  3       draining"]);
    let status = run(&["status"]);
    for part in [
        "network web  source api  subnet 10.1.0.0/24  VIPs 10.1.0.192/26  generation 4\n",
        "LB endpoint 10.1.0.191  steering ",
        "  proxy pid ",
        "restarts 0  version ",
        "  features buffer-ring",
        "  c1          10.1.0.7  /run/netns/people\n",
        "  api      10.1.0.192  -          p2c        10.1.0.7  3       draining  0       0            0\n",
    ] {
        assert!(status.contains(part), "{part:?} is not in\n{status}");
    }
    assert!(
        run(&["backend", "rm", "web", "api", "10.1.0.7"]).starts_with("removed backend 10.1.0.7 from service api (")
    );
    assert!(run(&["service", "rm", "web", "api"]).starts_with("removed service api from network web ("));
    assert!(run(&["detach", "web", "c1"]).starts_with("detached c1 from network web ("));
    assert!(run(&["network", "rm", "web"]).starts_with("removed network web ("));
    assert!(run(&["status"]).ends_with("no networks\n"));
}

#[test]
fn the_commands_work_for_programs() {
    let daemon = Daemon::start();
    ringlb_netns::Namespace::create("programs").unwrap();
    let run = |arguments: &[&str]| -> Value {
        let output = daemon.cli(&[&["--json"], arguments].concat());
        serde_json::from_str(said(&output)).unwrap()
    };
    assert_eq!(
        run(&["network", "create", "web", "--subnet", "10.1.0.0/24", "--vip-prefix", "10.1.0.128/25"])["network"]["vip_prefix"],
        "10.1.0.128/25"
    );
    assert_eq!(run(&["attach", "web", "c1", "--netns", "/run/netns/programs"])["attachment"]["ip"], "10.1.0.1");
    assert_eq!(run(&["service", "create", "web", "api", "--vip", "10.1.0.200"])["service"]["vip"], "10.1.0.200");
    let added = run(&["backend", "add", "web", "api", "10.1.0.1"]);
    assert_eq!((&added["backend"]["weight"], &added["generation"]), (&Value::from(1), &Value::from(3)));
    assert!(added["acknowledged_in_us"].is_u64());
    assert_eq!(run(&["backend", "drain", "web", "api", "10.1.0.1"])["backend"]["drain"], true);
    assert_eq!(run(&["network", "ls"])[0]["name"], "web");
    assert_eq!(run(&["service", "ls", "web"])[0]["name"], "api");
    assert_eq!(run(&["service", "show", "web", "api"])["backends"][0]["ip"], "10.1.0.1");
    assert_eq!(run(&["status"])["networks"][0]["acknowledged_generation"], 4);
    assert_eq!(run(&["backend", "rm", "web", "api", "10.1.0.1"])["generation"], 5);
    assert_eq!(run(&["service", "rm", "web", "api"])["generation"], 6);
    assert_eq!(run(&["detach", "web", "c1"])["generation"], 6);
    assert_eq!(run(&["network", "rm", "web", "--remove-lb"])["generation"], 6);
}

#[test]
fn a_dual_stack_network_is_made_and_shown() {
    let daemon = Daemon::start();
    ringlb_netns::Namespace::create("dual").unwrap();
    let run = |arguments: &[&str]| said(&daemon.cli(arguments)).to_owned();
    assert_eq!(
        run(&["network", "create", "web", "--subnet", "10.1.0.0/24", "--subnet", "fd00:1::/112"]),
        "network web has subnet 10.1.0.0/24 and fd00:1::/112, VIPs come from 10.1.0.192/26 and fd00:1::c000/114\n"
    );
    let six = ["network", "create", "six", "--subnet", "fd00:6::/64", "--vip-prefix", "fd00:6::100/120"];
    assert_eq!(run(&six), "network six has subnet fd00:6::/64, VIPs come from fd00:6::100/120\n");
    assert_eq!(
        run(&["attach", "web", "c1", "--netns", "/run/netns/dual", "--ip", "fd00:1::7", "--ip", "10.1.0.7"]),
        "c1 is attached to network web as 10.1.0.7 and fd00:1::7\n"
    );
    let made = run(&["service", "create", "web", "api", "--vip", "10.1.0.200"]);
    assert!(made.starts_with("service api of network web has VIP 10.1.0.200 and fd00:1::c000 ("), "{made}");
    run(&["backend", "add", "web", "api", "fd00:1::7"]);
    let networks = run(&["network", "ls"]);
    let columns: Vec<Vec<_>> = networks.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let (web, lb_address) =
        (["web", "api", "10.1.0.0/24,fd00:1::/112", "10.1.0.192/26,fd00:1::c000/114"], "10.1.0.191,fd00:1::bfff");
    assert_eq!(columns[0], ["six", "api", "fd00:6::/64", "fd00:6::100/120", "-", "0", "0", "1"]);
    assert_eq!(columns[1], [&web[..], &[lb_address, "1", "1", "3"]].concat());
    let status = run(&["status"]);
    for part in [
        "network web  source api  subnet 10.1.0.0/24 and fd00:1::/112  VIPs 10.1.0.192/26 and fd00:1::c000/114  generation 3\n",
        "LB endpoint 10.1.0.191 and fd00:1::bfff  steering ",
        "  c1          10.1.0.7,fd00:1::7  /run/netns/dual\n",
        "10.1.0.200,fd00:1::c000  -          rr         fd00:1::7  1       active",
    ] {
        assert!(status.contains(part), "{part:?} is not in\n{status}");
    }
    assert!(run(&["service", "show", "web", "api"]).contains("VIP:                     10.1.0.200 and fd00:1::c000\n"));
    let refused = daemon.cli(&["network", "create", "x", "--subnet", "10.8.0.0/24", "--subnet", "10.9.0.0/24"]);
    assert_eq!(
        complained(&refused, 1),
        "ringlb: networks.x.subnet: lists several IPv4 subnets, give at most one for each address family\n"
    );
}

#[test]
fn a_desired_state_is_applied_from_a_file_and_from_standard_input() {
    let daemon = Daemon::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.yaml");
    std::fs::write(&file, "version: 1\nnetworks:\n- {name: web, subnet: 10.1.0.0/24, services: [{name: api}]}\n")
        .unwrap();
    let applied = daemon.cli(&["apply", file.to_str().unwrap()]);
    let lines: Vec<_> = said(&applied).lines().collect();
    assert_eq!(lines[..2], ["NETWORK  OUTCOME  GENERATION", "web      created  1"]);
    assert!(lines[2].starts_with("acknowledged in "), "{lines:?}");

    let mut command = Command::new(program("ringlb"));
    command.arg("--run-dir").arg(daemon.run_dir()).args(["--json", "apply", "-"]);
    let state = directory.path().join("state.json");
    std::fs::write(&state, r#" {"version": 1, "networks": [{"name": "other", "subnet": "10.2.0.0/24"}]}"#).unwrap();
    let output = command.stdin(std::fs::File::open(&state).unwrap()).output().unwrap();
    let applied: Value = serde_json::from_str(said(&output)).unwrap();
    let outcomes: Vec<_> =
        applied["networks"].as_array().unwrap().iter().map(|network| (&network["name"], &network["outcome"])).collect();
    assert_eq!(
        outcomes,
        [(&Value::from("other"), &Value::from("created")), (&Value::from("web"), &Value::from("removed"))]
    );

    // What is exported is the same when it is applied.
    let exported = daemon.cli(&["export"]);
    std::fs::write(&state, said(&exported)).unwrap();
    let applied = daemon.cli(&["apply", state.to_str().unwrap()]);
    assert_eq!(said(&applied).lines().nth(1), Some("other    unchanged  1"), "{applied:?}");

    std::fs::write(&file, "version: 1\nnetworks:\n- {name: web, subnet: 10.1.0.0/24, services: [{name: api, vip: 10.3.0.1}, {name: B}]}\n").unwrap();
    assert_eq!(
        complained(&daemon.cli(&["apply", file.to_str().unwrap()]), 1),
        "ringlb: networks.web.services.B.name: \"B\" is not a valid name: 1 to 63 characters out of a-z, 0-9, `_`, `.` and `-`, the first a letter or digit\n\
         ringlb: networks.web.services.api.vip: 10.3.0.1 is outside the subnet 10.1.0.0/24\n"
    );
    let huge = directory.path().join("huge.yaml");
    std::fs::File::create(&huge).unwrap().set_len(100 * 1024 * 1024).unwrap();
    assert!(complained(&daemon.cli(&["apply", huge.to_str().unwrap()]), 1).contains("is larger than 67108864 bytes"));
    assert!(
        complained(&daemon.cli(&["apply", "/does/not/exist"]), 1).contains("cannot read /does/not/exist: No such file")
    );
}

#[test]
fn what_is_wrong_is_said_on_standard_error() {
    let daemon = Daemon::start();
    said(&daemon.cli(&["network", "create", "web", "--subnet", "10.1.0.0/24"]));
    for (arguments, expected) in [
        (&["network", "rm", "none"][..], "ringlb: networks.none: does not exist\n"),
        (
            &["network", "create", "two", "--subnet", "10.1.0.0/16"],
            "ringlb: networks.two.subnet: 10.1.0.0/16 overlaps 10.1.0.0/24 of network `web`\n",
        ),
        (&["service", "show", "web", "no/../such"], "ringlb: networks.web.services.no/../such: does not exist\n"),
        (
            &["service", "create", "web", "api", "--vip", "nine"],
            "ringlb: networks.web.services.api.vip: \"nine\" is not an IP address\n",
        ),
        (
            &["attach", "web", "c", "--netns", "/none"],
            "ringlb: networks.web.attachments.c.netns: there is no network namespace /none; create it first, or give the path of one that exists\n",
        ),
    ] {
        assert_eq!(complained(&daemon.cli(arguments), 1), expected);
        // The same with `--json`: standard output stays for answers.
        assert_eq!(complained(&daemon.cli(&[&["--json"], arguments].concat()), 1), expected);
    }
    for arguments in [
        &[][..],
        &["network"],
        &["network", "create", "web"],
        &["frobnicate"],
        &["service", "create", "web"],
        &["backend", "add", "web", "api", "10.1.0.2", "--weight", "many"],
        &["daemon", "--admin-listen", "nowhere"],
        &["daemon", "--metrics-listen", "nowhere"],
    ] {
        let error = complained(&daemon.cli(arguments), 2).to_owned();
        assert!(error.contains("Usage:") || error.contains("try '--help'"), "{arguments:?}: {error}");
    }
}

#[test]
fn without_a_daemon_the_commands_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let run_dir = directory.path().join("none");
    let output = Command::new(program("ringlb")).arg("--run-dir").arg(&run_dir).arg("status").output().unwrap();
    let error = complained(&output, 1);
    assert!(
        error.contains("cannot reach the ringlb daemon at ") && error.contains("is `ringlb daemon` running"),
        "{error}"
    );
}

#[test]
fn help_and_version_are_there() {
    let run = |arguments: &[&str]| Command::new(program("ringlb")).args(arguments).output().unwrap();
    assert!(said(&run(&["--help"])).contains("Usage: ringlb"));
    assert!(said(&run(&["service", "create", "--help"])).contains("--algorithm"));
    assert!(said(&run(&["--version"])).starts_with("ringlb "));
}

#[test]
fn every_algorithm_can_be_asked_for() {
    let daemon = Daemon::start();
    said(&daemon.cli(&["network", "create", "web", "--subnet", "10.1.0.0/24"]));
    for algorithm in ["rr", "p2c", "wrr", "maglev", "source-hash"] {
        said(&daemon.cli(&["service", "create", "web", "api", "--algorithm", algorithm]));
        let shown: Value =
            serde_json::from_str(said(&daemon.cli(&["--json", "service", "show", "web", "api"]))).unwrap();
        assert_eq!(shown["algorithm"], algorithm);
        let help = daemon.cli(&["service", "create", "--help"]);
        assert!(said(&help).contains(algorithm), "{algorithm} is not in the help");
    }
    let refused = daemon.cli(&["service", "create", "web", "api", "--algorithm", "random"]);
    let error = complained(&refused, 1);
    assert!(error.contains("`rr`, `p2c`, `wrr`, `maglev`, `source-hash`"), "{error}");
}
