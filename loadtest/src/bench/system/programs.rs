//! The programs of the systems: where they are, and of which version.

use super::System;
use crate::bench::BenchError;
use crate::instruments::programs::Found;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

/// A system that cannot be measured, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missing {
    /// Which.
    pub(crate) system: System,
    /// What is missing, and where it is to be had.
    pub(crate) reason: String,
}

/// The programs of the systems that are wanted.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    found: BTreeMap<System, Found>,
    missing: Vec<Missing>,
}

/// How to get what is missing.
const INSTALL: &str = "scripts/install-bench-peers installs it";
/// Where Debian's libnginx-mod-stream puts it.
pub(super) const NGINX_STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

impl Programs {
    /// Looks for the programs of the systems.
    pub(crate) fn look_for(systems: &[System]) -> Self {
        let mut programs = Self::default();
        for system in systems {
            match look_for(*system) {
                Ok(Some(found)) => drop(programs.found.insert(*system, found)),
                Ok(None) => {}
                Err(reason) => programs.missing.push(Missing { system: *system, reason }),
            }
        }
        programs
    }

    /// Those that cannot be measured.
    pub(crate) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Whether the system cannot be measured.
    pub(crate) fn lacks(&self, system: System) -> bool {
        self.missing.iter().any(|missing| missing.system == system)
    }

    /// What the programs say of their versions, by system.
    pub(crate) fn versions(&self) -> BTreeMap<System, String> {
        self.found.iter().map(|(system, found)| (*system, found.version.clone())).collect()
    }

    /// A system's program.
    pub(crate) fn of(&self, system: System) -> Result<&Found, BenchError> {
        let program = if system.is_ringlb() { System::Ringlb } else { system };
        self.found.get(&program).ok_or_else(|| BenchError::Impossible(format!("{system} is not installed")))
    }
}

/// `None`: it needs no program.
fn look_for(system: System) -> Result<Option<Found>, String> {
    let (path, version) = match system {
        System::Direct => return Ok(None),
        System::Ringlb | System::RinglbQuiet | System::RinglbBridge => return Found::ringlb().map(Some),
        System::Haproxy | System::HaproxyTuned => (in_path("haproxy")?, "-v"),
        System::Nginx => (in_path("nginx")?, "-v"),
        System::Envoy => (in_path("envoy")?, "--version"),
        System::Nft => (in_path("nft")?, "--version"),
    };
    if system == System::Nginx && !Path::new(NGINX_STREAM_MODULE).exists() {
        return Err(format!("nginx has no stream module ({NGINX_STREAM_MODULE}); {INSTALL}"));
    }
    Found::at(path, version).map(Some)
}

fn in_path(name: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    directories
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| format!("there is no program {name}; {INSTALL}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_named() {
        let error = in_path("no-such-balancer").unwrap_err();
        assert!(error.contains("no-such-balancer") && error.contains("install-bench-peers"), "{error}");
        assert!(in_path("sh").is_ok());
    }

    #[test]
    fn a_system_without_a_program_is_never_missing() {
        let programs = Programs::look_for(&[System::Direct]);
        assert!(!programs.lacks(System::Direct) && programs.missing().is_empty() && programs.versions().is_empty());
        assert!(programs.of(System::Haproxy).is_err());
    }
}
