use crate::support::sysctl;
use nix::mount::{MsFlags, mount};
use ringlb_netns::{Error, Namespace};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;

fn names_by_ip() -> Vec<String> {
    let output = Command::new("ip").args(["netns", "list"]).output().expect("iproute2 is needed");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn creating_and_removing_can_be_repeated() {
    let name = "ringlb-test-create";
    let namespace = Namespace::create(name).unwrap();
    assert_eq!(namespace.name(), Some(name));
    let again = Namespace::create(name).unwrap();
    assert_eq!(namespace.identity().unwrap(), again.identity().unwrap());
    assert_ne!(namespace.identity().unwrap(), Namespace::current().unwrap().identity().unwrap());
    assert!(Namespace::list().unwrap().contains(&name.to_owned()));
    assert!(names_by_ip().contains(&name.to_owned()));

    Namespace::remove(name).unwrap();
    Namespace::remove(name).unwrap();
    assert!(!Namespace::list().unwrap().contains(&name.to_owned()));
    assert!(!names_by_ip().contains(&name.to_owned()));
    assert!(matches!(Namespace::open(name), Err(Error::NamespaceMissing { .. })));

    // What is open goes on.
    namespace.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    assert_ne!(Namespace::create(name).unwrap().identity().unwrap(), namespace.identity().unwrap());
    Namespace::remove(name).unwrap();
}

#[test]
fn opens_what_ip_netns_made_and_the_other_way_round() {
    let name = "ringlb-test-ip";
    let ip = |arguments: &[&str]| assert!(Command::new("ip").args(arguments).status().unwrap().success());
    ip(&["netns", "add", name]);
    let namespace = Namespace::open(name).unwrap();
    assert_eq!(Namespace::create(name).unwrap().identity().unwrap(), namespace.identity().unwrap());
    Namespace::remove(name).unwrap();
    Namespace::create(name).unwrap();
    ip(&["netns", "exec", name, "ip", "link", "show", "lo"]);
    ip(&["netns", "delete", name]);
    assert!(!Namespace::list().unwrap().contains(&name.to_owned()));
}

#[test]
fn the_loopback_interface_is_up() {
    let namespace = Namespace::create("ringlb-test-loopback").unwrap();
    let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
    crate::support::connect(&namespace, listener.local_addr().unwrap()).unwrap();
    Namespace::remove("ringlb-test-loopback").unwrap();
}

#[test]
fn a_leftover_file_is_replaced() {
    let name = "ringlb-test-leftover-file";
    Namespace::create("ringlb-test-makes-directory").unwrap();
    fs::write(Path::new("/run/netns").join(name), "").unwrap();
    assert!(matches!(Namespace::open(name), Err(Error::NotANetworkNamespace { .. })));
    Namespace::create(name).unwrap();
    Namespace::open(name).unwrap();
    Namespace::remove(name).unwrap();
    fs::write(Path::new("/run/netns").join(name), "").unwrap();
    Namespace::remove(name).unwrap();
    assert!(!Path::new("/run/netns").join(name).exists());
    Namespace::remove("ringlb-test-makes-directory").unwrap();
}

#[test]
fn another_kind_of_namespace_is_not_touched() {
    let name = "ringlb-test-other-kind";
    Namespace::create(name).unwrap();
    let path = Path::new("/run/netns").join(name);
    let bind = |source: &str| mount(Some(source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    bind("/proc/self/ns/uts");
    assert!(matches!(Namespace::open(name), Err(Error::NotANetworkNamespace { .. })));
    assert!(matches!(Namespace::create(name), Err(Error::NotANetworkNamespace { .. })));
    // Everything that is mounted there goes with the name.
    Namespace::remove(name).unwrap();
    assert!(!path.exists());
}

#[test]
fn open_path_takes_network_namespaces_only() {
    Namespace::open_path(Path::new("/proc/self/ns/net")).unwrap();
    for path in ["/proc/self/ns/uts", "/proc/self/status", "/proc"] {
        assert!(matches!(Namespace::open_path(Path::new(path)), Err(Error::NotANetworkNamespace { .. })), "{path}");
    }
    assert!(matches!(Namespace::open_path(Path::new("/nothing/here")), Err(Error::NamespaceMissing { .. })));
}

#[test]
fn odd_names_are_refused() {
    for name in ["", ".", "..", "a/b", "../x", "a b", "-v"] {
        for result in [Namespace::create(name).map(drop), Namespace::open(name).map(drop), Namespace::remove(name)] {
            assert!(matches!(result, Err(Error::InvalidName { .. })), "{name:?}: {result:?}");
        }
    }
}

#[test]
fn work_is_done_inside_and_the_caller_stays_outside() {
    let namespace = Namespace::create("ringlb-test-run").unwrap();
    let outside = Namespace::current().unwrap().identity().unwrap();
    let inside = namespace.run(|| Namespace::current().unwrap().identity().unwrap()).unwrap();
    assert_eq!(inside, namespace.identity().unwrap());
    assert_eq!(Namespace::current().unwrap().identity().unwrap(), outside);
    let panicked = thread::scope(|scope| scope.spawn(|| namespace.run(|| panic!("at work"))).join());
    assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"at work"));
    Namespace::remove("ringlb-test-run").unwrap();
}

#[test]
fn a_child_runs_inside() {
    let namespace = Namespace::create("ringlb-test-child").unwrap();
    let mut command = Command::new("readlink");
    command.arg("/proc/self/ns/net");
    namespace.enter_on_exec(&mut command).unwrap();
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(output.trim(), format!("net:[{}]", namespace.identity().unwrap().1));
    Namespace::remove("ringlb-test-child").unwrap();
}

#[test]
fn many_at_once_make_one() {
    let name = "ringlb-test-at-once";
    let identities: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Namespace::create(name).unwrap().identity().unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(identities.iter().all(|identity| *identity == identities[0]));
    Namespace::remove(name).unwrap();
}

#[test]
fn the_directory_is_a_shared_mount_point_of_its_own() {
    let mounts = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let of_directory = mounts.lines().filter(|line| line.split_whitespace().nth(4) == Some("/run/netns"));
        of_directory.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = mounts();
    for _twice in 0..2 {
        Namespace::create("ringlb-test-shared").unwrap();
        Namespace::remove("ringlb-test-shared").unwrap();
    }
    // Below the last there may be those of a mount namespace that this one was copied from.
    assert!(before.last().unwrap().contains(" shared:"), "{before:?}");
    assert_eq!(mounts(), before);
}

#[test]
fn kernel_parameters() {
    let namespace = Namespace::create("ringlb-test-sysctl").unwrap();
    for _twice in 0..2 {
        namespace.set_sysctl("net/ipv4/ip_local_port_range", "2000 3000").unwrap();
        namespace.set_sysctl_if_present("net/ipv4/tcp_tw_reuse", "1").unwrap();
        namespace.set_sysctl_if_present("net/ipv4/no_such_parameter", "1").unwrap();
    }
    assert_eq!(sysctl(&namespace, "net/ipv4/ip_local_port_range").unwrap(), "2000 3000");
    assert_eq!(sysctl(&namespace, "net/ipv4/tcp_tw_reuse").unwrap(), "1");
    let outside = Namespace::current().unwrap();
    assert_ne!(sysctl(&outside, "net/ipv4/ip_local_port_range").unwrap(), "2000 3000");

    let missing = namespace.set_sysctl("net/ipv4/no_such_parameter", "1").unwrap_err();
    assert!(missing.to_string().contains("net/ipv4/no_such_parameter"), "{missing}");
    let refused = namespace.set_sysctl("net/ipv4/ip_local_port_range", "9 nine").unwrap_err();
    assert!(matches!(refused, Error::Sysctl { .. }), "{refused}");
    for path in ["kernel/hostname", "net/../kernel/hostname", "/net/ipv4/ip_forward", "net", ""] {
        let refused = namespace.set_sysctl_if_present(path, "x").unwrap_err();
        assert!(matches!(refused, Error::InvalidName { .. }), "{refused}");
    }
    Namespace::remove("ringlb-test-sysctl").unwrap();
}
