//! The names of what a daemon makes in the kernel. They are functions of what they are for, so that the next daemon
//! finds what this one has left behind.

use crate::hash::hash;
use std::path::Path;

/// The run directory that is used unless another is given.
pub(crate) const DEFAULT_RUN_DIR: &str = "/run/ringlb";

/// What the names of a daemon's namespaces start with: `ringlb-` for the default run directory, else `ringlb.`, a hash
/// of the directory and `-`. Neither form is the start of the other, so that no daemon takes another's namespaces
/// for its own leftovers. `run_dir` must be canonical.
#[must_use]
pub fn name_prefix(run_dir: &Path) -> String {
    if run_dir == Path::new(DEFAULT_RUN_DIR) {
        return "ringlb-".to_owned();
    }
    format!("ringlb.{:08x}-", short_hash(run_dir.as_os_str().as_encoded_bytes()))
}

/// The interface of network `network` in a container's namespace: `rlb-` and 8 hexadecimal digits.
pub(super) fn interface(network: &str) -> String {
    format!("rlb-{:08x}", short_hash(network.as_bytes()))
}

/// The bridge port of an attachment.
pub(super) fn port_id(attachment: &str) -> String {
    format!("a-{:013x}", hash(attachment.as_bytes()) >> 12)
}

/// Whether a bridge's port is that of an attachment.
pub(super) fn is_port_id(port: &str) -> bool {
    port.starts_with("a-")
}

/// The control socket of a proxy that is to take another one's place. No network's name has an `@`.
pub(super) fn successor_socket(network: &str) -> String {
    format!("{network}@next")
}

/// The control socket of a proxy that has been replaced.
pub(super) fn predecessor_socket(network: &str, pid: Option<u32>) -> String {
    format!("{network}@{}", pid.unwrap_or_default())
}

/// The network of a control socket.
pub(super) fn network_of_socket(socket: &str) -> &str {
    socket.split('@').next().unwrap_or(socket)
}

/// The network that a namespace of this daemon belongs to, if it is one of the two that a network has.
pub(super) fn network_of<'a>(name_prefix: &str, namespace: &'a str) -> Option<&'a str> {
    let name = namespace.strip_prefix(name_prefix)?;
    name.strip_suffix("-lb").or_else(|| name.strip_suffix("-bridge"))
}

fn short_hash(bytes: &[u8]) -> u32 {
    let hash = hash(bytes);
    // Both halves, as the inventors of the function advise for a shorter result.
    (hash >> 32) as u32 ^ hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_the_same_and_fit() {
        assert_eq!(name_prefix(Path::new("/run/ringlb")), "ringlb-");
        assert_eq!(name_prefix(Path::new("/tmp/x")), "ringlb.9eb560b1-");
        assert_eq!(interface("web"), "rlb-16d2ffe8");
        assert_eq!(port_id("c1"), "a-08a27f07b54a6");
        assert!(port_id("c1").len() <= 15 && interface("web").len() <= 15);
    }
}
