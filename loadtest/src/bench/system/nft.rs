//! Address translation by nftables: the kernel alone, as Docker's published ports and kube-proxy do it.

use super::Found;
use crate::bench::BenchError;
use crate::bench::topology::{BACKENDS, PORT, VIP};
use crate::instruments::process::output;
use ringlb_netns::Namespace;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What a sandbox needs to be a router on one leg; and connections that are over are forgotten at once, or their ports
/// would be used up within seconds.
const PARAMETERS: [(&str, &str); 4] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/eth0/send_redirects", "0"),
    ("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1"),
];

pub(super) fn start(program: &Found, sandbox: &Namespace, directory: &Path) -> Result<(), BenchError> {
    let file = directory.join("rules.nft");
    fs::write(&file, rules()).map_err(BenchError::file("write", &file))?;
    let mut command = Command::new(&program.path);
    command.arg("-f").arg(&file);
    sandbox.enter_on_exec(&mut command)?;
    output(&mut command)?;
    for (path, value) in PARAMETERS {
        sandbox.set_sysctl(path, value)?;
    }
    Ok(())
}

fn rules() -> String {
    let numbered = BACKENDS.iter().enumerate();
    let turns: Vec<_> = numbered.map(|(number, backend)| format!("{number} : {}", backend.address)).collect();
    let addresses: Vec<_> = BACKENDS.iter().map(|backend| backend.address.to_string()).collect();
    format!(
        "table ip bench {{\n\
         \x20   chain in {{\n\
         \x20       type nat hook prerouting priority dstnat;\n\
         \x20       ip daddr {VIP} meta l4proto {{ tcp, udp }} th dport {PORT} dnat to numgen inc mod {} map {{ {} }}\n\
         \x20   }}\n\
         \x20   chain out {{\n\
         \x20       type nat hook postrouting priority srcnat;\n\
         \x20       ip daddr {{ {} }} masquerade\n\
         \x20   }}\n\
         }}\n",
        BACKENDS.len(),
        turns.join(", "),
        addresses.join(", ")
    )
}
