//! `ringlb-load serve`.

use super::{Failure, signals, tell};
use ringlb_load::protocol::ServerName;
use ringlb_load::{Server, ServerHandle, ServerOptions, raise_descriptor_limit, units};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Answer TCP connections and UDP datagrams until SIGINT or SIGTERM
///
/// What a TCP connection is for is decided by its first line. `ID` is answered by the server's name; then the server
/// closes. `ECHO` is answered by the name, and then everything comes back. `DISCARD [POSITION]` takes a stream of test
/// data and judges it at its end. `SOURCE BYTES [POSITION]` gives one. Anything else comes back as it is, from the
/// first byte on.
///
/// A datagram comes back as it is, from the address that it was sent to. If it begins with the line `ID`, the answer is
/// the name; if with the line `ECHO`, the name is written over its first bytes. No answer is longer than its datagram.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to listen, for TCP and UDP; may be repeated. `[::]` is IPv4 as well. Port 0 lets the system choose; the line printed tells
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7000")]
    listen: Vec<SocketAddr>,
    /// The name to answer with: up to 63 printable ASCII characters without spaces [default: the host's name]
    #[arg(long, value_name = "NAME")]
    id: Option<ServerName>,
    /// Answer that much later, to imitate a slow backend (such as 250us or 20ms)
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = units::parse_duration)]
    delay: Duration,
    /// Start to listen that much later, to imitate a server that is slow to start
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = units::parse_duration)]
    listen_after: Duration,
    /// Go on for that much longer when told to end, to imitate a server that first finishes what it has
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = units::parse_duration)]
    stop_after: Duration,
    /// Say the name on every connection before anything is received, as SMTP servers do
    #[arg(long)]
    greeting: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let (end, ended) = mpsc::channel();
    signals::on_end(move || {
        // Without a receiver the server has ended already.
        let _ = end.send(());
    })?;
    raise_descriptor_limit()?;
    if !arguments.listen_after.is_zero() && ended.recv_timeout(arguments.listen_after).is_ok() {
        return Ok(ExitCode::SUCCESS);
    }
    let server = Server::start(ServerOptions {
        name: arguments.id.unwrap_or_else(ServerName::of_host),
        listen: arguments.listen,
        delay: arguments.delay,
        greeting: arguments.greeting,
    })?;
    announce(&server).map_err(Failure::Output)?;
    let mut told = 0;
    while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        let failures = server.counters().accept_failures;
        if failures > told {
            tell(format_args!(
                "cannot accept connections: {} failures in the last second, with {} connections open; the limit of \
                 open descriptors (ulimit -n) is the usual reason",
                failures - told,
                server.counters().active
            ));
            told = failures;
        }
    }
    // A second signal ends it at once.
    std::thread::sleep(arguments.stop_after);
    server.stop();
    Ok(ExitCode::SUCCESS)
}

fn announce(server: &ServerHandle) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for address in server.addresses() {
        writeln!(out, "listening on {address}")?;
    }
    out.flush()
}
