//! Namespaces that stand for containers.

use super::BenchError;
use ringlb_netns::Namespace;

/// Short connections use up ports within seconds otherwise; ringlb's sandboxes have the same.
const PARAMETERS: [(&str, &str); 2] = [("net/ipv4/ip_local_port_range", "1024 65535"), ("net/ipv4/tcp_tw_reuse", "1")];

/// Makes a namespace of that name, out of which and into which many connections can be made.
pub(crate) fn create(name: &str) -> Result<Namespace, BenchError> {
    let namespace = Namespace::create(name)?;
    for (path, value) in PARAMETERS {
        namespace.set_sysctl(path, value)?;
    }
    // In milliseconds, from Linux 6.14 on; before, a port can be used again after a second.
    namespace.set_sysctl_if_present("net/ipv4/tcp_tw_reuse_delay", "1")?;
    Ok(namespace)
}
