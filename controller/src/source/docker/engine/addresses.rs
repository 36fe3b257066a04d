//! Subnets and addresses in the Engine's documents.

use crate::model::Families;
use bollard::models::{EndpointSettings, Ipam, IpamConfig};
use ipnet::IpNet;
use std::net::IpAddr;

/// The subnets of a network.
pub(super) fn subnets(ipam: Option<&Ipam>) -> Families<IpNet> {
    configurations(ipam).filter_map(|configuration| configuration.subnet.as_deref()?.parse::<IpNet>().ok()).collect()
}

/// The addresses of a network that are for something else than containers: its gateways, and what whoever made it keeps
/// for others.
pub(super) fn reserved(ipam: Option<&Ipam>) -> impl Iterator<Item = IpAddr> {
    let texts = configurations(ipam).flat_map(|configuration| {
        let others = configuration.auxiliary_addresses.iter().flat_map(|addresses| addresses.values());
        configuration.gateway.iter().chain(others)
    });
    texts.filter_map(|text| text.parse().ok())
}

/// The addresses that a container has on a network.
pub(super) fn addresses(endpoint: &EndpointSettings) -> Families<IpAddr> {
    parsed([&endpoint.ip_address, &endpoint.global_ipv6_address])
}

/// Those that it was given by whoever made it, and has whenever it runs.
pub(super) fn fixed_addresses(endpoint: &EndpointSettings) -> Families<IpAddr> {
    let fixed = endpoint.ipam_config.as_ref();
    fixed.map(|fixed| parsed([&fixed.ipv4_address, &fixed.ipv6_address])).unwrap_or_default()
}

/// Each with a prefix length behind it, or without.
pub(super) fn parsed<const N: usize>(texts: [&Option<String>; N]) -> Families<IpAddr> {
    let address = |text: &Option<String>| text.as_deref()?.split('/').next()?.parse::<IpAddr>().ok();
    texts.into_iter().filter_map(address).collect()
}

fn configurations(ipam: Option<&Ipam>) -> impl Iterator<Item = &IpamConfig> {
    ipam.into_iter().flat_map(|ipam| ipam.config.iter().flatten())
}
