//! What holds for every model and every refusal.

use ringlb::admin::problem::Problem;
use ringlb::model::limits::MAX_ERRORS;
use ringlb::model::{Attachment, Families, Generation, Model, Network, OfFamily, Service};
use std::collections::HashSet;
use std::net::IpAddr;

/// Everything in a network.
type Content = (String, Generation, Option<Families<IpAddr>>, Vec<Attachment>, Vec<Service>);

/// Everything in a model, to be compared: the parts of a model itself are equal only if they are the same.
pub(crate) fn content(model: &Model) -> Vec<Content> {
    let networks = model.networks().values().map(|network| {
        let attachments = network.attachments().values().map(|attachment| (**attachment).clone()).collect();
        let services = network.services().values().map(|service| (**service).clone()).collect();
        let name = format!("{} {} {}", network.name(), network.subnet(), network.vip_prefix());
        (name, network.generation(), network.lb_address(), attachments, services)
    });
    networks.collect()
}

/// No address is given twice, none is outside its network, and no two networks overlap.
pub(crate) fn check_model(model: &Model) {
    let networks: Vec<_> = model.networks().values().collect();
    for (index, network) in networks.iter().enumerate() {
        check_network(network);
        for other in &networks[..index] {
            for one in network.subnet().iter() {
                let apart = other.subnet().iter().all(|two| !one.contains(two) && !two.contains(one));
                assert!(apart, "{one} overlaps {}", other.subnet());
            }
        }
    }
}

fn check_network(network: &Network) {
    let (subnets, vip_prefixes) = (network.subnet(), network.vip_prefix());
    for subnet in subnets.iter() {
        let vip_prefix = vip_prefixes.get(subnet.family());
        assert!(vip_prefix.is_some_and(|prefix| subnet.contains(prefix)), "{vip_prefixes} in {subnets}");
    }
    let mut taken = HashSet::new();
    let mut take = |addresses: Families<IpAddr>| {
        for subnet in subnets.iter() {
            let address = addresses.get(subnet.family()).copied();
            let address = address.unwrap_or_else(|| panic!("{addresses} lack one of {subnet}"));
            assert!(subnet.contains(&address), "{address} is not in {subnet}");
            let is_broadcast = address.is_ipv4() && address == subnet.broadcast();
            assert!(address != subnet.network() && !is_broadcast, "{address} is nobody's in {subnet}");
            assert!(taken.insert(address), "{address} is given twice");
        }
    };
    network.lb_address().into_iter().for_each(&mut take);
    network.attachments().values().map(|attachment| attachment.ip).for_each(&mut take);
    network.services().values().map(|service| service.vip).for_each(&mut take);
    let needs_sandbox = !network.attachments().is_empty() && !network.services().is_empty();
    assert_eq!(network.lb_address().is_some(), needs_sandbox);
}

/// A refusal names what is wrong, is a document, and repeats what was sent only in part.
pub(crate) fn check_problem(problem: impl Into<Problem>) {
    let problem = problem.into();
    assert!(matches!(problem.status, 400 | 404 | 409 | 422), "{problem:?}");
    assert!(!problem.detail.is_empty() && problem.errors.len() <= MAX_ERRORS, "{problem:?}");
    for error in &problem.errors {
        assert!(!error.field.is_empty() && !error.reason.is_empty(), "{problem:?}");
        assert!(error.field.chars().count().max(error.reason.chars().count()) <= 501, "{problem:?}");
    }
    let text = serde_json::to_string(&problem).unwrap_or_else(|error| panic!("{error}: {problem:?}"));
    assert_eq!(serde_json::from_str::<Problem>(&text).ok(), Some(problem));
}
