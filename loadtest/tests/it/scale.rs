//! `ringlb-load scale` at small sizes: that all figures are there and agree with each other, and that nothing is left. How
//! large they are is not asked.

use crate::support::{descendants, is_refused, kill_with_all_it_started, wait_until};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

fn scale(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlb-load"));
    command.arg("scale").args(arguments);
    command.arg("--json").arg(directory.join("out/scale.json")).arg("--report").arg(directory.join("report"));
    command.stdin(Stdio::null());
    command
}

fn results(directory: &Path) -> Value {
    serde_json::from_slice(&fs::read(directory.join("out/scale.json")).unwrap()).unwrap()
}

fn number(value: &Value, field: &str) -> f64 {
    value[field].as_f64().unwrap_or_else(|| panic!("no {field} in {value}"))
}

#[test]
fn each_size_has_its_figures() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--steps", "1x2x2,1x60x5,2x30x5", "--changes", "40", "--duration", "200ms", "--containers", "7"];
    let output = scale(directory.path(), &arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let results = results(directory.path());
    assert_eq!(results["complete"], true);
    let steps = results["steps"].as_array().unwrap();
    let sizes: Vec<_> = steps
        .iter()
        .map(|step| ["networks", "services", "backends", "all_backends"].map(|field| number(step, field)))
        .collect();
    assert_eq!(sizes, [[1.0, 2.0, 2.0, 4.0], [1.0, 60.0, 5.0, 300.0], [2.0, 30.0, 5.0, 300.0]]);
    for step in steps {
        for field in [
            "build_ms",
            "daemon_bytes",
            "proxy_bytes",
            "kernel_objects",
            "picks_per_second",
            "pick_cpu_us",
            "change_us_p50",
            "change_daemon_cpu_us",
            "change_proxy_cpu_us",
            "batch_ms",
            "resync_ms",
            "daemon_bytes_after_batch",
            "proxy_bytes_after_batch",
            "proxy_bytes_after_resync",
        ] {
            assert!(number(step, field) > 0.0, "{field}: {step}");
        }
        assert!(number(step, "change_us_p99") >= number(step, "change_us_p50"), "{step}");
        assert!(number(step, "idle_cpu_percent") >= 0.0, "{step}");
        let calls = step["change_syscalls_by_name"].as_object().unwrap();
        let sum: f64 = calls.values().map(|calls| calls.as_f64().unwrap()).sum();
        assert!((sum - number(step, "change_syscalls")).abs() < 1e-6, "{step}");
        // A change reaches the proxy by one write, which has the name of a service and an address in it, and not the table.
        assert!(number(&step["change_syscalls_by_name"], "write") >= 0.9, "{step}");
        assert!((20.0..200.0).contains(&number(step, "change_bytes")), "{step}");
        let objects = &step["kernel_objects_by_kind"];
        assert_eq!(objects["namespaces"], 2.0 * number(step, "networks"), "{step}");
        // The bridge, its ports to the sandbox and to the containers, and the sandbox's interface.
        let containers = number(step, "networks") + 1.0;
        assert_eq!(number(objects, "links"), 3.0 * number(step, "networks") + containers, "{step}");
        assert!(["routes", "sockets"].iter().all(|kind| number(objects, kind) >= number(step, "networks")), "{step}");
    }
    // With sixty services as with two.
    assert_eq!(steps[0]["kernel_objects_by_kind"], steps[1]["kernel_objects_by_kind"]);
    let balancer = &steps[1]["kernel_balancer"];
    assert_eq!(balancer["per_sandbox"]["objects"], 300 + 2 * 60);
    assert_eq!(balancer["per_container"]["objects"], 7 * (300 + 2 * 60));

    let fits = results["fits"].as_array().unwrap();
    let memory = fits.iter().find(|fit| fit["figure"] == "proxy_bytes").unwrap();
    assert_eq!(memory["against"], "all_backends");
    assert!(number(memory, "r_squared") <= 1.0 && memory["slope"].is_f64() && memory["intercept"].is_f64(), "{memory}");
    let ratio = number(&steps[2], "kernel_objects") / number(&steps[0], "kernel_objects");
    // A number that is read from JSON may be another one in its last digit.
    assert!((number(&results["ratios"], "kernel_objects") - ratio).abs() < 1e-9, "{ratio} {results}");

    let report = fs::read_to_string(directory.path().join("report/scale.md")).unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.lines().all(|line| report.lines().any(|other| other == line)), "{printed}\n{report}");
    for plot in ["memory", "kernel-objects", "change-time", "change-cpu", "everything", "picks"] {
        assert!(report.contains(&format!("![]({plot}.svg)")), "{report}");
        let svg = fs::read_to_string(directory.path().join(format!("report/{plot}.svg"))).unwrap();
        assert!(svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"), "{svg}");
    }
}

#[test]
fn a_killed_run_leaves_its_results_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let sizes = vec!["2x3x2"; 50].join(",");
    let arguments = ["--steps", &sizes, "--changes", "10", "--duration", "50ms"];
    let mut command = scale(directory.path(), &arguments);
    let child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let has_a_step = || {
        let text = fs::read(directory.path().join("out/scale.json")).unwrap_or_default();
        let results: Option<Value> = serde_json::from_slice(&text).ok();
        results.is_some_and(|results| results["steps"].as_array().is_some_and(|steps| !steps.is_empty()))
    };
    let pid = Pid::from_raw(child.id().cast_signed());
    wait_until("a step has been made", has_a_step);
    // The daemon and two proxies.
    wait_until("a daemon runs with its proxies", || descendants(pid).len() >= 3);
    let processes = descendants(pid);
    kill_with_all_it_started(child, &processes);
    assert_eq!(results(directory.path())["complete"], false);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_happens() {
    for (arguments, named) in [
        (["--steps", "1x10"], "1x10"),
        (["--steps", "0"], "--steps"),
        (["--changes", "0"], "--changes"),
        (["--duration", "0"], "--duration"),
        (["--backends", "0"], "--backends"),
        (["--networks", "1001"], "more than a daemon takes"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        is_refused(&mut scale(directory.path(), &arguments), named, &directory.path().join("out"));
    }
}
