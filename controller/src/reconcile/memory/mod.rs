//! The memory of proxies, and its limit.
//!
//! With a limit each proxy is in a control group of its own (cgroups(7)): `ringlb/` at the root of the hierarchy that has the
//! memory controller, and in it one group a network, with the name of the network's namespaces. What the kernel holds for
//! the proxy, such as what is in its sockets, counts as well. A proxy that needs more is ended by the kernel, and started
//! again like any that ends by itself.

mod hierarchy;
mod limit;

pub use limit::{MemoryLimit, MemoryLimitError};

use crate::model::Name;
use hierarchy::Hierarchy;
use serde::Serialize;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// What the groups of all daemons are in.
const PARENT: &str = "ringlb";

/// Why a proxy's memory cannot be limited.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// There is no hierarchy for it.
    #[error(
        "cannot limit the memory of proxies: no control group hierarchy with the memory controller is mounted (see cgroups(7))"
    )]
    NoController,
    /// The kernel refused.
    #[error("cannot {action} {}: {cause}", path.display())]
    Group {
        /// What was attempted.
        action: &'static str,
        /// The group, or the file in it.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
}

/// The groups of a daemon's proxies.
#[derive(Debug)]
pub struct MemoryGroups {
    hierarchy: Option<Hierarchy>,
    prefix: String,
    limit: Option<MemoryLimit>,
}

/// The memory of a proxy that has a limit.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryStatus {
    /// The limit, in bytes.
    pub limit: u64,
    /// What is in use, in bytes; none if the kernel does not say.
    pub used: Option<u64>,
    /// Why the limit does not hold, if it does not.
    pub error: Option<String>,
}

/// What there was when a proxy was put into its group.
#[derive(Debug, Default)]
pub(super) struct Confinement {
    /// How often the kernel had ended one of its predecessors because it needed more than the limit.
    kills: u64,
    /// Why the proxy has not the limit that it should have.
    error: Option<String>,
}

impl MemoryGroups {
    /// The groups of a daemon whose namespaces have names with this prefix.
    ///
    /// # Errors
    /// If there is a limit, and the kernel has no memory controller or lets nobody use it.
    pub fn new(prefix: &str, limit: Option<MemoryLimit>) -> Result<Self, MemoryError> {
        let hierarchy = Hierarchy::find();
        if limit.is_some() {
            hierarchy.as_ref().ok_or(MemoryError::NoController)?.try_out()?;
        }
        Ok(Self { hierarchy, prefix: prefix.to_owned(), limit })
    }

    /// Sees to it that a proxy that runs has the limit; or none, if an earlier daemon had one. What goes wrong is logged and
    /// remembered: a proxy without a limit is better than none.
    pub(super) fn confine(&self, network: &Name, pid: Option<u32>) -> Confinement {
        let (Some(hierarchy), Some(pid)) = (&self.hierarchy, pid) else { return Confinement::default() };
        let group = hierarchy.group(&self.name(network));
        let confined = match self.limit {
            Some(limit) => hierarchy.confine(&group, pid, limit.bytes()),
            None if group.exists() => hierarchy.lift(&group),
            None => Ok(()),
        };
        if let Err(error) = &confined {
            tracing::error!(%network, pid, %error, "the memory of the proxy has not the limit that it should have");
        }
        Confinement { kills: hierarchy.kills(&group), error: confined.err().map(|error| error.to_string()) }
    }

    /// What the limit has to do with the end of a proxy.
    pub(super) fn reason_of_end(&self, network: &Name, confinement: &Confinement) -> Option<String> {
        let (hierarchy, limit) = (self.hierarchy.as_ref()?, self.limit?);
        let kills = hierarchy.kills(&hierarchy.group(&self.name(network)));
        (kills > confinement.kills).then(|| format!("it needed more memory than its limit of {limit}"))
    }

    /// The memory of a network's proxy, if it has a limit.
    pub(super) fn status(&self, network: &Name, confinement: &Confinement) -> Option<MemoryStatus> {
        let (hierarchy, limit) = (self.hierarchy.as_ref()?, self.limit?);
        let used = hierarchy.usage(&hierarchy.group(&self.name(network)));
        Some(MemoryStatus { limit: limit.bytes(), used, error: confinement.error.clone() })
    }

    /// Removes the group of a network, whose proxy must have ended; says whether there was one.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn remove(&self, network: &str) -> Result<Option<PathBuf>, MemoryError> {
        let Some(hierarchy) = &self.hierarchy else { return Ok(None) };
        let group = hierarchy.group(&self.name(network));
        Ok(hierarchy.remove(&group)?.then_some(group))
    }

    /// The networks that have a group.
    #[must_use]
    pub fn networks(&self) -> Vec<String> {
        let groups = self.hierarchy.iter().flat_map(Hierarchy::groups);
        groups.filter_map(|group| group.strip_prefix(&self.prefix).map(str::to_owned)).collect()
    }

    fn name(&self, network: &str) -> String {
        format!("{}{network}", self.prefix)
    }
}
