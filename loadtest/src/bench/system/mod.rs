//! The systems that are compared: how each one is configured, started and found.

mod envoy;
mod haproxy;
mod nft;
mod nginx;
mod programs;
pub(super) mod ringlb;

pub(super) use crate::instruments::programs::Found;
pub(super) use programs::{Missing, Programs};

use super::BenchError;
use super::topology::Topology;
use crate::instruments::process::Process;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use tokio::runtime::Runtime;

/// A system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// No balancer: clients know the backends.
    Direct,
    /// HAProxy with Debian's settings.
    Haproxy,
    /// HAProxy, tuned for bulk data.
    HaproxyTuned,
    /// ringlb, as its users run it.
    Ringlb,
    /// The same, without the changes that workload `w7` makes.
    RinglbQuiet,
    /// The same, on a plain bridge, as the others have it: without shortcuts.
    RinglbBridge,
    /// nginx's stream module.
    Nginx,
    /// Envoy's TCP and UDP proxies.
    Envoy,
    /// Address translation in the kernel.
    Nft,
}

impl System {
    /// All that can be chosen, in the order in which the first round runs them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Direct,
        Self::HaproxyTuned,
        Self::Haproxy,
        Self::Ringlb,
        Self::RinglbBridge,
        Self::Nginx,
        Self::Envoy,
        Self::Nft,
    ];

    /// As it is called on the command line and in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::HaproxyTuned => "haproxy-tuned",
            Self::Ringlb => "ringlb",
            Self::RinglbQuiet => "ringlb-quiet",
            Self::RinglbBridge => "ringlb-bridge",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Nft => "nft",
        }
    }

    /// As people call it.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Direct => "no balancer",
            Self::Haproxy => "HAProxy",
            Self::HaproxyTuned => "HAProxy tuned",
            Self::Ringlb => "ringlb",
            Self::RinglbQuiet => "ringlb without changes",
            Self::RinglbBridge => "ringlb by the bridge",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
            Self::Nft => "nft DNAT",
        }
    }

    /// Whether it runs in processes of its own, whose CPU time and memory can be told.
    pub(super) const fn has_processes(self) -> bool {
        !matches!(self, Self::Direct | Self::Nft)
    }

    /// Whether it is ringlb, whatever is done to it.
    pub(super) const fn is_ringlb(self) -> bool {
        matches!(self, Self::Ringlb | Self::RinglbQuiet | Self::RinglbBridge)
    }

    /// Makes the network and starts the system on it, for the backends of [`topology`](super::topology).
    pub(super) fn start(
        self,
        programs: &Programs,
        runtime: &Runtime,
        directory: &Path,
    ) -> Result<(Topology, Option<Process>), BenchError> {
        if self == Self::Direct {
            return Ok((Topology::connected(runtime)?, None));
        }
        let program = programs.of(self)?;
        if self.is_ringlb() {
            let topology = Topology::containers(runtime)?;
            return Ok((topology, Some(ringlb::start(program, directory, self != Self::RinglbBridge)?)));
        }
        let (topology, sandbox) = Topology::with_sandbox(runtime)?;
        let process = match self {
            Self::Haproxy => Some(haproxy::start(program, &sandbox, directory, haproxy::Kind::AsShipped)?),
            Self::HaproxyTuned => Some(haproxy::start(program, &sandbox, directory, haproxy::Kind::Tuned)?),
            Self::Nginx => Some(nginx::start(program, &sandbox, directory)?),
            Self::Envoy => Some(envoy::start(program, &sandbox, directory)?),
            Self::Nft => {
                nft::start(program, &sandbox, directory)?;
                None
            }
            Self::Direct | Self::Ringlb | Self::RinglbQuiet | Self::RinglbBridge => None,
        };
        Ok((topology, process))
    }
}

impl fmt::Display for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for System {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|system| system.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|system| system.name()).collect();
            format!("there is no system {text:?}; there are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_json() {
        assert_eq!(serde_json::to_value(System::RinglbQuiet).unwrap(), System::RinglbQuiet.name());
        for system in System::ALL {
            assert_eq!(system.name().parse(), Ok(system));
            assert_eq!(serde_json::to_value(system).unwrap(), system.name());
        }
        assert!("HAProxy".parse::<System>().unwrap_err().contains("haproxy-tuned"));
    }
}
