//! Whether the kernel's own load balancer, IPVS, is at work.

use crate::{Error, Namespace, Result};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::Path;

/// Its virtual services and their destinations, of the namespace of the thread that opens it; in every namespace if the
/// kernel has IPVS, and in none otherwise (net/netfilter/ipvs/ip_vs_ctl.c).
const LIST: &str = "/proc/thread-self/net/ip_vs";

/// The lines before the first virtual service.
const HEADING: usize = 3;

/// Whether the kernel has IPVS. That does not say that anybody uses it.
#[must_use]
pub fn kernel_has_ipvs() -> bool {
    Path::new(LIST).exists()
}

/// Whether IPVS has a virtual service in a namespace.
///
/// # Errors
/// If the namespace cannot be entered or the list not be read.
pub fn ipvs_balances_in(namespace: &Namespace) -> Result<bool> {
    namespace
        .run(|| match File::open(LIST) {
            Ok(list) => has_service(BufReader::new(list)),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(cause),
        })?
        .map_err(|cause| Error::Namespace {
            action: "read the virtual services of IPVS in",
            namespace: namespace.label().to_owned(),
            cause,
        })
}

fn has_service(list: impl BufRead) -> io::Result<bool> {
    Ok(list.lines().nth(HEADING).transpose()?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.1 shows it.
    const EMPTY: &str = "IP Virtual Server version 1.2.1 (size=4096)\n\
        Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

    #[test]
    fn a_virtual_service_is_known_from_the_heading() {
        let has = |list: &str| has_service(list.as_bytes()).unwrap();
        assert!(!has(EMPTY));
        assert!(has(&format!("{EMPTY}FWM  00000101 rr \n")));
        assert!(has(&format!(
            "{EMPTY}FWM  00000101 rr \n  -> 0A000105:0000      Masq    1      0          0         \n"
        )));
    }

    #[test]
    fn a_namespace_of_ones_own_has_none() {
        assert!(!ipvs_balances_in(&Namespace::current().unwrap()).unwrap());
    }
}
