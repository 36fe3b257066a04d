//! Many changes at once: they become few tables, and the last of them is exactly what was asked for.

use crate::exposition::Exposition;
use crate::node::{Admin, Node, find};
use serde_json::Value;
use std::collections::BTreeSet;

const CLIENTS: u32 = 500;
/// With each client's change at a time, 10,000 changes.
const ROUNDS: u32 = 20;

#[test]
fn ten_thousand_changes_at_once_become_few_generations_and_the_last_one_is_exact() {
    let node = Node::with_network();
    let _client = node.container(100);
    node.ringlb(&["service", "create", "net", "web"]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| node.admin()).collect();
    let mut generations = BTreeSet::new();
    for round in 0..ROUNDS {
        for (number, client) in (0..).zip(&mut clients) {
            change(client, number, round);
        }
        for client in &mut clients {
            let (status, answer) = client.answer();
            assert!((200..300).contains(&status), "{status} {answer}");
            let answer: Value = serde_json::from_str(&answer).unwrap();
            generations.insert(answer["generation"].as_u64().unwrap());
        }
    }
    let changes = (CLIENTS * ROUNDS) as usize;
    println!("{changes} changes, {} generations", generations.len());
    assert!(generations.len() * 20 <= changes, "{} generations of {changes} changes", generations.len());

    let status = node.ringlb(&["status"]);
    let generation = |key| find(&status, key).and_then(Value::as_u64).unwrap();
    assert_eq!(generation("acknowledged_generation"), generation("generation"));
    assert_eq!(generations.last(), Some(&generation("generation")));
    let wanted: BTreeSet<_> = (0..CLIENTS).filter(|number| stays(*number, ROUNDS - 1)).map(address).collect();
    let weights =
        |number: u32| stays(number, ROUNDS - 1).then(|| (address(number), u64::from(weight(number, ROUNDS - 1))));
    let desired: Vec<_> = (0..CLIENTS).filter_map(weights).collect();
    let listed = find(&status, "backends").and_then(Value::as_array).unwrap();
    let listed: BTreeSet<_> = listed
        .iter()
        .map(|backend| (backend["ip"].as_str().unwrap().to_owned(), backend["weight"].as_u64().unwrap()))
        .collect();
    assert_eq!(listed, desired.into_iter().collect());
    // What the proxy itself has, and nobody else knows.
    let (_, text) = node.admin().request("GET", "/metrics", "");
    let scraped = Exposition::read(&text);
    let of_proxy = scraped.0["ringlb_backend_connections_total"].samples.keys().map(|labels| labels["backend"].clone());
    assert_eq!(of_proxy.collect::<BTreeSet<_>>(), wanted);
}

/// Each client changes one backend of its own: adds it, gives it another weight, or, half of them and every second time,
/// removes it.
fn change(client: &mut Admin, number: u32, round: u32) {
    let path = format!("/v1/networks/net/services/web/backends/{}", address(number));
    if stays(number, round) {
        client.send("PUT", &path, &format!(r#"{{"weight": {}}}"#, weight(number, round)));
    } else {
        client.send("DELETE", &path, "");
    }
}

fn stays(number: u32, round: u32) -> bool {
    round.is_multiple_of(2) || number.is_multiple_of(2)
}

fn weight(number: u32, round: u32) -> u32 {
    1 + (number + round) % 7
}

fn address(number: u32) -> String {
    format!("10.0.{}.{}", 1 + number / 250, 1 + number % 250)
}
