//! What a running proxy has given up, and what it is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::message::Reply;
use ringlb_proxy::privileges::FirstUser;
use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use support::{Control, Options, Proxy, backend, bulk, echo, read_pattern, serve, write_pattern};

/// The fields of `/proc/…/status`.
fn status(path: &str) -> HashMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

/// The user that a proxy with that process id has: its own, if this test's user namespace knows it.
fn expected_user(process: u32) -> u32 {
    let own = FirstUser::default().of_process(process).unwrap();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let is_known = map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        (numbers[0]..numbers[0] + numbers[2]).contains(&u64::from(own))
    });
    let me = nix::unistd::geteuid();
    if is_known && me.is_root() { own } else { me.as_raw() }
}

/// Starts a proxy that gives up all that it can, and has it relay.
fn start(arguments: &[&'static str]) -> Proxy {
    let own_user = ["--first-user", "1879048192"];
    let options = Options { arguments: [&own_user, arguments].concat(), ..Options::default() };
    let proxy = Proxy::start_with(&options, Default::default(), &[backend(1)]);
    serve(1, proxy.target.port(), echo);
    relay(&proxy);
    proxy
}

/// Bytes there and back, enough of them to go through a pipe.
fn relay(proxy: &Proxy) {
    let total = bulk(32 << 20);
    let mut sender = proxy.connect();
    let mut receiver = sender.try_clone().unwrap();
    let reader = std::thread::spawn(move || read_pattern(&mut receiver).unwrap());
    write_pattern(&mut sender, total).unwrap();
    sender.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reader.join().unwrap(), total);
}

#[test]
fn every_thread_has_given_up_everything() {
    let proxy = start(&["--threads", "1"]);
    let process = proxy.child.id();
    let user = expected_user(process).to_string();
    let mut names = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let fields = status(thread.unwrap().path().join("status").to_str().unwrap());
        let name = fields["Name"].clone();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(fields[set], "0000000000000000", "{set} of {name}");
        }
        assert_eq!((&*fields["NoNewPrivs"], &*fields["Seccomp"]), ("1", "2"), "{name}");
        assert_eq!(fields["Uid"], [&*user; 4].join(" "), "{name}");
        assert_eq!(fields["Gid"], [&*user; 4].join(" "), "{name}");
        assert_eq!(fields["Groups"], "", "{name}");
        names.push(name);
    }
    for expected in ["ringlb-proxy", "access-log", "control", "data-0"] {
        assert!(names.iter().any(|name| name == expected), "{expected} is not among {names:?}");
    }
    let (code, log) = proxy.shut_down();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(&format!("given up: user {user}, Landlock version ")), "{log}");
}

/// Where the kernel gives no other user, the proxy says so.
#[test]
fn whoever_cannot_become_another_user_serves_too() {
    let proxy = start_under(&["setpriv", "--bounding-set", "-setuid,-setgid"]);
    let fields = status(&format!("/proc/{}/status", proxy.child.id()));
    let user = nix::unistd::geteuid().to_string();
    assert_eq!(fields["Uid"], [&*user; 4].join(" "));
    assert_eq!((&*fields["CapPrm"], &*fields["NoNewPrivs"], &*fields["Seccomp"]), ("0000000000000000", "1", "2"));
    let (_, log) = proxy.shut_down();
    assert!(log.contains("given up: the daemon's user (another one is not to be had: EPERM"), "{log}");
}

/// A kernel without Landlock, or one that does not use it, is no reason not to serve.
#[test]
fn a_kernel_without_landlock_is_served_all_the_same() {
    for error in ["ENOSYS", "EOPNOTSUPP"] {
        let inject = format!("inject=landlock_create_ruleset:error={error}");
        let strace = ["strace", "-D", "-qq", "-o", "/dev/null", "-e", "trace=landlock_create_ruleset", "-e", &inject];
        let proxy = start_under(&strace);
        let (code, log) = proxy.shut_down();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains(", no Landlock"), "{log}");
    }
}

/// Who connects to the control socket must be the daemon's user, even if its file lets others in.
#[test]
fn another_user_is_not_listened_to() {
    let mut proxy = start(&[]);
    let address = proxy.control_address();
    let path = address.as_pathname().unwrap();
    std::fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
    let stranger = std::thread::spawn(move || {
        become_nobody();
        Control::connect(&address)
    });
    assert!(stranger.join().unwrap().is_closed());
    // It goes on for the daemon, on the old channel and on another one.
    assert_eq!(proxy.statistics().proxy.accepted, 1);
    let Reply::Hello(hello) = proxy.connect_control().receive() else { panic!("no hello") };
    assert_eq!(hello.pid, proxy.child.id());
    let (_, log) = proxy.shut_down();
    assert!(log.contains("a control connection of another user is refused network=test user=65534"), "{log}");
}

/// The calling thread alone.
#[allow(unsafe_code, reason = "the C library changes the user of all threads")]
fn become_nobody() {
    // SAFETY: numbers; what this thread may not do after it fails with an error.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, -1, 65534, -1) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Starts a proxy by way of a program that changes what it meets.
fn start_under(program: &[&str]) -> Proxy {
    let under = program.iter().map(|&word| word.to_owned()).collect();
    let options = Options { arguments: vec!["--first-user", "1879048192"], under, ..Options::default() };
    let proxy = Proxy::start_with(&options, Default::default(), &[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let mut client = proxy.connect();
    client.write_all(b"there").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    proxy
}
