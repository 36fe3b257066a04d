//! Which holders there should be.

use super::services::Key;
use super::{Container, HOLDER_LABEL, NETWORK_LABEL};
use crate::model::Families;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
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
    Remove { id: String, why: Useless },
    /// This one is right.
    Keep { key: Key, id: String },
    /// A holder must be made, or this one started that has stopped.
    Make { key: Key, stopped: Option<String> },
}

/// Why a holder is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Useless {
    /// It does not say for which service it is.
    Unnamed,
    /// There is no container of its service.
    Unwanted,
    /// It is not on its network.
    Elsewhere,
    /// There is another one.
    Second,
}

impl fmt::Display for Useless {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unnamed => "it does not say for which service it is",
            Self::Unwanted => "there is no container of its service",
            Self::Elsewhere => "it is not on its network",
            Self::Second => "there is another one",
        })
    }
}

/// What is to be done so that there is a holder for each of `wanted`, where these are. `is_being_made` says for which of them one
/// is being made: an Engine shows a container before it shows its network (20.10).
pub(super) fn steps(wanted: &BTreeSet<Key>, holders: &[Container], is_being_made: impl Fn(&Key) -> bool) -> Vec<Step> {
    let (mut steps, mut found) = (Vec::new(), BTreeMap::new());
    for holder in holders {
        let label = |name| holder.labels.get(name).cloned();
        let key = label(NETWORK_LABEL).zip(label(HOLDER_LABEL)).map(|(network, service)| Key { network, service });
        let useful = match key {
            None => Err(Useless::Unnamed),
            Some(key) if !wanted.contains(&key) => Err(Useless::Unwanted),
            Some(key) if !holder.networks.contains_key(&key.network) => {
                if is_being_made(&key) {
                    continue;
                }
                Err(Useless::Elsewhere)
            }
            Some(key) if found.contains_key(&key) => Err(Useless::Second),
            Some(key) => Ok(key),
        };
        match useful {
            Ok(key) => {
                found.insert(key, holder);
            }
            Err(why) => steps.push(Step::Remove { id: holder.id.clone(), why }),
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
