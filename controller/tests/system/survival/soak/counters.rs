//! What a proxy has counted, and what must be the same.

use super::tally::Tally;
use serde_json::Value;

/// What the proxy has counted is what clients have done.
pub(super) fn check(network: &Value, tallies: &[(&str, Tally)], datagrams_lost: u64) {
    let (connections, datagrams) = (&network["connections"], &network["datagrams"]);
    let proxy = |field: &str| connections[field].as_u64().unwrap();
    let tally = |name: &str| &tallies.iter().find(|(kind, _)| *kind == name).unwrap().1;
    let services = network["services"].as_array().unwrap();
    let service = |name: &str| services.iter().find(|service| service["name"] == name).unwrap();
    let of_backends = |service: &Value, field: &str| -> u64 {
        service["backends"].as_array().unwrap().iter().map(|backend| backend[field].as_u64().unwrap()).sum()
    };
    for service in services {
        let open = of_backends(service, "active") - of_backends(service, "active_sessions");
        assert_eq!(open, 0, "connections to the backends of {}", service["name"]);
    }
    // Each connection that was accepted was given to a backend, or refused for a reason.
    let given: u64 = services
        .iter()
        .map(|service| service["connections"].as_u64().unwrap() - service["sessions"].as_u64().unwrap())
        .sum();
    let refused: u64 = connections
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| name.starts_with("refused_"))
        .filter_map(|(_, count)| count.as_u64())
        .sum();
    let told = given + refused + proxy("no_service") + proxy("no_backend");
    let accepted = proxy("accepted");
    println!("{accepted} accepted: {given} given to a backend, {refused} refused, {} without one", proxy("no_backend"));
    // Some end before they have a backend.
    let early = proxy("client_resets") + proxy("removed_resets") + proxy("retries_denied");
    assert!(
        told <= accepted && accepted <= told + early,
        "{told} connections of {accepted} are told of: {connections}"
    );
    // Nothing has ended that was not made to.
    let slow_and_reset = tally("reset").injected + tally("slow reader").injected;
    // Who gives a connection up that has failed may leave something unread in it.
    let failed: u64 = tallies.iter().map(|(_, tally)| tally.failed()).sum();
    assert!(proxy("client_resets") <= slow_and_reset + failed, "{connections}");
    assert!(proxy("client_resets") >= tally("reset").injected, "{connections}");
    assert!(proxy("idle_resets") <= tally("vanished").injected, "{connections}");
    assert!(proxy("removed_resets") <= tally("churn").injected, "{connections}");
    for never in ["no_service", "backend_resets", "drain_resets", "lifetime_resets", "ports_exhausted", "waiting"] {
        assert_eq!(proxy(never), 0, "{never}");
    }
    let lost = datagrams["at_limit"].as_u64().unwrap() + datagrams["evicted"].as_u64().unwrap();
    assert!(datagrams_lost <= lost, "{datagrams_lost} datagrams were lost: {datagrams}");
    assert_eq!(network["ring"]["completion_overflows"], 0);
    // The bytes of those that have done all that they were to; those of UDP beside them.
    let (echo, half) = (tally("echo"), tally("half-close"));
    let udp = |direction: &str| datagrams[direction].as_u64().unwrap();
    let there = of_backends(service("echo"), "bytes_to_backend") - udp("bytes_to_backends");
    let back = of_backends(service("echo"), "bytes_to_client") - udp("bytes_to_clients");
    assert_eq!((there, back), (echo.sent + half.sent, echo.received + half.received), "bytes");
    let slow = of_backends(service("slow"), "bytes_to_client");
    assert!(slow >= tally("slow reader").received, "{slow} bytes for slow readers");
}
