//! The service by itself, without an Engine.

use super::rights::{descriptors_of, may_raise_limits};
use super::unit::Unit;
use crate::engine::Engine;
use crate::leftovers;
use crate::machine::Machine;
use crate::wait::{finish, wait_until};
use crate::wire::Wire;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What the unit asks for.
const DESCRIPTORS: u64 = 1_048_576;
/// More than the five starts within ten seconds after which systemd gives up otherwise (`StartLimitBurst=`,
/// systemd.unit(5)).
const FAILURES: u32 = 8;

#[test]
fn a_daemon_that_cannot_start_is_started_until_it_can() {
    leftovers::remove_of_ended_runs();
    let wire = Wire::new();
    let engine = Engine::boot(&wire, 1);
    let machine = &engine.machine;
    let unit = Unit::install(&engine);
    let move_proxy = |from: &str, to: &str| finish(machine.command("mv").args([from, to]));
    move_proxy("/usr/local/bin/ringlb-proxy", "/root/");
    unit.systemctl("start");
    wait_until("it was started often", || unit.property("NRestarts").parse::<u32>().unwrap() >= FAILURES);
    move_proxy("/root/ringlb-proxy", "/usr/local/bin/");
    unit.wait_until_it_answers();
    let daemon = unit.main_pid();

    // The one thing of ringlb that needs neither an Engine nor a container.
    unit.ringlb(&["network", "create", "own", "--subnet", "10.200.0.0/24"]);
    unit.ringlb(&["service", "create", "own", "web", "--publish", "80:80/tcp"]);
    let proxies = unit.running_proxies();
    assert_eq!(proxies.len(), 1);

    let processes = machine.path(Path::new("/proc"));
    let own = descriptors_of(Path::new("/proc/self"));
    let expected = if may_raise_limits() { DESCRIPTORS } else { DESCRIPTORS.min(own) };
    for process in [daemon.to_string(), proxies[0].to_string()] {
        assert_eq!(descriptors_of(&processes.join(process)), expected);
    }

    // Others may see where namespaces and the admin socket are, and no more.
    for directory in ["/run/netns", "/run/ringlb"] {
        assert_eq!(mode_of(&machine.path(Path::new(directory))), 0o755, "{directory}");
    }
    let kept = [&["/var/lib/ringlb".to_owned()][..], &entries_of(machine, "/run/ringlb")].concat();
    for path in kept {
        assert_eq!(mode_of(&machine.path(Path::new(&path))) & 0o077, 0, "{path}");
    }

    machine.systemctl(&["kill", "--signal=SIGKILL", "--kill-whom=main", "ringlb"]);
    wait_until("there is another daemon", || ![0, daemon].contains(&unit.main_pid()));
    unit.wait_until_it_answers();
    wait_until("the proxy is taken over", || {
        unit.admin.proxies().iter().map(|(_, proxy)| *proxy).eq(proxies.iter().copied())
    });
}

/// The paths on the machine of what is in the directory.
fn entries_of(machine: &Machine, directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(machine.path(Path::new(directory))).unwrap();
    entries.map(|entry| format!("{directory}/{}", entry.unwrap().file_name().to_str().unwrap())).collect()
}

fn mode_of(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}
