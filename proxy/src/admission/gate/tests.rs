use super::*;
use crate::control::message::{ServiceSettings, ServiceSpec};
use crate::control::settings::{
    ClientRate, MaxConnections, MaxConnectionsPerClient, Prefixes, RateBurst, RatePerSecond,
};

fn service(settings: ServiceSettings, before: Option<&Service>) -> Service {
    let spec = ServiceSpec {
        name: "s".into(),
        vips: vec![[127, 0, 1, 1].into()],
        settings,
        published: Vec::new(),
        backends: Vec::new(),
    };
    Service::new(&spec, before)
}

fn client(last: u8) -> Option<IpAddr> {
    Some([192, 0, 2, last].into())
}

fn prefixes(text: &str) -> Prefixes {
    Prefixes(vec![text.parse().unwrap()])
}

const NOW: Duration = Duration::from_secs(1);

#[test]
fn nothing_is_asked_and_nobody_refused_by_default() {
    let (gate, service) = (Gate::default(), service(ServiceSettings::default(), None));
    assert!(!service.examines_clients());
    let admitted = gate.admit(&service, None, NOW).unwrap();
    assert_eq!(service.state.places.taken(), 1);
    gate.leave(admitted);
    assert_eq!(service.state.places.taken(), 0);
}

#[test]
fn each_limit_has_its_own_reason_and_who_is_refused_holds_nothing() {
    let gate = Gate::default();
    let settings = ServiceSettings {
        max_connections: MaxConnections(3),
        max_connections_per_client: MaxConnectionsPerClient(2),
        deny: prefixes("192.0.2.9/32"),
        ..ServiceSettings::default()
    };
    let service = service(settings, None);
    let admit = |client| gate.admit(&service, client, NOW);
    assert_eq!(admit(client(9)).unwrap_err(), Refusal::Denied);
    assert_eq!(admit(None).unwrap_err(), Refusal::Denied, "unknown where it matters");
    let held = [admit(client(1)).unwrap(), admit(client(1)).unwrap()];
    assert_eq!(admit(client(1)).unwrap_err(), Refusal::ClientFull);
    assert_eq!(service.state.places.taken(), 2);
    let other = admit(client(2)).unwrap();
    assert_eq!(admit(client(3)).unwrap_err(), Refusal::ServiceFull);
    held.into_iter().for_each(|admitted| gate.leave(admitted));
    let again = admit(client(1)).unwrap();
    for admitted in [again, other] {
        gate.leave(admitted);
    }
    assert_eq!(service.state.places.taken(), 0);
}

#[test]
fn a_rate_is_counted_only_for_who_came_in() {
    let gate = Gate::default();
    let settings = ServiceSettings {
        client_rate: ClientRate { per_second: RatePerSecond(1), burst: RateBurst(2) },
        max_connections_per_client: MaxConnectionsPerClient(1),
        ..ServiceSettings::default()
    };
    let service = service(settings, None);
    let admit = |now| gate.admit(&service, client(1), now);
    let first = admit(NOW).unwrap();
    assert_eq!(admit(NOW).unwrap_err(), Refusal::ClientFull);
    gate.leave(first);
    gate.leave(admit(NOW).unwrap());
    assert_eq!(admit(NOW).unwrap_err(), Refusal::ClientRate);
    assert_eq!(
        (
            service.state.places.taken(),
            gate.clients.count(service.state.scope, Client::from(IpAddr::from([192, 0, 2, 1])))
        ),
        (0, 0)
    );
    gate.leave(admit(NOW + Duration::from_secs(1)).unwrap());
}

/// A service's counts outlive a change of its settings, and are its own.
#[test]
fn a_changed_limit_counts_at_once_and_services_are_apart() {
    let gate = Gate::default();
    let limited = |limit| ServiceSettings { max_connections: MaxConnections(limit), ..ServiceSettings::default() };
    let before = service(limited(0), None);
    let held: Vec<_> = (0..3).map(|_| gate.admit(&before, None, NOW).unwrap()).collect();
    let after = service(limited(3), Some(&before));
    assert_eq!(gate.admit(&after, None, NOW).unwrap_err(), Refusal::ServiceFull);
    let other = service(limited(1), None);
    assert_ne!(other.state.scope, after.state.scope);
    gate.leave(gate.admit(&other, None, NOW).unwrap());
    held.into_iter().for_each(|admitted| gate.leave(admitted));
    gate.leave(gate.admit(&after, None, NOW).unwrap());
}

#[test]
fn lists_are_compiled_once_for_the_same_settings() {
    let allow = ServiceSettings { allow: prefixes("192.0.2.0/24"), ..ServiceSettings::default() };
    let before = service(allow.clone(), None);
    assert!(Arc::ptr_eq(&before.clients, &service(allow, Some(&before)).clients));
    assert!(!Arc::ptr_eq(&before.clients, &service(ServiceSettings::default(), Some(&before)).clients));
}
