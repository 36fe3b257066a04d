//! Kernel parameters of sandboxes.

use crate::steering::BACKLOG;
use crate::{Addresses, Namespace, Result};
use std::sync::OnceLock;

/// A kernel parameter and its value.
type Parameter = (&'static str, &'static str);

/// What a proxy's sockets need.
const SOCKET: [Parameter; 3] = [
    // 15,000 short connections a second to two backends use up the default 28,000 ports within seconds, with the
    // ports of closed connections waiting. The steered sockets' ports are below this range.
    ("net/ipv4/ip_local_port_range", "1024 65535"),
    // A proxy without capabilities replies to datagrams from sockets that are bound to a VIP and any of its ports.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/tcp_tw_reuse", "1"),
];

/// The same that only some kernels have. In milliseconds, Linux 6.14 and later; before, a port can be used again after a
/// second.
const SOCKET_IF_PRESENT: [Parameter; 1] = [("net/ipv4/tcp_tw_reuse_delay", "1")];

/// In a network that somebody else makes, a backend can be known before its neighbour entry is there. Asked for again after
/// the usual second, a connection would have waited for that long; in milliseconds, three times (`mcast_solicit`).
const NEIGHBOUR: [Parameter; 1] = [("net/ipv4/neigh/eth0/retrans_time_ms", "100")];

/// The same of an interface that every namespace has, as long as nobody has changed it: what `eth0` had at first.
const NEIGHBOUR_AT_FIRST: &str = "net/ipv4/neigh/lo/retrans_time_ms";

/// Sets those of a sandbox of ringlb's own.
pub(crate) fn set(namespace: &Namespace, addresses: Addresses) -> Result<()> {
    let ipv6 = [
        // The loopback interface needs it for the VIPs' routes.
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/all/forwarding", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
    ];
    if addresses.v6.is_some() {
        namespace.set_sysctls(&ipv6, &[])?;
    }
    let backlog = BACKLOG.to_string();
    // A new namespace starts with the host's settings of these. A router's, a strict reverse path filter or a silent ARP
    // would each make VIPs unreachable or packets for others leave.
    let network = [
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv4/conf/all/arp_ignore", "0"),
        ("net/ipv4/conf/default/arp_ignore", "0"),
    ];
    let required = [&SOCKET[..], &network].concat();
    let if_present = [&SOCKET_IF_PRESENT[..], &of_backlog(&backlog)].concat();
    namespace.set_sysctls(&required, &if_present)
}

/// Sets those of somebody else's namespace: what the sockets of a proxy need.
pub(crate) fn set_in_foreign(namespace: &Namespace) -> Result<()> {
    let backlog = BACKLOG.to_string();
    let if_present = [&SOCKET_IF_PRESENT[..], &NEIGHBOUR, &of_backlog(&backlog)].concat();
    namespace.set_sysctls(&SOCKET, &if_present)
}

/// Gives those that [`set_in_foreign`] has set the values that a new namespace has. One that has another value by now is
/// somebody else's. Gives the names of those that were changed.
pub(crate) fn reset_in_foreign(namespace: &Namespace) -> Result<Vec<String>> {
    let backlog = BACKLOG.to_string();
    let ours = [&SOCKET[..], &SOCKET_IF_PRESENT, &NEIGHBOUR, &of_backlog(&backlog)].concat();
    let paths: Vec<_> = ours.iter().map(|(path, _)| *path).collect();
    let present = namespace.sysctls(&paths)?;
    if !ours.iter().zip(&present).any(|((_, value), present)| is_value(present.as_deref(), value)) {
        return Ok(Vec::new());
    }
    let new = values_in_a_new_namespace(&paths)?;
    let mut changes = Vec::new();
    for (((path, value), present), new) in ours.iter().zip(&present).zip(new) {
        let Some(new) = new.as_deref() else { continue };
        if is_value(present.as_deref(), value) && !is_value(present.as_deref(), new) {
            changes.push((*path, new));
        }
    }
    namespace.set_sysctls(&[], &changes)?;
    Ok(changes.iter().map(|(path, _)| (*path).to_owned()).collect())
}

/// Values are separated by blanks that the kernel writes as tabs.
fn is_value(present: Option<&str>, value: &str) -> bool {
    present.is_some_and(|present| present.split_whitespace().eq(value.split_whitespace()))
}

/// They are the same in all of them, so that one is asked, and once.
fn values_in_a_new_namespace(paths: &[&str]) -> Result<&'static [Option<String>]> {
    static VALUES: OnceLock<Vec<Option<String>>> = OnceLock::new();
    if let Some(values) = VALUES.get() {
        return Ok(values);
    }
    let paths: Vec<_> =
        paths.iter().map(|path| if *path == NEIGHBOUR[0].0 { NEIGHBOUR_AT_FIRST } else { *path }).collect();
    let values = Namespace::unnamed()?.sysctls(&paths)?;
    Ok(VALUES.get_or_init(|| values))
}

/// Not there in a namespace that belongs to a user namespace; the kernel's default is 4096 then.
fn of_backlog(backlog: &str) -> [(&'static str, &str); 2] {
    [("net/core/somaxconn", backlog), ("net/ipv4/tcp_max_syn_backlog", backlog)]
}
