//! The benchmark, for the shortest time: that every system works and its figures are there. How fast is not asked.

use crate::support::{descendants, is_refused, kill_with_all_it_started, wait_until};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

fn bench(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlb-load"));
    command.arg("bench").args(arguments);
    command.arg("--json").arg(directory.join("out/bench.json")).arg("--report").arg(directory.join("report"));
    command.stdin(Stdio::null());
    command
}

fn results(directory: &Path) -> Value {
    serde_json::from_slice(&fs::read(directory.join("out/bench.json")).unwrap()).unwrap()
}

#[test]
fn systems_take_turns_and_each_has_its_figures() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--workloads", "w1,w2-64,w3-8", "--peers", "direct,haproxy,nft", "--rounds", "2"];
    let output =
        bench(directory.path(), &arguments).args(["--duration", "300ms", "--warm-up", "100ms"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let results = results(directory.path());
    assert_eq!(results["complete"], true);
    assert_eq!(results["missing"], Value::Array(Vec::new()));

    let runs = results["runs"].as_array().unwrap();
    let order: Vec<_> =
        runs.iter().filter(|run| run["workload"] == "w1").map(|run| run["system"].as_str().unwrap()).collect();
    assert_eq!(order, ["direct", "haproxy", "ringlb", "nft", "nft", "ringlb", "haproxy", "direct"], "{said}");
    assert_eq!(runs.len(), 3 * 4 * 2);
    for run in runs {
        assert!(run["rate"].as_f64().unwrap() > 0.0, "{run}");
        assert!(run["units"].as_f64().unwrap() > 0.0 && run["seconds"].as_f64().unwrap() > 0.2, "{run}");
        let has_processes = run["system"] == "ringlb" || run["system"] == "haproxy";
        if has_processes {
            assert!(run["cpu_us_per_unit"].as_f64().unwrap() > 0.0, "{run}");
            // What ringlb has go past its proxy costs client and servers something.
            let goes_past = run["system"] == "ringlb" && run["workload"] != "w1";
            let source = if goes_past { "processes-and-load-beyond-direct" } else { "processes" };
            assert_eq!(run["cpu_source"], source, "{run}");
        }
        let has_requests = run["workload"] != "w3-8";
        for time in ["p50_us", "p99_us", "p999_us"] {
            assert_eq!(run[time].as_u64().is_some_and(|time| time > 0), has_requests, "{run}");
        }
    }
    let ratios = results["ratios"].as_array().unwrap();
    for (workload, peer) in [("w1", "haproxy"), ("w1", "nft"), ("w2-64", "direct"), ("w3-8", "haproxy")] {
        let is = |ratio: &&Value| ratio["workload"] == workload && ratio["peer"] == peer && ratio["metric"] == "rate";
        let ratio = ratios.iter().find(is).unwrap_or_else(|| panic!("no ratio of {workload} to {peer}"));
        let value = |name: &str| ratio[name].as_f64().unwrap();
        assert!(0.0 < value("min") && value("min") <= value("median") && value("median") <= value("max"), "{ratio}");
    }
    assert!(results["machine"]["versions"]["haproxy"].as_str().unwrap().contains("HAProxy"), "{said}");

    let report = fs::read_to_string(directory.path().join("report/bench.md")).unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.lines().all(|line| report.lines().any(|other| other == line)), "{printed}\n{report}");
    for plot in ["w1-rate.svg", "w1-cpu.svg", "w2-64-rate.svg", "w3-8-rate.svg"] {
        assert!(report.contains(&format!("![]({plot})")), "{report}");
        let svg = fs::read_to_string(directory.path().join("report").join(plot)).unwrap();
        assert!(svg.contains("HAProxy") && svg.trim_end().ends_with("</svg>"), "{svg}");
    }
    assert!(report.contains("connections/s ÷ HAProxy"), "{report}");
}

