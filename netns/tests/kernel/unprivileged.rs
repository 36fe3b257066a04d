use nix::unistd::{User, geteuid};
use ringlb_netns::{Error, isolate};
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Whether this process is root outside any user namespace as well.
pub(crate) fn is_real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

mod as_root {
    use super::*;

    /// All the tests of this binary once more, but for those of `sk_lookup` and this one.
    #[test]
    fn an_ordinary_user_can_do_the_same() {
        let nobody = User::from_name("nobody").unwrap().expect("there is a user nobody");
        // Where others may read: the build directory need not be such a place.
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let binary = directory.path().join("tests");
        fs::copy(env::current_exe().unwrap(), &binary).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();

        let output = Command::new(&binary)
            .args(["--skip", "as_root::", "--test-threads", "2"])
            .uid(nobody.uid.as_raw())
            .gid(nobody.gid.as_raw())
            .current_dir("/")
            .env_remove(isolate::INHERIT)
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success(),
            "the tests fail for user nobody; if this is because the kernel does not permit unprivileged user namespaces, \
             allow them (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns):\n{text}"
        );
        for test in [
            "steering::every_port_of_every_vip_by_tproxy",
            "datagrams::replies_leave_from_the_vip_by_tproxy",
            "neighbours::ipv6_vips_answer_while_they_have_a_route",
            "shortcuts::where_there_are_none_packets_take_the_bridge",
            "takeover::what_is_taken_over_is_served_here_and_nothing_else",
            "steering::without_a_wish_the_kind_suits_the_user",
            "unprivileged::the_user_is_the_one_that_was_chosen",
        ] {
            assert!(text.contains(&format!("test {test} ... ok")), "{test} did not run:\n{text}");
        }
    }
}

/// So that the tests do not run as root by mistake when they are to run as an ordinary user, and the other way round.
#[test]
fn the_user_is_the_one_that_was_chosen() {
    assert!(geteuid().is_root());
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let outside = map.split_whitespace().nth(1).unwrap();
    assert_eq!(is_real_root(), outside == "0", "{map}");
    // A file of the root user outside.
    assert_eq!(fs::read("/etc/shadow").is_ok(), is_real_root());
}

#[test]
fn a_process_with_threads_cannot_enter_a_user_namespace() {
    // The test harness has a thread for each test.
    let error = isolate::enter(isolate::Kind::User).unwrap_err();
    assert!(matches!(error, Error::IsolationThreads { threads } if threads > 1), "{error}");
}
