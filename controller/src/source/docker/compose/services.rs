//! Which services the containers' labels ask for.

use super::super::labels::{self, Labels};
use super::{Bridge, Container, HOLDER_LABEL, NETWORK_LABEL, PUBLISH_LABEL, SERVICE_LABEL};
use crate::model::Name;
use crate::source::status::InvalidLabel;
use ringlb_proxy::control::message::{Port, Protocol, PublishedPort};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What Docker Compose gives a container that it has made for one command, with the labels of the service otherwise.
const ONE_OFF_LABEL: &str = "com.docker.compose.oneoff";

/// A service on a network: what has one VIP.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The network's name.
    pub(super) network: String,
    /// The service's.
    pub(super) service: String,
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.network, self.service)
    }
}

/// All services.
#[derive(Debug, Default)]
pub(super) struct Services {
    pub(super) bridges: BTreeMap<String, Bridge>,
    pub(super) all: BTreeMap<Key, Service>,
    invalid: Vec<InvalidLabel>,
}

/// A service with its containers, the newest one first: its labels are the service's.
#[derive(Debug)]
pub(super) struct Service {
    /// The name of the network that is observed.
    pub(super) network_name: Name,
    pub(super) name: Name,
    pub(super) containers: Vec<(Container, Labels)>,
    pub(super) published: Vec<PublishedPort>,
}

impl Services {
    pub(super) fn of(bridges: Vec<Bridge>, mut containers: Vec<Container>) -> Self {
        let bridges = bridges.into_iter().map(|bridge| (bridge.name.clone(), bridge)).collect();
        let mut services = Self { bridges, ..Self::default() };
        containers.sort_by(|one, other| (other.created, &other.id).cmp(&(one.created, &one.id)));
        for container in containers {
            services.add(&container);
        }
        services.publish_once();
        services.invalid.sort();
        services.invalid.dedup();
        services
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.all.keys()
    }

    /// The labels that are not valid, by container.
    pub(super) fn invalid_labels(&self) -> Vec<InvalidLabel> {
        self.invalid.clone()
    }

    fn is_invalid(&mut self, container: &Container, label: &str, reason: String) {
        self.invalid.push(InvalidLabel { service: container.name.clone(), label: label.to_owned(), reason });
    }

    fn add(&mut self, container: &Container) {
        let Some(service) = container.labels.get(SERVICE_LABEL) else { return };
        if container.labels.get(ONE_OFF_LABEL).is_some_and(|one_off| one_off.eq_ignore_ascii_case("true")) {
            return;
        }
        let own = [SERVICE_LABEL, PUBLISH_LABEL, HOLDER_LABEL, NETWORK_LABEL];
        let mut settings = container.labels.clone();
        settings.retain(|label, _| !own.contains(&label.as_str()));
        let labels = labels::read(&settings);
        for (label, reason) in &labels.invalid {
            self.is_invalid(container, label, reason.clone());
        }
        if !labels.enabled {
            return;
        }
        let networks: Vec<_> =
            container.networks.keys().filter(|network| self.bridges.contains_key(*network)).cloned().collect();
        if networks.is_empty() {
            let reason = "the container is on no bridge network made by a user".to_owned();
            self.is_invalid(container, SERVICE_LABEL, reason);
        }
        for network in networks {
            let key = Key { network, service: service.clone() };
            if let Err((label, reason)) = self.join(key, container, &labels) {
                self.is_invalid(container, label, reason);
            }
        }
    }

    /// A container that is on several networks publishes its service by the first of them.
    fn publish_once(&mut self) {
        let mut published = BTreeSet::new();
        for (key, service) in &mut self.all {
            let Some((newest, _)) = service.containers.first() else { continue };
            if !published.insert((key.service.clone(), newest.id.clone())) {
                service.published.clear();
            }
        }
    }

    fn join(&mut self, key: Key, container: &Container, labels: &Labels) -> Result<(), (&'static str, String)> {
        let member = (container.clone(), labels.clone());
        if let Some(service) = self.all.get_mut(&key) {
            let differs = service.containers.first().and_then(|(newest, _)| publishes_otherwise(container, newest));
            service.containers.push(member);
            return differs.map_or(Ok(()), |reason| Err((PUBLISH_LABEL, reason)));
        }
        let named = |text: &str| Name::new(&text.to_ascii_lowercase()).map_err(|reason| (SERVICE_LABEL, reason));
        let (name, network_name) = (named(&key.service)?, named(&key.to_string())?);
        let (published, invalid) = match container.labels.get(PUBLISH_LABEL).map(|text| published(text)) {
            None => (Vec::new(), None),
            Some(Ok(published)) => (published, None),
            Some(Err(reason)) => (Vec::new(), Some((PUBLISH_LABEL, reason))),
        };
        self.all.insert(key, Service { network_name, name, containers: vec![member], published });
        invalid.map_or(Ok(()), Err)
    }
}

/// What is to be said of a container that says otherwise than the newest one of its service how it is published.
fn publishes_otherwise(container: &Container, newest: &Container) -> Option<String> {
    let label = |container: &Container| container.labels.get(PUBLISH_LABEL).cloned();
    let said = label(newest);
    (label(container)? != said.clone().unwrap_or_default()).then(|| {
        let said = said.map_or_else(|| "nothing of it".to_owned(), |said| format!("{said:?}"));
        format!("is not used: container {}, the newest of the service, says {said}", newest.name)
    })
}

/// `8080:80`, `53:5353/udp`, or several with commas between them.
pub(super) fn published(text: &str) -> Result<Vec<PublishedPort>, String> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for part in text.split(',') {
        let port = published_port(part.trim()).ok_or_else(|| {
            format!(
                "{:?} is not HOST:TARGET, HOST:TARGET/tcp or HOST:TARGET/udp, with ports from 1 to 65535",
                part.trim()
            )
        })?;
        if !seen.insert(port.published) {
            return Err(format!("{:?} publishes a port that is listed before", part.trim()));
        }
        all.push(port);
    }
    Ok(all)
}

fn published_port(text: &str) -> Option<PublishedPort> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let (published, target) = ports.split_once(':')?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
    Some(PublishedPort { published: Port { protocol, number: number(published)? }, target: number(target)? })
}
