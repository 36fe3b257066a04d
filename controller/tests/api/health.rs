//! The settings of health and of choosing: set in every way, shown, kept, and refused with their field.

use crate::support::Daemon;
use serde_json::{Value, json};

/// A daemon with network `web`.
fn daemon() -> Daemon {
    let daemon = Daemon::start();
    daemon.done("PUT", "/v1/networks/web", Some(r#"{"subnet": "10.1.0.0/24"}"#));
    daemon
}

const API: &str = "/v1/networks/web/services/api";

fn defaults() -> Value {
    json!({
        "slow_start": "0s", "prefer_local": false, "local_threshold": 50, "panic_threshold": 50,
        "ejection": {"failures": 5, "base": "10s", "longest": "5m", "max_share": 50},
        "health_check": {
            "port": 0, "send": "", "expect": "", "interval": "5s", "timeout": "2s", "rise": 2, "fall": 3
        },
    })
}

fn others() -> Value {
    json!({
        "slow_start": "30s", "prefer_local": true, "local_threshold": 60, "panic_threshold": 0,
        "ejection": {"failures": 0, "base": "200ms", "longest": "1m", "max_share": 100},
        "health_check": {
            "port": 8080, "send": "GET / HTTP/1.0\r\n\r\n", "expect": " 200 ", "interval": "1s", "timeout": "500ms",
            "rise": 1, "fall": 4
        },
    })
}

/// Fails unless `shown` has all these settings.
fn assert_settings(shown: &Value, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(shown[name], *value, "{name}");
    }
}

#[test]
fn settings_are_set_by_the_api_and_shown() {
    let daemon = daemon();
    assert_settings(&daemon.done("PUT", API, Some("{}"))["service"], &defaults());
    assert_settings(&daemon.done("PUT", API, Some(&others().to_string()))["service"], &others());
    assert_settings(&daemon.done("GET", API, None), &others());
    assert_settings(&daemon.network()["services"][0], &others());
    // A part of a group leaves the rest of it at its defaults, as a service does with its settings.
    let partly = daemon.done("PUT", API, Some(r#"{"ejection": {"base": "1s"}, "health_check": {}}"#));
    let mut expected = defaults();
    expected["ejection"]["base"] = "1s".into();
    assert_settings(&partly["service"], &expected);
}

#[test]
fn settings_are_set_by_flags() {
    let daemon = daemon();
    let run = |arguments: &[&str]| {
        let output = daemon.cli(&[&["--json", "service", "create", "web", "api"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["service"].clone()
    };
    assert_settings(&run(&[]), &defaults());
    let flags = "--slow-start 30s --prefer-local --local-threshold 60 --panic-threshold 0 --ejection-failures 0 \
        --ejection-base 200ms --ejection-longest 1m --ejection-max-share 100 --health-check-port 8080 \
        --health-check-interval 1s --health-check-timeout 500ms --health-check-rise 1 --health-check-fall 4";
    let mut flags: Vec<_> = flags.split_whitespace().collect();
    flags.extend(["--health-check-send", "GET / HTTP/1.0\r\n\r\n", "--health-check-expect", " 200 "]);
    assert_settings(&run(&flags), &others());
    assert_eq!(run(&["--prefer-local=false"])["prefer_local"], false);

    let output = daemon.cli(&["service", "create", "web", "api", "--panic-threshold", "101"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.starts_with("ringlb: networks.web.services.api.panic_threshold: "), "{error}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn settings_are_set_by_a_document_and_kept() {
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--state-dir", state_dir.path().to_str().unwrap()];
    let daemon = Daemon::start_with(&arguments, &[]);
    let mut service = others();
    service["name"] = "api".into();
    service["backends"] = json!([{"ip": "10.1.0.2", "backup": true}, {"ip": "10.1.0.3"}]);
    let state = json!({"version": 1, "networks": [{"name": "web", "subnet": "10.1.0.0/24", "services": [service]}]});
    assert_eq!(daemon.apply(&state.to_string()).status, 200);
    let check = |daemon: &Daemon| {
        let shown = daemon.done("GET", API, None);
        assert_settings(&shown, &others());
        let backups: Vec<_> = shown["backends"].as_array().unwrap().iter().map(|b| b["backup"] == true).collect();
        assert_eq!(backups, [true, false]);
    };
    check(&daemon);
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    let (_, run_dir) = daemon.wait();
    check(&Daemon::start_on(run_dir, &arguments, &[]));
}

#[test]
fn a_backup_stays_one_until_it_is_put_as_something_else() {
    let daemon = daemon();
    daemon.done("PUT", API, Some("{}"));
    let run = |arguments: &[&str]| {
        let output = daemon.cli(&[&["--json", "backend"], arguments].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["backend"]["backup"].clone()
    };
    assert_eq!(run(&["add", "web", "api", "10.1.0.2", "--backup"]), true);
    assert_eq!(run(&["drain", "web", "api", "10.1.0.2"]), true);
    let output = daemon.cli(&["service", "show", "web", "api"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("draining (backup)"), "{output:?}");
    assert_eq!(run(&["add", "web", "api", "10.1.0.2"]), false);
}

/// Each setting with values that it does not take: the error names the whole path and what would be right, and the service
/// stays as it was.
#[test]
fn each_setting_is_refused_with_its_field() {
    let daemon = daemon();
    daemon.done("PUT", API, Some(&others().to_string()));
    let before = daemon.done("GET", API, None);
    let long = json!("x".repeat(1025));
    let numbers = |low: i64, high: i64| -> Vec<Value> {
        vec![json!(low - 1), json!(high + 1), json!(1.5), json!("1"), Value::Null, json!([1])]
    };
    let times = || vec![json!("2h"), json!("-1s"), json!(5), json!("soon"), Value::Null, json!({})];
    let one = |value: Value| vec![value];
    for (field, values, reason) in [
        ("slow_start", times(), "s"),
        ("prefer_local", vec![json!("yes"), json!(1), Value::Null], "expected a boolean"),
        ("local_threshold", numbers(0, 100), "a whole number from 0 to 100"),
        ("panic_threshold", numbers(0, 100), "a whole number from 0 to 100"),
        ("ejection", vec![json!([5, "10s"]), json!(5), Value::Null], "expected an object"),
        ("ejection.failures", numbers(0, 1000), "a whole number from 0 to 1000"),
        ("ejection.base", times(), "s"),
        ("ejection.base", one(json!("99ms")), "from `100ms` to `1h`"),
        ("ejection.longest", one(json!("25h")), "from `100ms` to `24h`"),
        ("ejection.max_share", numbers(1, 100), "a whole number from 1 to 100"),
        ("ejection.share", one(json!(1)), "unknown field `share`"),
        ("health_check", vec![json!(8080), json!("off"), json!([])], "expected an object"),
        ("health_check.port", numbers(0, 65535), "a whole number from 0 to 65535"),
        ("health_check.send", vec![long.clone(), json!(1)], "a text of at most 1024 bytes"),
        ("health_check.expect", vec![long, json!(["a"])], "a text of at most 1024 bytes"),
        ("health_check.interval", times(), "s"),
        ("health_check.interval", one(json!("50ms")), "from `100ms` to `1h`"),
        ("health_check.timeout", one(json!("0s")), "from `1ms` to `1m`"),
        ("health_check.rise", numbers(1, 100), "a whole number from 1 to 100"),
        ("health_check.fall", numbers(1, 100), "a whole number from 1 to 100"),
        ("health_check.path", one(json!("/")), "unknown field `path`"),
    ] {
        for value in values {
            let body = match field.split_once('.') {
                Some((group, setting)) => json!({group: {setting: value}}),
                None => json!({field: value}),
            };
            let response = daemon.http("PUT", API, Some(&body.to_string()));
            assert_eq!(response.status, 422, "{body}: {response:?}");
            let error = &response.body["errors"][0];
            assert_eq!(error["field"], format!("networks.web.services.api.{field}"), "{body}");
            assert!(error["reason"].as_str().unwrap().contains(reason), "{body}: {error}");
        }
    }
    // Settings that are right by themselves and not together.
    for body in [r#"{"health_check": {"send": "x"}}"#, r#"{"health_check": {"expect": "x", "port": 0}}"#] {
        let response = daemon.http("PUT", API, Some(body));
        assert_eq!(response.status, 422, "{response:?}");
        let error = &response.body["errors"][0];
        assert_eq!(error["field"], "networks.web.services.api.health_check.port");
        assert!(error["reason"].as_str().unwrap().contains("is needed"), "{error}");
    }
    let response = daemon.http("PUT", &format!("{API}/backends/10.1.0.2"), Some(r#"{"backup": "yes"}"#));
    assert_eq!(response.body["errors"][0]["field"], "networks.web.services.api.backends.10.1.0.2.backup");
    assert_eq!(daemon.done("GET", API, None), before);
}
