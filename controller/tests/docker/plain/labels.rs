//! Labels that are taken, and those that cannot be.

use super::{NETWORK, Plain, SERVER, source};
use crate::requests::{ask, ask_all, wait_for_servers};
use crate::wait::wait_until;
use crate::wire::port_of;
use std::net::TcpListener;

#[test]
fn settings_and_weights_come_from_labels_and_what_is_wrong_with_them_is_told() {
    let plain = Plain::start();
    let engine = &plain.engine;
    let labels = ["ringlb.service=web", "ringlb.publish=8080:80", "ringlb.algorithm=wrr"];
    let heavy = plain.run("heavy", &[&labels[..], &["ringlb.weight=3"]].concat());
    let light = plain.run("light", &labels);
    // Another service that wants the same port, and one of its own.
    let other = plain.run("other", &["ringlb.service=other", "ringlb.publish=8080:80,8081:80"]);
    let node = plain.node();
    let taken = node.run(|| TcpListener::bind("0.0.0.0:8082")).unwrap().unwrap();
    let wrong = ["ringlb.service=wrong", "ringlb.publish=8082:80", "ringlb.retries=many", "ringlb.nonsense=1"];
    let wrong = plain.run("wrong", &wrong);
    plain.run("nameless", &["ringlb.service=No Name"]);
    plain.run_with("off", &["ringlb.service=web", "ringlb.enable=false"], &["--network", NETWORK], &SERVER);
    let client = plain.client();
    let daemon = plain.daemon();

    let vip = plain.target(&daemon, "web", 80);
    wait_for_servers(&client, vip, &[heavy.clone(), light.clone()]);
    // Of any 40 in a row 30 within 2 + 2.1 ln 40; with equal weights it would be 20.
    let answers = ask_all(&client, vip, 40);
    assert!((21..40).contains(&answers[&heavy]), "{answers:?}");
    assert_eq!(daemon.network("shop.web").unwrap()["services"][0]["algorithm"], "wrr");

    // Whose the port is they have settled, and each has all else.
    let (web, others) = ([heavy, light], [other]);
    wait_for_servers(&client, plain.target(&daemon, "other", 80), &others);
    wait_for_servers(plain.outside(), port_of(1, 8081), &others);
    let owner = ask(plain.outside(), port_of(1, 8080)).unwrap();
    let (owner, loser) = if web.contains(&owner) { ("web", "other") } else { ("other", "web") };
    let conflict = refused(&daemon, &format!("shop.{loser}"));
    assert!(conflict.contains("8080/tcp") && conflict.contains(&format!("`{owner}`")), "{conflict}");

    wait_for_servers(&client, plain.target(&daemon, "wrong", 80), &[wrong]);
    let told = |container: &str, label: &str| {
        let source = source(&daemon);
        let labels = source["invalid_labels"].as_array().unwrap().clone();
        let told = labels.iter().find(|told| told["service"] == container && told["label"] == label);
        told.unwrap_or_else(|| panic!("{label} of {container} is not told: {source:#}"))["reason"].clone()
    };
    assert!(told("wrong", "ringlb.retries").as_str().is_some_and(|reason| !reason.is_empty()));
    assert!(told("wrong", "ringlb.nonsense").as_str().is_some_and(|reason| reason.contains("no such setting")));
    assert!(told("nameless", "ringlb.service").as_str().is_some_and(|reason| reason.contains("name")));
    let failed = || daemon.network("shop.wrong").unwrap()["failed_ports"].to_string();
    wait_until("the port that the node has already is told", || failed().contains("8082"));
    drop(taken);
    wait_until("it is served once it is free", || ask(plain.outside(), port_of(1, 8082)).is_ok());
    wait_until("and told no more", || !failed().contains("8082"));

    // The newest container's labels count, and one that contradicts them is told.
    let newest = plain.run("newest", &["ringlb.service=web", "ringlb.publish=8090:80", "ringlb.algorithm=rr"]);
    let all = [&web[..], &[newest]].concat();
    wait_for_servers(plain.outside(), port_of(1, 8090), &all);
    assert_eq!(daemon.network("shop.web").unwrap()["services"][0]["algorithm"], "rr");
    assert!(told("light", "ringlb.publish").as_str().is_some_and(|reason| reason.contains("newest")));
    // And the port that it gave up is the other's.
    wait_for_servers(plain.outside(), port_of(1, 8080), &others);
    engine.docker(&["rm", "--force", "wrong", "nameless", "newest", "heavy", "light"]);
    wait_until("nothing is wrong any more", || {
        let source = source(&daemon);
        source["invalid_labels"] == serde_json::json!([]) && source["refused_networks"] == serde_json::json!([])
    });
}

fn refused(daemon: &crate::daemon::Daemon, network: &str) -> String {
    let source = source(daemon);
    let refused = source["refused_networks"].as_array().unwrap();
    let refused = refused.iter().find(|refused| refused["name"] == network);
    refused.unwrap_or_else(|| panic!("{network} is not told: {source:#}"))["reason"].to_string()
}
