//! How TCP finds its speed: the same way for all.
//!
//! A machine whose default is BBR paces every connection by timers, and bulk data between namespaces then goes at a third of
//! what it can, for all systems alike: timers would be measured, not balancers.

use super::BenchError;
use ringlb_netns::Namespace;
use std::fs;
use std::path::Path;

/// What is taken, in this order, if network namespaces may have it: Linux's default, and what every kernel has.
const PREFERRED: [&str; 2] = ["cubic", "reno"];

/// Which algorithm all connections are to have.
pub(super) fn choose() -> Result<String, BenchError> {
    let allowed = read("net/ipv4/tcp_allowed_congestion_control")?;
    match PREFERRED.into_iter().find(|name| allowed.split_whitespace().any(|other| other == *name)) {
        Some(name) => Ok(name.to_owned()),
        None => Ok(read("net/ipv4/tcp_congestion_control")?.trim().to_owned()),
    }
}

/// Gives it to all connections that begin from now on in any of the benchmark's namespaces, accepted ones too. Whoever made
/// them: `/run/netns` is the benchmark's own.
pub(super) fn set_everywhere(algorithm: &str) -> Result<(), BenchError> {
    for name in Namespace::list()? {
        Namespace::open(&name)?.set_sysctl("net/ipv4/tcp_congestion_control", algorithm)?;
    }
    Ok(())
}

fn read(parameter: &str) -> Result<String, BenchError> {
    let path = Path::new("/proc/sys").join(parameter);
    fs::read_to_string(&path).map_err(BenchError::file("read", &path))
}
