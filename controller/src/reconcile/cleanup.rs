//! What a daemon that ended has left running, and in the kernel, when there is to be no next one.

use super::names::network_of;
use super::orphans::{self, Met};
use super::peer::Peer;
use super::{ControlDirectory, MemoryGroups, names};
use crate::model::Name;
use ringlb_netns::{Namespace, remove_leftover};
use ringlb_proxy::control::version::Versions;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A proxy that was to be ended.
#[derive(Debug)]
pub(crate) struct EndedProxy {
    pub(crate) network: Name,
    /// Its process, as far as it was known.
    pub(crate) pid: Option<u32>,
    /// The namespace that it lived in, as far as it was known.
    pub(crate) sandbox: Option<Namespace>,
    /// Why it still runs, if it does.
    pub(crate) failure: Option<String>,
}

/// Ends all proxies whose control sockets are there: asks each first, and kills it if it does not end.
pub(crate) async fn end_proxies(control: &ControlDirectory) -> Vec<EndedProxy> {
    let met = orphans::meet_all(control, Versions::default()).await.into_iter().map(|met| end(control, met));
    futures_util::future::join_all(met).await
}

async fn end(control: &ControlDirectory, Met { network, socket, met }: Met) -> EndedProxy {
    match met {
        Ok(orphan) => EndedProxy {
            pid: Some(orphan.hello.pid),
            sandbox: orphan.any_namespace().ok(),
            failure: orphan.end_process().await.err(),
            network,
        },
        Err(error) => {
            let peer = control.connect(&socket).ok().and_then(|socket| Peer::of(&socket, &network).ok());
            let pid = peer.and_then(|peer| u32::try_from(peer.pid).ok());
            let sandbox = pid.and_then(|pid| Namespace::open_path(Path::new(&format!("/proc/{pid}/ns/net"))).ok());
            let ended = orphans::end_unmet(control, &network, &socket, &error).await;
            EndedProxy { network, pid, sandbox, failure: ended.err().map(|reason| format!("{error}; {reason}")) }
        }
    }
}

/// Removes the control sockets of all networks but these; gives their paths, and what went wrong.
pub(crate) fn remove_control_sockets(control: &ControlDirectory, kept: &HashSet<Name>) -> (Vec<PathBuf>, Vec<String>) {
    let (mut removed, mut errors) = (Vec::new(), Vec::new());
    let sockets = control.sockets().unwrap_or_else(|error| {
        errors.push(format!("cannot look for control sockets: {error}"));
        Vec::new()
    });
    for socket in sockets.iter().filter(|socket| !kept.contains(names::network_of_socket(socket))) {
        let path = control.path_of(socket);
        match control.remove(socket) {
            Ok(()) => removed.push(path),
            Err(error) => errors.push(format!("cannot remove {}: {error}", path.display())),
        }
    }
    (removed, errors)
}

/// Removes the control groups of the proxies of a daemon on that run directory, but for those of the networks `kept`; gives
/// their paths, and what went wrong.
pub(crate) fn remove_memory_groups(run_dir: &Path, kept: &HashSet<Name>) -> (Vec<PathBuf>, Vec<String>) {
    let (mut removed, mut errors) = (Vec::new(), Vec::new());
    match MemoryGroups::new(&names::name_prefix(run_dir), None) {
        Ok(groups) => {
            for network in groups.networks().iter().filter(|network| !kept.contains(network.as_str())) {
                match groups.remove(network) {
                    Ok(group) => removed.extend(group),
                    Err(error) => errors.push(error.to_string()),
                }
            }
        }
        Err(error) => errors.push(error.to_string()),
    }
    (removed, errors)
}

/// Removes the namespaces that a daemon on that run directory has made, with the legs in them; gives their names, and what
/// went wrong. Those of the networks `kept` stay: a proxy lives there.
pub(crate) async fn remove_namespaces(run_dir: &Path, kept: &HashSet<Name>) -> (Vec<String>, Vec<String>) {
    let prefix = names::name_prefix(run_dir);
    let found = match ringlb_netns::leftovers(&prefix) {
        Ok(found) => found,
        Err(error) => return (Vec::new(), vec![error.to_string()]),
    };
    let (mut removed, mut errors) = (Vec::new(), Vec::new());
    for name in found {
        let Some(network) = network_of(&prefix, &name) else { continue };
        if kept.contains(network) {
            continue;
        }
        let failed = remove_leftover(&name).await;
        if failed.is_empty() {
            removed.push(name);
        }
        errors.extend(failed.iter().map(ToString::to_string));
    }
    (removed, errors)
}
