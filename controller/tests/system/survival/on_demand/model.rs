//! What a network should be, by the rules that the documentation gives: known without asking ringlb.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The subnet of a network and the part of it that VIPs are chosen from. Small, so that both run out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The first address, which is no host's.
    pub(super) base: u32,
    /// Hosts have these numbers behind it.
    pub(super) hosts: (u32, u32),
    /// VIPs have these.
    pub(super) vips: (u32, u32),
    pub(super) subnet: &'static str,
    pub(super) vip_prefix: &'static str,
}

/// One for each network.
pub(super) const PLANS: [Plan; 4] = [
    plan([10, 100, 0, 0], (1, 3), (4, 6), "10.100.0.0/29", "10.100.0.4/30"),
    plan([10, 100, 0, 8], (1, 5), (6, 6), "10.100.0.8/29", "10.100.0.14/31"),
    plan([10, 100, 1, 0], (1, 11), (12, 14), "10.100.1.0/28", "10.100.1.12/30"),
    plan([10, 100, 2, 0], (1, 3), (4, 6), "10.100.2.0/29", "10.100.2.4/30"),
];

const fn plan(
    base: [u8; 4],
    hosts: (u32, u32),
    vips: (u32, u32),
    subnet: &'static str,
    vip_prefix: &'static str,
) -> Plan {
    Plan { base: u32::from_be_bytes(base), hosts, vips, subnet, vip_prefix }
}

/// A network that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// By the number of the container.
    pub(super) attachments: BTreeMap<u8, Ipv4Addr>,
    pub(super) services: BTreeMap<u8, Service>,
    pub(super) lb_endpoint: Option<Ipv4Addr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) vip: Ipv4Addr,
    pub(super) published: Option<u16>,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Create,
    Delete { remove_lb: bool },
    Attach(u8),
    Detach(u8),
    PutService { service: u8, published: Option<u16> },
    RemoveService(u8),
}

/// What comes of a step: the status of the answer, and the network after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) after: Option<Network>,
}

impl Step {
    pub(super) fn any(chance: &mut fastrand::Rng, network: usize) -> Self {
        let (container, service) = (chance.u8(..6), chance.u8(..4));
        let base = 20_000 + 100 * u16::try_from(network).unwrap();
        match chance.u8(..100) {
            0..10 => Self::Create,
            10..14 => Self::Delete { remove_lb: chance.bool() },
            14..42 => Self::Attach(container),
            42..66 => Self::Detach(container),
            66..85 => {
                let published = (chance.u8(..3) == 0).then(|| base + chance.u16(..3));
                Self::PutService { service, published }
            }
            _ => Self::RemoveService(service),
        }
    }

    /// The method, the path behind the network's, and the body.
    pub(super) fn request(self, plan: &Plan) -> (&'static str, String, String) {
        let (method, path, body) = match self {
            Self::Create => ("PUT", String::new(), json!({"subnet": plan.subnet, "vip_prefix": plan.vip_prefix})),
            Self::Delete { remove_lb } => ("DELETE", format!("?remove_lb={remove_lb}"), Value::Null),
            Self::Attach(container) => {
                ("PUT", format!("/attachments/c{container}"), json!({ "netns": super::path_of(container) }))
            }
            Self::Detach(container) => ("DELETE", format!("/attachments/c{container}"), Value::Null),
            Self::PutService { service, published } => {
                let published: Vec<_> = published.iter().map(|port| json!({"port": port, "target": 80})).collect();
                ("PUT", format!("/services/s{service}"), json!({ "published": published }))
            }
            Self::RemoveService(service) => ("DELETE", format!("/services/s{service}"), Value::Null),
        };
        (method, path, if body.is_null() { String::new() } else { body.to_string() })
    }
}

impl Network {
    /// What must come of a step.
    pub(super) fn after(before: Option<&Self>, step: Step, plan: &Plan) -> Outcome {
        let refused = |status| Outcome { status, after: before.cloned() };
        let Some(network) = before else {
            return match step {
                Step::Create => Outcome { status: 201, after: Some(Self::default()) },
                _ => refused(404),
            };
        };
        let mut after = network.clone();
        let status = match step {
            Step::Create => 200,
            Step::Delete { remove_lb } => {
                let removed = remove_lb || network.attachments.is_empty() && network.services.is_empty();
                return if removed { Outcome { status: 200, after: None } } else { refused(409) };
            }
            Step::Attach(container) if network.attachments.contains_key(&container) => 200,
            Step::Attach(container) => {
                let Some(address) = network.free(plan, plan.hosts).min() else { return refused(409) };
                after.attachments.insert(container, address);
                201
            }
            Step::Detach(container) => match after.attachments.remove(&container) {
                Some(_) => 200,
                None => return refused(404),
            },
            Step::PutService { service, published } => {
                let mut others = network.services.iter().filter(|(other, _)| **other != service);
                if published.is_some() && others.any(|(_, other)| other.published == published) {
                    return refused(409);
                }
                let held = network.services.get(&service).map(|service| service.vip);
                let Some(vip) = held.or_else(|| network.free(plan, plan.vips).min()) else { return refused(409) };
                after.services.insert(service, Service { vip, published });
                if held.is_some() { 200 } else { 201 }
            }
            Step::RemoveService(service) => match after.services.remove(&service) {
                Some(_) => 200,
                None => return refused(404),
            },
        };
        let needed = !after.services.is_empty() && (!after.attachments.is_empty() || after.is_published());
        after.lb_endpoint = match after.lb_endpoint.filter(|_| needed) {
            None if needed => match after.free(plan, plan.hosts).max() {
                Some(address) => Some(address),
                None => return refused(409),
            },
            held => held,
        };
        Outcome { status, after: Some(after) }
    }

    /// Whether anything of it has to be in the kernel.
    pub(super) fn is_on_node(&self) -> bool {
        !self.attachments.is_empty() || self.lb_endpoint.is_some()
    }

    /// As it is exported.
    pub(super) fn document(&self, name: &str, plan: &Plan) -> Value {
        let attachments = self.attachments.iter();
        let attachments = attachments.map(
            |(container, ip)| json!({"name": format!("c{container}"), "netns": super::path_of(*container), "ip": ip}),
        );
        let services = self.services.iter().map(|(number, service)| {
            let published: Vec<_> =
                service.published.iter().map(|port| json!({"port": port, "target": 80, "protocol": "tcp"})).collect();
            json!({"name": format!("s{number}"), "vip": service.vip, "published": published})
        });
        json!({
            "name": name, "subnet": plan.subnet, "vip_prefix": plan.vip_prefix,
            "attachments": attachments.collect::<Vec<_>>(), "services": services.collect::<Vec<_>>(),
        })
    }

    fn is_published(&self) -> bool {
        self.services.values().any(|service| service.published.is_some())
    }

    /// The addresses between these numbers that nobody has.
    fn free(&self, plan: &Plan, (first, last): (u32, u32)) -> impl Iterator<Item = Ipv4Addr> {
        let all = (first..=last).map(|number| Ipv4Addr::from(plan.base + number));
        all.filter(|address| {
            !self.attachments.values().any(|taken| taken == address)
                && !self.services.values().any(|service| service.vip == *address)
                && self.lb_endpoint != Some(*address)
        })
    }
}
