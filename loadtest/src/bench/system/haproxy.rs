//! HAProxy in TCP mode.

use super::Found;
use crate::bench::BenchError;
use crate::bench::topology::{BACKENDS, PORT};
use crate::instruments::process::Process;
use ringlb_netns::Namespace;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// How it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its own defaults, with one thread.
    AsShipped,
    /// Splicing in both directions, with larger buffers and pipes: what makes it fast at bulk data.
    Tuned,
}

pub(super) fn start(program: &Found, sandbox: &Namespace, directory: &Path, kind: Kind) -> Result<Process, BenchError> {
    let file = directory.join("haproxy.cfg");
    fs::write(&file, configuration(kind)).map_err(BenchError::file("write", &file))?;
    // In the foreground, without a master.
    let mut command = Command::new(&program.path);
    command.arg("-db").arg("-f").arg(&file);
    Process::start(&mut command, Some(sandbox), &directory.join("haproxy.log"))
}

/// The timeouts that Debian's file gives are for HTTP: idle connections are not to be cut here.
fn configuration(kind: Kind) -> String {
    let (global, defaults) = match kind {
        Kind::AsShipped => ("", ""),
        Kind::Tuned => (
            // With pipes it would allow itself less than 8,000 connections, of 20,000 descriptors.
            "    maxconn 8500\n    maxpipes 800\n    tune.bufsize 65536\n    tune.pipesize 1048576\n",
            "    option splice-request\n    option splice-response\n",
        ),
    };
    let mut text = format!(
        "global\n    nbthread 1\n{global}\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n{defaults}\
         listen bench\n    bind :{PORT}\n    balance roundrobin\n"
    );
    for backend in &BACKENDS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    server {} {}", backend.name, backend.target());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tuned_one_splices() {
        assert!(!configuration(Kind::AsShipped).contains("splice"));
        let tuned = configuration(Kind::Tuned);
        for line in ["option splice-request", "option splice-response", "tune.bufsize 65536", "tune.pipesize 1048576"] {
            assert!(tuned.contains(line), "{tuned}");
        }
        assert!(tuned.contains("server backend-2 10.78.0.12:7000"), "{tuned}");
    }
}
