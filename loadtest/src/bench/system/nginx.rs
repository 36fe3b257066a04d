//! nginx's stream module, for TCP and UDP, with buffers of 64 KiB.

use super::{Found, programs::NGINX_STREAM_MODULE};
use crate::bench::BenchError;
use crate::bench::topology::{BACKENDS, PORT};
use crate::instruments::process::Process;
use ringlb_netns::Namespace;
use std::fs;
use std::path::Path;
use std::process::Command;

pub(super) fn start(program: &Found, sandbox: &Namespace, directory: &Path) -> Result<Process, BenchError> {
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration(directory)).map_err(BenchError::file("write", &file))?;
    let mut command = Command::new(&program.path);
    command.arg("-c").arg(&file).arg("-p").arg(directory).args(["-e", "stderr"]);
    Process::start(&mut command, Some(sandbox), &directory.join("nginx.log"))
}

fn configuration(directory: &Path) -> String {
    let servers: String = BACKENDS.iter().map(|backend| format!("server {}; ", backend.target())).collect();
    let pid = directory.join("nginx.pid");
    format!(
        "load_module {NGINX_STREAM_MODULE};\n\
         user root;\n\
         daemon off;\n\
         worker_processes 1;\n\
         worker_rlimit_nofile 20000;\n\
         pid {};\n\
         events {{ worker_connections 20000; }}\n\
         stream {{\n\
         \x20   access_log off;\n\
         \x20   proxy_buffer_size 64k;\n\
         \x20   proxy_timeout 1h;\n\
         \x20   proxy_half_close on;\n\
         \x20   upstream backends {{ {servers}}}\n\
         \x20   server {{ listen {PORT} backlog=4096; proxy_pass backends; }}\n\
         \x20   server {{ listen {PORT} udp rcvbuf=4m; proxy_pass backends; }}\n\
         }}\n",
        pid.display()
    )
}
