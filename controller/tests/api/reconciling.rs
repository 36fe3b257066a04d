//! From what should be to what the proxy is told, with a proxy that writes everything down.

use crate::fake_proxy::FakeProxy;
use crate::support::{Daemon, pause, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_netns::Namespace;
use serde_json::{Value, json};
use std::time::Instant;

fn daemon_with(fake: &FakeProxy) -> Daemon {
    Daemon::start_with(&["--proxy-program", fake.program().to_str().unwrap()], &[])
}

/// A daemon with network `web`, one attachment and service `api`.
fn with_service(fake: &FakeProxy, namespace: &str) -> Daemon {
    let daemon = daemon_with(fake);
    attach(&daemon, namespace);
    daemon.done("PUT", "/v1/networks/web/services/api", None);
    daemon
}

fn attach(daemon: &Daemon, namespace: &str) {
    Namespace::create(namespace).unwrap();
    daemon.done("PUT", "/v1/networks/web", Some(r#"{"subnet": "10.1.0.0/24"}"#));
    let body = json!({ "netns": format!("/run/netns/{namespace}") }).to_string();
    daemon.done("PUT", "/v1/networks/web/attachments/c1", Some(&body));
}

fn put_backend(daemon: &Daemon, last: u8) -> Value {
    daemon.done("PUT", &format!("/v1/networks/web/services/api/backends/10.1.0.{last}"), None)
}

#[test]
fn a_proxy_is_there_only_while_there_is_an_attachment_and_a_service() {
    let fake = FakeProxy::new("serve");
    let daemon = daemon_with(&fake);
    let prefix = ringlb::reconcile::name_prefix(&daemon.run_dir().canonicalize().unwrap());
    let ours = || {
        let names = ringlb_netns::leftovers(&prefix).unwrap();
        names.into_iter().filter(|name| name.ends_with("-lb")).collect::<Vec<_>>()
    };
    attach(&daemon, "only-while");
    assert_eq!((daemon.network()["sandbox"].clone(), ours().len()), (Value::Null, 0));
    daemon.done("PUT", "/v1/networks/web/services/api", None);
    let network = daemon.network();
    assert_eq!(network["sandbox"]["lb_address"], "10.1.0.191");
    assert_eq!(network["sandbox"]["namespace"], json!(ours()[0]));
    daemon.done("DELETE", "/v1/networks/web/attachments/c1", None);
    assert_eq!((daemon.network()["sandbox"].clone(), ours().len()), (Value::Null, 0));
    assert_eq!(daemon.done("GET", "/v1/networks/web", None)["lb_address"], Value::Null);
    daemon.done("PUT", "/v1/networks/web/attachments/c1", Some(r#"{"netns": "/run/netns/only-while"}"#));
    assert_eq!(daemon.network()["acknowledged_generation"], 2);
    daemon.done("DELETE", "/v1/networks/web?remove_lb=true", None);
    assert!(ours().is_empty());
    assert_eq!(fake.heard_of("started").len(), 2);
    assert!(!daemon.run_dir().join("control/web.sock").exists());
}

#[test]
fn a_change_is_one_delta_and_a_batch_is_one_too() {
    let fake = FakeProxy::new("serve");
    let daemon = with_service(&fake, "one-delta");
    assert_eq!(fake.heard_of("Snapshot").len(), 1);
    assert_eq!(put_backend(&daemon, 2)["generation"], 3);
    assert_eq!(put_backend(&daemon, 2)["generation"], 3, "the same again is no change");
    daemon.done("POST", "/v1/networks/web/services/api/backends/10.1.0.2/drain", None);
    daemon.done("DELETE", "/v1/networks/web/services/api/backends/10.1.0.2", None);
    let backend = |weight: u16, draining: bool| json!({"address": "10.1.0.2", "weight": weight, "draining": draining, "backup": false, "local": false});
    let put = |draining: bool| json!({"PutBackend": {"service": "api", "backend": backend(1, draining)}});
    let remove = json!({"RemoveBackend": {"service": "api", "address": "10.1.0.2"}});
    assert_eq!(
        fake.heard_of("Delta"),
        [
            json!({"from": 2, "to": 3, "changes": [put(false)]}),
            json!({"from": 3, "to": 4, "changes": [put(true)]}),
            json!({"from": 4, "to": 5, "changes": [remove]}),
        ]
    );
    let applied = daemon.apply(
        "version: 1
networks:
- name: web
  subnet: 10.1.0.0/24
  attachments: [{name: c1, netns: /run/netns/one-delta}]
  services:
  - {name: api, backends: [{ip: 10.1.0.2}, {ip: 10.1.0.3}]}
  - {name: db, vip: 10.1.0.200, connect_timeout: 500ms, drain_timeout: never}
",
    );
    assert_eq!(applied.status, 200, "{applied:?}");
    assert_eq!(applied.body["networks"][0], json!({"name": "web", "outcome": "changed", "generation": 6}));
    let delta = fake.heard_of("Delta").pop().unwrap();
    assert_eq!((&delta["from"], &delta["to"], delta["changes"].as_array().unwrap().len()), (&json!(5), &json!(6), 3));
    let changes = delta["changes"].as_array().unwrap();
    let db = changes.iter().find_map(|change| change.get("PutService")).unwrap();
    assert_eq!((&db["name"], &db["vips"], &db["backends"]), (&json!("db"), &json!(["10.1.0.200"]), &json!([])));
    assert_eq!(db["settings"]["drain_timeout"], "never");
    assert_eq!(db["settings"]["connect_timeout"], "500ms");
    // A proxy was started once, asked once to say when UDP sessions are busy, and told nothing else.
    assert_eq!(fake.heard().len(), 1 + 1 + 1 + 4);
}

#[test]
fn a_refused_delta_is_followed_by_the_whole_table() {
    let fake = FakeProxy::new("refuse-deltas");
    let daemon = with_service(&fake, "refused");
    assert_eq!(put_backend(&daemon, 2)["generation"], 3);
    let snapshots = fake.heard_of("Snapshot");
    assert_eq!(snapshots.len(), 2);
    assert_eq!(snapshots[1]["generation"], 3);
    assert_eq!(snapshots[1]["services"][0]["backends"][0]["address"], "10.1.0.2");
}

#[test]
fn garbage_on_the_control_channel_ends_the_connection_and_nothing_else() {
    for behaviour in ["garbage", "truncated"] {
        let fake = FakeProxy::new(behaviour);
        let daemon = with_service(&fake, behaviour);
        // The table was sent, garbage came, and the table was sent again on a new connection.
        assert_eq!(fake.heard_of("Snapshot").len(), 2, "{behaviour}");
        assert_eq!(daemon.network()["acknowledged_generation"], 2);
        put_backend(&daemon, 2);
        assert_eq!((fake.heard_of("started").len(), fake.heard_of("Delta").len()), (1, 1), "{behaviour}");
    }
}

#[test]
fn a_proxy_that_does_not_answer_is_named_and_the_change_is_kept() {
    let fake = FakeProxy::new("serve");
    let daemon = with_service(&fake, "mute");
    let pid = Pid::from_raw(daemon.proxy_pid().unwrap());
    pause(pid);
    let began = Instant::now();
    let late = daemon.http("PUT", "/v1/networks/web/services/api/backends/10.1.0.2", None);
    assert_eq!(late.status, 504, "{late:?}");
    assert!(began.elapsed().as_secs() >= 4);
    assert_eq!(late.body["errors"][0]["field"], "networks.web");
    let detail = late.body["detail"].as_str().unwrap();
    assert!(detail.contains("the proxy of network `web` has not acknowledged generation 3 within 5 s"), "{detail}");
    assert!(detail.contains("the change is kept"), "{detail}");
    assert_eq!(daemon.done("GET", "/v1/networks/web/services/api/backends/10.1.0.2", None)["weight"], 1);
    kill(pid, Signal::SIGCONT).unwrap();
    wait_until("the change arrives", || daemon.network()["acknowledged_generation"] == 3);
    assert_eq!(daemon.network()["error"], Value::Null);
    assert_eq!(put_backend(&daemon, 3)["generation"], 4);
    assert_eq!(fake.heard_of("started").len(), 1);
}

#[test]
fn changes_that_arrive_meanwhile_are_one_step() {
    let fake = FakeProxy::new("serve");
    let daemon = with_service(&fake, "merged");
    let pid = Pid::from_raw(daemon.proxy_pid().unwrap());
    let before = fake.heard_of("Delta").len();
    pause(pid);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> = (2..=41)
            .map(|last| {
                scope.spawn({
                    let daemon = &daemon;
                    move || put_backend(daemon, last)
                })
            })
            .collect();
        wait_until("all changes are taken", || {
            daemon.done("GET", "/v1/networks/web/services/api", None)["backends"].as_array().unwrap().len() == 40
        });
        kill(pid, Signal::SIGCONT).unwrap();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer["generation"].as_u64() >= Some(3)));
    let deltas = &fake.heard_of("Delta")[before..];
    // One was under way, the others waited for it; or all came at once.
    assert!((1..=2).contains(&deltas.len()), "{deltas:?}");
    assert_eq!(deltas.last().unwrap()["to"], 42);
}

#[test]
fn a_killed_proxy_is_back_at_once_with_the_current_table() {
    let fake = FakeProxy::new("serve");
    let daemon = with_service(&fake, "killed");
    put_backend(&daemon, 2);
    let pid = daemon.proxy_pid().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_until("another proxy has the table", || {
        daemon.proxy_pid().is_some_and(|new| new != pid) && fake.heard_of("Snapshot").len() == 2
    });
    let snapshot = fake.heard_of("Snapshot").pop().unwrap();
    assert_eq!(
        (&snapshot["generation"], &snapshot["services"][0]["backends"][0]["address"]),
        (&json!(3), &json!("10.1.0.2"))
    );
    wait_until("the table is acknowledged", || daemon.network()["error"] == Value::Null);
    assert_eq!(daemon.network()["proxy"]["restarts"], 1);
    // Both had the daemon's listening socket.
    let started = fake.heard_of("started");
    assert_eq!(started[0]["listens"], started[1]["listens"]);
    assert_eq!(put_backend(&daemon, 3)["generation"], 4);
}

#[test]
fn a_proxy_that_keeps_ending_is_not_started_without_pause() {
    let (fake, mended) = (FakeProxy::new("serve"), FakeProxy::new("serve"));
    std::fs::write(fake.program(), "#!/bin/sh\nexit 3\n").unwrap();
    let daemon = daemon_with(&fake);
    attach(&daemon, "ending");
    let began = Instant::now();
    let late = daemon.http("PUT", "/v1/networks/web/services/api", None);
    assert_eq!(late.status, 504);
    let detail = late.body["detail"].as_str().unwrap();
    assert!(detail.contains("the proxy ended: exit status 3"), "{detail}");
    let restarts = daemon.network()["proxy"]["restarts"].as_u64().unwrap();
    // Pauses of 0, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, … s.
    let most = 6 + began.elapsed().as_secs() / 5;
    assert!((3..=most).contains(&restarts), "{restarts} restarts in {:?}", began.elapsed());
    // Mended, it comes back by itself.
    std::fs::copy(mended.program(), fake.program()).unwrap();
    wait_until("the proxy is back", || daemon.network()["acknowledged_generation"] == 2);
}

#[test]
fn a_proxy_of_another_network_gets_no_table() {
    let fake = FakeProxy::new("another");
    let daemon = daemon_with(&fake);
    attach(&daemon, "another");
    let late = daemon.http("PUT", "/v1/networks/web/services/api", None);
    assert_eq!(late.status, 504, "{late:?}");
    assert!(late.body["detail"].as_str().unwrap().contains("answered by a proxy of network `another`"), "{late:?}");
    assert!(fake.heard_of("Snapshot").is_empty());
}

#[test]
fn a_proxy_program_that_vanished_is_named() {
    let fake = FakeProxy::new("serve");
    let daemon = daemon_with(&fake);
    attach(&daemon, "vanished");
    let elsewhere = fake.program().with_extension("away");
    std::fs::rename(fake.program(), &elsewhere).unwrap();
    let failed = daemon.http("PUT", "/v1/networks/web/services/api", None);
    assert_eq!(failed.status, 503, "{failed:?}");
    let detail = failed.body["detail"].as_str().unwrap();
    assert!(detail.contains("cannot start ") && detail.contains("No such file"), "{detail}");
    std::fs::rename(&elsewhere, fake.program()).unwrap();
    wait_until("the proxy is there", || daemon.network()["acknowledged_generation"] == 2);
}

#[test]
fn a_container_that_vanished_is_a_problem_of_its_own() {
    let fake = FakeProxy::new("serve");
    let daemon = with_service(&fake, "vanishing-1");
    Namespace::create("vanishing-2").unwrap();
    let state = "version: 1
networks:
- name: web
  subnet: 10.1.0.0/24
  attachments: [{name: c1, netns: /run/netns/vanishing-1}, {name: c2, netns: /run/netns/vanishing-2}]
  services: [{name: api}]
";
    assert_eq!(daemon.apply(state).status, 200);
    Namespace::remove("vanishing-1").unwrap();
    Namespace::remove("vanishing-2").unwrap();
    // Nothing of it concerns a backend.
    assert_eq!(put_backend(&daemon, 77)["generation"], 3);
    // Attached again it is repaired, which needs the namespace.
    let again = daemon.http("PUT", "/v1/networks/web/attachments/c2", Some(r#"{"netns": "/run/netns/vanishing-2"}"#));
    assert_eq!(again.status, 422, "{again:?}");
    Namespace::create("vanishing-2").unwrap();
    daemon.done("PUT", "/v1/networks/web/attachments/c2", Some(r#"{"netns": "/run/netns/vanishing-2"}"#));
    daemon.done("DELETE", "/v1/networks/web/attachments/c1", None);
    assert_eq!(daemon.network()["attachments"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.network()["failed_attachments"], json!({}));
}

#[test]
fn a_vip_outside_the_prefix_has_a_route_of_its_own() {
    let fake = FakeProxy::new("serve");
    let daemon = with_service(&fake, "routes");
    let sandbox = Namespace::open(daemon.network()["sandbox"]["namespace"].as_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let routes = || {
        let routes = runtime.block_on(async { sandbox.links().await.unwrap().local_routes().await.unwrap() });
        let mut routes: Vec<_> = routes.iter().map(ToString::to_string).collect();
        routes.sort();
        routes
    };
    assert_eq!(routes(), ["10.1.0.192/26"]);
    daemon.done("PUT", "/v1/networks/web/services/out", Some(r#"{"vip": "10.1.0.77"}"#));
    daemon.done("PUT", "/v1/networks/web/services/in", Some(r#"{"vip": "10.1.0.250"}"#));
    assert_eq!(routes(), ["10.1.0.192/26", "10.1.0.77/32"]);
    daemon.done("PUT", "/v1/networks/web/services/out", Some(r#"{"vip": "10.1.0.78"}"#));
    assert_eq!(routes(), ["10.1.0.192/26", "10.1.0.78/32"]);
    daemon.done("DELETE", "/v1/networks/web/services/out", None);
    assert_eq!(routes(), ["10.1.0.192/26"]);
}

#[test]
fn a_network_can_move_to_another_subnet_in_one_state() {
    let fake = FakeProxy::new("serve");
    let daemon = with_service(&fake, "moving");
    let moved = "version: 1
networks:
- name: web
  subnet: 10.7.0.0/24
  attachments: [{name: c1, netns: /run/netns/moving}]
  services: [{name: api}]
";
    let applied = daemon.apply(moved);
    assert_eq!(applied.status, 200, "{applied:?}");
    assert_eq!(daemon.network()["sandbox"]["lb_address"], "10.7.0.191");
    assert_eq!(fake.heard_of("started").len(), 2);
    assert_eq!(fake.heard_of("Snapshot").pop().unwrap()["services"][0]["vips"], json!(["10.7.0.192"]));
}
