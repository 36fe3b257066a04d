//! Which holders there should be.

use super::services::Key;
use super::{Container, HOLDER_LABEL, NETWORK_LABEL};
use crate::model::Families;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

/// What a holder that runs gives a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Its addresses: the VIPs.
    pub(super) addresses: Families<IpAddr>,
    /// Its namespace: the sandbox.
    pub(super) path: PathBuf,
    /// Device and inode of that.
    pub(super) identity: (u64, u64),
}

/// Something to be done. Holders that go come first: they give back addresses and names that others may need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// This container is to go.
    Remove { id: String },
    /// This one is right.
    Keep { key: Key, id: String },
    /// A holder must be made, or this one started that has stopped.
    Make { key: Key, stopped: Option<String> },
}

pub(super) fn steps(wanted: &BTreeSet<Key>, holders: &[Container]) -> Vec<Step> {
    let (mut steps, mut found) = (Vec::new(), BTreeMap::new());
    for holder in holders {
        let label = |name| holder.labels.get(name).cloned();
        let key = label(NETWORK_LABEL).zip(label(HOLDER_LABEL)).map(|(network, service)| Key { network, service });
        let key = key.filter(|key| {
            let connected = holder.networks.contains_key(&key.network);
            connected && wanted.contains(key) && !found.contains_key(key)
        });
        match key {
            Some(key) => {
                found.insert(key, holder);
            }
            None => steps.push(Step::Remove { id: holder.id.clone() }),
        }
    }
    for key in wanted {
        let key = key.clone();
        steps.push(match found.get(&key) {
            Some(holder) if holder.running => Step::Keep { key, id: holder.id.clone() },
            stopped => Step::Make { key, stopped: stopped.map(|holder| holder.id.clone()) },
        });
    }
    steps
}
