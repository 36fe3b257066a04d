//! What can go wrong: what was attempted, on what, and what to do.

use crate::steering::SteeringKind;
use crate::{Addresses, PortProtocol, Subnets};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// The result of what this crate does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done. The causes are part of the text, so that printing the error once says all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that the kernel or the file system does not take.
    #[error("{name:?} is not usable as the name of a {kind}: {rule}")]
    InvalidName {
        /// What was to be named.
        kind: &'static str,
        /// The name.
        name: String,
        /// What names must look like.
        rule: &'static str,
    },
    /// There is no such namespace.
    #[error("there is no network namespace {namespace}; create it first, or give the path of one that exists")]
    NamespaceMissing {
        /// Its name or path.
        namespace: String,
    },
    /// The file is something else.
    #[error("{} is not a network namespace; give the path of one, such as /run/netns/NAME or /proc/PID/ns/net", path.display())]
    NotANetworkNamespace {
        /// The file.
        path: PathBuf,
    },
    /// There is another namespace at the path than the one that was meant.
    #[error("the network namespace at {} is not the one that was seen there before; look again", path.display())]
    AnotherNamespace {
        /// The path.
        path: PathBuf,
    },
    /// A system call on a namespace failed.
    #[error("cannot {action} network namespace {namespace}: {cause}{}", remedy(cause))]
    Namespace {
        /// What was attempted.
        action: &'static str,
        /// The namespace's name or path.
        namespace: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The directory of named namespaces cannot be used.
    #[error("cannot {action} {}: {cause}{}", path.display(), remedy(cause))]
    NamespaceDirectory {
        /// What was attempted.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// A thread could not be started.
    #[error(
        "cannot start a thread to enter network namespace {namespace}: {cause}; raise the limit on threads (ulimit -u, pids.max)"
    )]
    Thread {
        /// The namespace that the thread was to enter.
        namespace: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// A kernel parameter was not set.
    #[error("cannot set {path} to {value:?} in network namespace {namespace}: {cause}{}", remedy(cause))]
    Sysctl {
        /// The parameter's path under `/proc/sys`.
        path: String,
        /// The value.
        value: String,
        /// The namespace.
        namespace: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// A kernel parameter was not read.
    #[error("cannot read {path} in network namespace {namespace}: {cause}{}", remedy(cause))]
    SysctlUnreadable {
        /// The parameter's path under `/proc/sys`.
        path: String,
        /// The namespace.
        namespace: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// Netlink needs a tokio runtime.
    #[error(
        "cannot open a netlink socket in network namespace {namespace}: not called from a tokio runtime with I/O enabled; call it from one"
    )]
    NoRuntime {
        /// The namespace.
        namespace: String,
    },
    /// The kernel refused a netlink request.
    #[error("cannot {action} in network namespace {namespace}: {cause}{detail}{}", remedy(cause))]
    Netlink {
        /// What was attempted, and on what.
        action: String,
        /// The namespace.
        namespace: String,
        /// The kernel's answer.
        cause: io::Error,
        /// What the kernel says beyond the error number, in parentheses; may be empty.
        detail: String,
    },
    /// There is no such interface.
    #[error("there is no interface {link} in network namespace {namespace}; create it first")]
    LinkMissing {
        /// The interface.
        link: String,
        /// The namespace.
        namespace: String,
    },
    /// An interface of that name exists and is something else.
    #[error(
        "interface {link} in network namespace {namespace} exists and is not {expected}; remove it or choose another name"
    )]
    LinkDiffers {
        /// The interface.
        link: String,
        /// The namespace.
        namespace: String,
        /// What it should have been.
        expected: String,
    },
    /// `bpf(2)` failed.
    #[error("cannot {action} by bpf(2): {cause}{log}{}", bpf_remedy(cause))]
    Bpf {
        /// What was attempted.
        action: &'static str,
        /// The kernel's answer.
        cause: io::Error,
        /// The verifier's log, on lines of its own; may be empty.
        log: String,
    },
    /// The TPROXY rules were not made.
    #[error(
        "cannot install the TPROXY rules in network namespace {namespace}: {cause}{}",
        netfilter_remedy(
            cause,
            "tproxy and fib expressions (modules nf_tables, nft_tproxy, nft_fib_ipv4 and nft_fib_ipv6)"
        )
    )]
    Tproxy {
        /// The namespace.
        namespace: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The rule that answers for IPv6 VIPs was not made.
    #[error(
        "cannot install the rule that answers neighbour solicitations in network namespace {namespace}: {cause}{}",
        netfilter_remedy(
            cause,
            "fib and fwd expressions at ingress (modules nf_tables, nft_fib_netdev and nft_fwd_netdev)"
        )
    )]
    NeighbourResponder {
        /// The namespace.
        namespace: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The table that keeps new connections from IPVS was not made or changed.
    #[error(
        "cannot {action} in network namespace {namespace}: {cause}{}",
        netfilter_remedy(cause, "sets whose elements time out (module nf_tables)")
    )]
    Takeover {
        /// What was attempted.
        action: &'static str,
        /// The namespace.
        namespace: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// Rules were not removed.
    #[error("cannot remove nftables tables from network namespace {namespace}: {cause}{}", remedy(cause))]
    Tables {
        /// The namespace.
        namespace: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// A steered socket was not made.
    #[error("cannot {action} {socket} in network namespace {namespace}: {cause}{}", remedy(cause))]
    SteeredSocket {
        /// What was attempted.
        action: &'static str,
        /// On what.
        socket: &'static str,
        /// The namespace.
        namespace: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The sockets of a port were not made.
    #[error("cannot {action} {protocol} port {port}: {cause}{}", port_remedy(cause))]
    Port {
        /// What was attempted.
        action: &'static str,
        /// The port's protocol.
        protocol: PortProtocol,
        /// The port.
        port: u16,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// Descriptors that do not fit the kind of steering.
    #[error("steering by {kind} lives in {expected} descriptors, {found} were given; pass on those that it named")]
    SteeringDescriptors {
        /// The kind.
        kind: SteeringKind,
        /// How many it needs.
        expected: usize,
        /// How many there were.
        found: usize,
    },
    /// A network of no family.
    #[error("network {network} has no subnet; give it an IPv4 one, an IPv6 one, or one of each")]
    NoSubnet {
        /// The network.
        network: String,
    },
    /// An interface of no family.
    #[error("no address was given for an interface in subnet {subnets}; give one of at least one family")]
    NoAddress {
        /// The network's subnets.
        subnets: Subnets,
    },
    /// An LB endpoint that lacks a family.
    #[error("the LB endpoint has {addresses}; on a network with subnet {subnets} it needs one address in each subnet")]
    AddressMissing {
        /// The addresses that were given.
        addresses: Addresses,
        /// The network's subnets.
        subnets: Subnets,
    },
    /// An MTU that no interface takes.
    #[error("an MTU of {mtu} bytes is not usable for network {network}; use {minimum} to 65535")]
    InvalidMtu {
        /// The network.
        network: String,
        /// The MTU in bytes.
        mtu: u32,
        /// The smallest that the network's families allow, in bytes.
        minimum: u32,
    },
    /// A prefix length that the address's family does not have.
    #[error("/{prefix_len} is not a prefix length for {address}; use 0 to {}", if address.is_ipv4() { 32 } else { 128 })]
    InvalidPrefixLength {
        /// The address.
        address: IpAddr,
        /// The length.
        prefix_len: u8,
    },
    /// The address is not one of the subnet's.
    #[error("{address} is not in subnet {subnets}; choose one that is")]
    AddressOutsideSubnet {
        /// The address.
        address: IpAddr,
        /// The subnet, or a dual stack's two.
        subnets: Subnets,
    },
    /// The process was not moved into namespaces of its own.
    #[error("cannot {step} to isolate this process: {cause}{}", isolation_remedy(cause))]
    Isolation {
        /// The step that failed.
        step: &'static str,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// A user namespace cannot be entered by a process with several threads (unshare(2)).
    #[error("cannot enter a user namespace: this process has {threads} threads; isolate it before it starts any")]
    IsolationThreads {
        /// How many there are.
        threads: usize,
    },
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; this needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN), or a user namespace of your own"
        }
        Some(libc::EROFS) => "; mount it writable, or run where it is",
        Some(libc::EOPNOTSUPP | libc::ENOSYS) => "; the kernel was built without it, or the module is missing",
        Some(libc::EMFILE | libc::ENFILE) => "; raise the limit on open files (ulimit -n)",
        _ => "",
    }
}

fn port_remedy(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::EADDRINUSE) => "; another program has it: end that one, or choose another port",
        Some(libc::EACCES) => "; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE",
        _ => remedy(cause),
    }
}

fn bpf_remedy(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::EPERM) => {
            "; this needs CAP_BPF and CAP_NET_ADMIN outside any user namespace; steer by TPROXY instead"
        }
        Some(libc::ENOSYS) => "; the kernel was built without bpf(2); steer by TPROXY instead",
        Some(libc::EINVAL) => "; sk_lookup programs need Linux 5.9 or later, those at interfaces 6.6",
        _ => "",
    }
}

fn netfilter_remedy(cause: &io::Error, needed: &str) -> String {
    match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; this needs CAP_NET_ADMIN in the namespace".to_owned(),
        Some(libc::EOPNOTSUPP | libc::ENOENT | libc::EPROTONOSUPPORT | libc::EINVAL) => {
            format!("; the kernel needs nf_tables with the {needed}")
        }
        _ => String::new(),
    }
}

fn isolation_remedy(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; run as root, or allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
             kernel.apparmor_restrict_unprivileged_userns=0)"
        }
        Some(libc::ENOSPC | libc::EUSERS) => {
            "; raise the limits on namespaces (sysctl user.max_user_namespaces, user.max_net_namespaces, \
             user.max_mnt_namespaces)"
        }
        _ => "",
    }
}
