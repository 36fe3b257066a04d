//! The messages that lead a proxy's table from one state of a network to another. Pure.

use crate::model::{Backend, Network, Service};
use ringlb_proxy::control::digest::{Digests, digest};
use ringlb_proxy::control::message::{BackendSpec, Change, Delta, Request, ServiceSpec, Snapshot};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The whole table of `network`.
#[must_use]
pub fn snapshot(network: &Network) -> Request {
    let services = network.services().in_order().map(|service| Arc::new(service_spec(service))).collect();
    Request::Snapshot(Snapshot { generation: network.generation(), services })
}

/// The one request that leads from the table of `old` to that of `new`; none if it is the same table.
///
/// Its cost grows with what differs, not with what there is: the maps of the two states share what did not change.
#[must_use]
pub fn step(old: &Network, new: &Network) -> Option<Request> {
    if old.generation() == new.generation() {
        return None;
    }
    Some(Request::Delta(Delta { from: old.generation(), to: new.generation(), changes: changes(old, new) }))
}

/// The one request that leads a table of which this is known to that of `new`: services that differ are put whole.
#[must_use]
pub fn step_from(known: &Digests, new: &Network) -> Delta {
    let mut known_services: HashMap<_, _> = known.services.iter().map(|one| (one.name.as_str(), one.digest)).collect();
    let mut put = Vec::new();
    for service in new.services().in_order() {
        let mut spec = service_spec(service);
        let there = known_services.remove(spec.name.as_str()).flatten();
        if there.is_none() || there != digest(&mut spec) {
            put.push(Change::PutService(Arc::new(spec)));
        }
    }
    let removed = known_services.into_keys().map(|name| Change::RemoveService { service: name.to_owned() });
    // Removals first here, too.
    let changes = removed.chain(put).collect();
    Delta { from: known.generation, to: new.generation(), changes }
}

/// Removals first, so that a VIP is free before another service takes it.
fn changes(old: &Network, new: &Network) -> Vec<Change> {
    let mut removed = Vec::new();
    let mut put = Vec::new();
    for difference in new.services().differences(old.services()) {
        match difference {
            (Some(before), None) => removed.push(Change::RemoveService { service: before.name.to_string() }),
            (Some(before), Some(service)) if same_settings(before, service) => {
                backend_changes(before, service, &mut put);
            }
            (_, Some(service)) => put.push(Change::PutService(Arc::new(service_spec(service)))),
            (None, None) => {}
        }
    }
    removed.append(&mut put);
    removed
}

fn same_settings(one: &Service, two: &Service) -> bool {
    one.vip == two.vip && one.settings == two.settings && one.published == two.published
}

fn backend_changes(old: &Service, new: &Service, changes: &mut Vec<Change>) {
    let service = || new.name.to_string();
    changes.extend(new.backends.differences(&old.backends).map(|(address, _, now)| match now {
        Some(backend) => Change::PutBackend { service: service(), backend: backend_spec(address, backend) },
        None => Change::RemoveBackend { service: service(), address },
    }));
}

fn service_spec(service: &Service) -> ServiceSpec {
    ServiceSpec {
        name: service.name.to_string(),
        vips: service.vip.iter().copied().collect(),
        settings: service.settings.clone(),
        published: service.published.clone(),
        backends: service.backends.iter().map(|(address, backend)| backend_spec(*address, backend)).collect(),
    }
}

fn backend_spec(address: IpAddr, backend: &Backend) -> BackendSpec {
    let Backend { weight, draining, backup, local } = *backend;
    BackendSpec { address, weight: weight.0, draining, backup, local }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::histories;
    use proptest::prelude::*;
    use ringlb_proxy::table::{Table, Transition};

    type Listed = Vec<(String, Vec<IpAddr>, Vec<(IpAddr, u16, bool, bool, bool)>)>;

    /// What a proxy's table holds, in an order of its own.
    fn listed(table: &Table) -> Listed {
        let mut services: Vec<_> = table
            .services()
            .map(|service| {
                let backends = service.backends().iter();
                let mut backends: Vec<_> =
                    backends.map(|b| (b.address, b.weight, b.draining, b.backup, b.local)).collect();
                backends.sort_unstable();
                (service.name.to_string(), service.vips.to_vec(), backends)
            })
            .collect();
        services.sort_unstable();
        services
    }

    fn apply(table: &Table, request: &Request) -> Table {
        let Transition { table, .. } = match request {
            Request::Snapshot(snapshot) => table.replaced_by(snapshot).unwrap(),
            Request::Delta(delta) => table.changed_by(delta).unwrap(),
            _ => unreachable!("no request for a table"),
        };
        table
    }

    proptest! {
        /// Any two states of a history, neighbours or not: the proxy's own table, led by the step from one to the other,
        /// is the table that a snapshot of the other makes.
        #[test]
        fn a_step_leads_to_the_new_table(models in histories(), picks in prop::collection::vec(any::<prop::sample::Index>(), 1..8)) {
            let mut picks: Vec<_> = picks.iter().map(|pick| pick.index(models.len())).collect();
            picks.sort_unstable();
            let networks: Vec<_> = picks.iter().map(|index| models[*index].network("web").unwrap()).collect();
            let mut table = apply(&Table::default(), &snapshot(networks[0]));
            for pair in networks.windows(2) {
                if let Some(request) = step(pair[0], pair[1]) {
                    table = apply(&table, &request);
                }
                prop_assert_eq!(listed(&table), listed(&apply(&Table::default(), &snapshot(pair[1]))));
            }
        }

        /// The same where the daemon knows of the proxy's table only what that says in brief. What is the same is not sent.
        #[test]
        fn what_differs_leads_to_the_new_table(models in histories(), first: prop::sample::Index, second: prop::sample::Index) {
            let mut picks = [first, second].map(|pick| pick.index(models.len()));
            picks.sort_unstable();
            let [old, new] = picks.map(|index| models[index].network("web").unwrap());
            let mut table = apply(&Table::default(), &snapshot(models[0].network("web").unwrap()));
            // By way of changes, so that backends are in another order than in a table that came whole.
            for model in &models[1..=picks[0]] {
                let network = model.network("web").unwrap();
                if network.generation() > table.generation() {
                    let mut earlier = models.iter().map(|model| model.network("web").unwrap());
                    let from = earlier.rfind(|from| from.generation() == table.generation()).unwrap();
                    table = apply(&table, &step(from, network).unwrap());
                }
            }
            prop_assert_eq!(listed(&table), listed(&apply(&Table::default(), &snapshot(old))));
            let delta = step_from(&table.digests(), new);
            if old.generation() == new.generation() {
                prop_assert_eq!(delta.changes, []);
            } else {
                let before = |name: &str| old.services().in_order().find(|one| *one.name == *name).map(|one| service_spec(one));
                let specs = new.services().in_order().map(|service| service_spec(service));
                let expected: Vec<_> = specs.filter(|spec| before(&spec.name).as_ref() != Some(spec)).collect();
                let put = delta.changes.iter().filter_map(|change| match change {
                    Change::PutService(spec) => Some(ServiceSpec::clone(spec)),
                    _ => None,
                });
                prop_assert_eq!(put.collect::<Vec<_>>(), expected);
                let after = apply(&table, &Request::Delta(delta));
                prop_assert_eq!(listed(&after), listed(&apply(&Table::default(), &snapshot(new))));
            }
        }
    }
}