#[test]
fn datagrams_idle_connections_and_changes_have_their_figures() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--workloads", "w4-64,w5,w6,w7,w8", "--peers", "haproxy", "--rounds", "1"];
    let output =
        bench(directory.path(), &arguments).args(["--duration", "300ms", "--warm-up", "100ms"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let results = results(directory.path());
    let value = |workload: &str, system: &str, field: &str| {
        let is = |run: &&Value| run["workload"] == workload && run["system"] == system;
        let run =
            results["runs"].as_array().unwrap().iter().find(is).unwrap_or_else(|| panic!("no {workload}: {said}"));
        run[field].as_f64().unwrap_or_else(|| panic!("no {field} in {run}"))
    };
    assert!(value("w4-64", "ringlb", "cpu_us_per_unit") > 0.0);
    let udp = results["left_out"].as_array().unwrap().iter().find(|left_out| left_out["workload"] == "w4-64").unwrap();
    assert_eq!((&udp["system"], &udp["round"]), (&Value::from("haproxy"), &Value::Null));
    for system in ["haproxy", "ringlb"] {
        assert_eq!(value("w5", system, "units"), 8_000.0);
        assert!(value("w5", system, "memory_bytes_per_unit") > 100.0);
        assert!(value("w6", system, "p99_us") > 0.0);
    }
    let rate = results["settings"]["open_loop_rate"].as_f64().unwrap();
    assert!(rate > 10.0, "{said}");
    assert!(value("w7", "ringlb", "changes_per_second") > 0.0 && value("w7", "ringlb-quiet", "p99_us") > 0.0);
    let ratios = results["ratios"].as_array().unwrap();
    assert!(ratios.iter().any(|ratio| ratio["workload"] == "w7" && ratio["peer"] == "ringlb-quiet"));
    assert!(value("w8-use", "ringlb", "p99_us") >= value("w8-use", "ringlb", "p50_us"));
    assert!(value("w8-single", "ringlb", "rate") > 0.0 && value("w8-batch", "ringlb", "units") >= 10_000.0);
}

/// A reply is sent by a call of its own, as its datagram is. What goes past the proxy is sent by none.
#[test]
fn datagrams_have_their_system_calls() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--workloads", "w4-64", "--peers", "ringlb-bridge", "--rounds", "1", "--count-syscalls"];
    let output =
        bench(directory.path(), &arguments).args(["--duration", "300ms", "--warm-up", "100ms"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results = results(directory.path());
    let calls = results["system_calls"].as_array().unwrap();
    let of = |system: &str| calls.iter().find(|calls| calls["system"] == system).unwrap_or_else(|| panic!("{calls:?}"));
    let sends = |system: &str| of(system)["by_name"]["sendto"].as_f64().unwrap();
    assert!(sends("ringlb-bridge") > 1.0 && sends("ringlb") < 1.0, "{calls:?}");
}

#[test]
fn a_peer_that_was_asked_for_and_is_not_there_is_named_and_fails_the_benchmark() {
    let directory = tempfile::tempdir().unwrap();
    let arguments =
        ["--workloads", "w2-1", "--peers", "envoy", "--rounds", "1", "--duration", "100ms", "--warm-up", "0"];
    let output = bench(directory.path(), &arguments).env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let results = results(directory.path());
    assert_eq!(results["missing"][0]["system"], "envoy");
    assert!(results["missing"][0]["reason"].as_str().unwrap().contains("install-bench-peers"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Envoy is missing"));
    // ringlb has been measured all the same.
    assert_eq!(results["runs"][0]["system"], "ringlb");
}

#[test]
fn a_system_that_fails_is_told_of_and_spoils_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("haproxy");
    fs::write(&program, "#!/bin/sh\n[ \"$1\" = -v ] && echo HAProxy version none && exit\necho I will not; exit 1\n")
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let arguments = ["--workloads", "w2-1", "--peers", "haproxy,direct", "--rounds", "2", "--duration", "100ms"];
    let output = bench(directory.path(), &arguments).args(["--warm-up", "0"]).env("PATH", path).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let results = results(directory.path());
    assert_eq!(results["complete"], true);
    let left_out = results["left_out"].as_array().unwrap();
    assert_eq!(left_out.iter().map(|left_out| left_out["round"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert!(left_out[0]["reason"].as_str().unwrap().contains("I will not"), "{left_out:?}");
    let systems: Vec<_> =
        results["runs"].as_array().unwrap().iter().map(|run| run["system"].as_str().unwrap()).collect();
    assert_eq!(systems, ["direct", "ringlb", "ringlb", "direct"]);
}

#[test]
fn a_killed_benchmark_leaves_its_results_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--workloads", "w2-1", "--peers", "haproxy", "--rounds", "1000", "--duration", "100ms"];
    let mut command = bench(directory.path(), &arguments);
    let child = command.args(["--warm-up", "0"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let has_runs = || {
        let text = fs::read(directory.path().join("out/bench.json")).unwrap_or_default();
        let results: Option<Value> = serde_json::from_slice(&text).ok();
        results.is_some_and(|results| results["runs"].as_array().is_some_and(|runs| runs.len() >= 2))
    };
    let pid = Pid::from_raw(child.id().cast_signed());
    wait_until("two runs have been made", has_runs);
    wait_until("a system runs", || !descendants(pid).is_empty());
    let systems = descendants(pid);
    kill_with_all_it_started(child, &systems);
    let results = results(directory.path());
    assert_eq!(results["complete"], false);
    assert!(results["ratios"].as_array().is_some_and(|ratios| !ratios.is_empty()));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_happens() {
    for (arguments, named) in [
        (["--workloads", "w0"], "w0"),
        (["--peers", "traefik"], "traefik"),
        (["--rounds", "0"], "--rounds"),
        (["--duration", "0"], "--duration"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        is_refused(&mut bench(directory.path(), &arguments), named, &directory.path().join("out"));
    }
}
