//! PostgreSQL, with pgbench and psql as clients.

use super::{Server, Stage, VIP, number_before, text};
use crate::node::{Container, Process, finish, wait_until};
use nix::sys::signal::Signal;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// PostgreSQL does not run as root. Its package makes this user.
const USER: &str = "postgres";

/// A program of the newest version whose server is there. Debian keeps each version apart:
/// `/usr/lib/postgresql/VERSION/bin`.
fn program(name: &str) -> String {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let directories = versions.map(|version| version.path().join("bin"));
    let newest = directories.filter(|directory| directory.join("postgres").exists()).max();
    let directory = newest.unwrap_or_else(|| panic!("PostgreSQL is missing: `make test` installs it"));
    directory.join(name).to_str().unwrap().to_owned()
}

/// The arguments with which `setpriv` runs a program as PostgreSQL's user. A change of user takes back that the child
/// ends with its parent, so it is asked for again.
fn as_user<'a>(program: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "TERM", program], arguments].concat()
}

/// A server with a cluster of its own in that directory, where anyone may log in.
fn start(backend: &Container, directory: &Path) -> Server {
    let cluster = directory.join(backend.address.to_string());
    let data = cluster.to_str().unwrap();
    let arguments = ["-D", data, "-U", USER, "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8"];
    finish(Command::new("setpriv").args(as_user(&program("initdb"), &arguments)).current_dir("/"));
    fs::write(cluster.join("pg_hba.conf"), "host all all all trust\n").unwrap();
    // Its socket is TCP's alone, and what it writes need not survive a power failure.
    let settings = ["-c", "listen_addresses=*", "-c", "unix_socket_directories=", "-c", "fsync=off"];
    let quiet = ["-c", "log_min_messages=fatal", "-c", "log_checkpoints=off"];
    let postgres = program("postgres");
    let arguments = [&["-D", data], &settings[..], &quiet].concat();
    let mut command = backend.command("setpriv", &as_user(&postgres, &arguments));
    // SIGINT: end all sessions, then end.
    let server = Server { process: Process::spawn(command.current_dir("/")), end: Signal::SIGINT };
    // It listens before it takes sessions.
    wait_until("PostgreSQL takes sessions", || {
        let mut ready = backend.command(&program("pg_isready"), &["-q", "-h", "127.0.0.1"]);
        ready.status().unwrap().success()
    });
    server
}

/// What a query gives, asked from inside the container. No settings of the user's own (-X), rows only (-A, -t).
fn query(container: &Container, host: &str, sql: &str) -> String {
    let arguments = ["-h", host, "-U", USER, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql];
    text(container.output(&program("psql"), &arguments)).trim().to_owned()
}

fn pgbench(stage: &Stage, arguments: &[&str]) -> String {
    // It asks for no vacuum (-n), which would empty the table of what was done.
    let arguments = [&["-h", VIP, "-U", USER, "-n"], arguments, &["postgres"]].concat();
    text(finish(stage.client.command(&program("pgbench"), &arguments).env("LC_ALL", "C")))
}

/// The tables are made and all transactions done through the VIP, over connections that last and over one for each
/// transaction. Each transaction leaves one row with the server that did it.
#[test]
fn pgbench_and_copies_through_two_servers() {
    let stage = Stage::new();
    let directory = tempfile::tempdir().unwrap();
    let owner = nix::unistd::User::from_name(USER).unwrap().unwrap();
    nix::unistd::chown(directory.path(), Some(owner.uid), Some(owner.gid)).unwrap();
    let _servers = stage.backends.each_ref().map(|backend| start(backend, directory.path()));

    // In turn, so that each server is initialised once.
    for _ in &stage.backends {
        pgbench(&stage, &["--initialize", "--quiet", "--scale", "2"]);
    }
    let mut transactions = 0;
    for (arguments, expected) in [
        (&["-c", "8", "-j", "2", "-t", "250"][..], 2_000),
        (&["-c", "8", "-j", "2", "-t", "25", "--connect"], 200),
        (&["-c", "8", "-j", "2", "-t", "250", "--protocol", "prepared", "--select-only"], 2_000),
    ] {
        let said = pgbench(&stage, arguments);
        assert_eq!(number_before(" (0.000%)", &said), 0, "failed transactions: {said}");
        assert!(said.contains(&format!("actually processed: {expected}/{expected}\n")), "{said}");
        if !arguments.contains(&"--select-only") {
            transactions += expected;
        }
    }
    let rows = stage
        .backends
        .each_ref()
        .map(|backend| query(backend, "127.0.0.1", "SELECT count(*) FROM pgbench_history").parse::<u64>().unwrap());
    assert!(rows[0] > 0 && rows[1] > 0 && rows[0] + rows[1] == transactions, "{rows:?} of {transactions}");

    copy_both_ways(&stage, directory.path());
    stage.assert_nothing_failed();
}

/// A large table is copied in and out again over one session, and the server's checksum of what came is right.
fn copy_both_ways(stage: &Stage, directory: &Path) {
    let (there, back) = (directory.join("there"), directory.join("back"));
    let mut content = String::new();
    for row in 0..400_000_u64 {
        writeln!(content, "{row}\t{:064x}", row.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
    }
    fs::write(&there, &content).unwrap();
    let script = format!(
        "CREATE TABLE copied (id bigint, content text);\n\\copy copied FROM '{}'\n\
         SELECT md5(string_agg(id || E'\\t' || content || E'\\n', '' ORDER BY id)) FROM copied;\n\
         \\copy (SELECT * FROM copied ORDER BY id) TO '{}'\n",
        there.display(),
        back.display()
    );
    let file = directory.join("script");
    fs::write(&file, script).unwrap();
    let arguments =
        ["-h", VIP, "-U", USER, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap()];
    let sum = text(stage.client.output(&program("psql"), &arguments));
    let expected = text(finish(Command::new("md5sum").stdin(fs::File::open(&there).unwrap())));
    assert_eq!(Some(sum.trim()), expected.split(' ').next());
    assert!(fs::read_to_string(&back).unwrap() == content, "the table came back changed");
}
