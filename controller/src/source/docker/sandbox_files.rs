//! Where the Engine mounts the namespaces of its sandboxes, and which of them are there.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Where the Engine keeps what does not outlive the machine, unless told otherwise.
const EXEC_ROOT: &str = "/run/docker";

/// What it reads its options from, unless told otherwise.
const CONFIGURATION: &str = "/etc/docker/daemon.json";

/// The name of the sandbox of the network by which published ports arrive, and the beginning of all others'.
const INGRESS: &str = "ingress_sbox";
const OTHERS: &str = "lb_";

/// How many characters of a network's id are in its sandbox's name.
const ID_CHARACTERS: usize = 9;

/// A sandbox's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SandboxFile {
    /// Where it can be opened.
    pub(crate) path: PathBuf,
    /// Device and inode of the namespace.
    pub(crate) identity: (u64, u64),
}

/// The directory of the Engine that answers on `socket`.
///
/// # Errors
/// If nobody answers there.
pub(super) fn directory(socket: &Path) -> io::Result<PathBuf> {
    let (pid, prefix) = engine_of(socket)?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let configured = || {
        let file = argument(&arguments, "config-file").unwrap_or_else(|| PathBuf::from(CONFIGURATION));
        configured_exec_root(&fs::read(below(&prefix, &file)).ok()?)
    };
    let exec_root = argument(&arguments, "exec-root").or_else(configured).unwrap_or_else(|| PathBuf::from(EXEC_ROOT));
    Ok(below(&prefix, &exec_root).join("netns"))
}

/// Where `path`, as the Engine that answers on `socket` sees it, is to be found from here.
///
/// # Errors
/// If nobody answers there.
pub(super) fn seen(socket: &Path, path: &Path) -> io::Result<PathBuf> {
    engine_of(socket).map(|(_, prefix)| below(&prefix, path))
}

/// The process that listens on `socket`, and where its file system is to be found from here.
fn engine_of(socket: &Path) -> io::Result<(i32, PathBuf)> {
    // With a socket that systemd made it is systemd that is named here; it has no such argument, and the Engine that
    // it started has the usual exec-root.
    let stream = UnixStream::connect(socket)?;
    let pid = getsockopt(&stream, PeerCredentials)?.pid();
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let own = namespace_of("self");
    // The Engine may be in another pid namespace than this process, where its number says nothing (pid 0).
    let elsewhere = pid > 0 && own.is_some() && namespace_of(&pid.to_string()).is_some_and(|its| Some(its) != own);
    Ok((pid, if elsewhere { root } else { PathBuf::from("/") }))
}

/// The name of a network's sandbox in that directory.
pub(super) fn name(network_id: &str, ingress: bool) -> String {
    if ingress {
        INGRESS.to_owned()
    } else {
        format!("{OTHERS}{}", network_id.chars().take(ID_CHARACTERS).collect::<String>())
    }
}

/// Whether it is the name of a network's sandbox.
pub(super) fn is_name(name: &str) -> bool {
    name == INGRESS || name.starts_with(OTHERS)
}

/// The namespace at `path`; `None` if there is none, as while the Engine is making or removing it: then the path can be a
/// plain file.
pub(super) fn look(path: &Path) -> Option<SandboxFile> {
    if statfs(path).ok()?.filesystem_type() != NSFS_MAGIC {
        return None;
    }
    // Between the two calls it may have been removed; whoever opens it compares the identity.
    let metadata = fs::metadata(path).ok()?;
    Some(SandboxFile { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) })
}

fn namespace_of(process: &str) -> Option<(u64, u64)> {
    let metadata = fs::metadata(format!("/proc/{process}/ns/mnt")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn below(prefix: &Path, path: &Path) -> PathBuf {
    prefix.join(path.strip_prefix("/").unwrap_or(path))
}

/// The value of `--NAME VALUE` or `--NAME=VALUE` in what `/proc/PID/cmdline` has.
fn argument(arguments: &[u8], name: &str) -> Option<PathBuf> {
    let mut arguments = arguments.split(|byte| *byte == 0);
    let value = loop {
        let Some(rest) = arguments.next()?.strip_prefix(b"--") else { continue };
        match rest.strip_prefix(name.as_bytes()) {
            Some(b"") => break arguments.next()?,
            Some([b'=', value @ ..]) => break value,
            _ => {}
        }
    };
    (!value.is_empty()).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(value)))
}

fn configured_exec_root(configuration: &[u8]) -> Option<PathBuf> {
    let configuration: serde_json::Value = serde_json::from_slice(configuration).ok()?;
    configuration["exec-root"].as_str().filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_argument_is_found_in_both_forms() {
        let given = |text: &str| argument(text.replace(' ', "\0").as_bytes(), "exec-root");
        assert_eq!(given("dockerd --exec-root /a -H unix:///s "), Some("/a".into()));
        assert_eq!(given("dockerd -D --exec-root=/b "), Some("/b".into()));
        assert_eq!(given("dockerd --exec-root-other /b "), None);
        assert_eq!(given("dockerd --data-root /x "), None);
        assert_eq!(given("dockerd --exec-root= "), None);
        assert_eq!(given("dockerd --exec-root"), None);
        assert_eq!(given(""), None);
    }

    #[test]
    fn the_configuration_may_name_the_directory() {
        assert_eq!(configured_exec_root(br#"{"debug":true,"exec-root":"/r"}"#), Some("/r".into()));
        assert_eq!(configured_exec_root(br#"{"exec-root":""}"#), None);
        assert_eq!(configured_exec_root(b"{}"), None);
        assert_eq!(configured_exec_root(b"not JSON"), None);
    }

    #[test]
    fn a_sandbox_is_named_after_its_network() {
        assert_eq!(name("fyhfrxn30hsy8onufsgm85c5q", false), "lb_fyhfrxn30");
        assert_eq!(name("cmrfzt1bujdde53immu9muisk", true), "ingress_sbox");
        assert_eq!(name("short", false), "lb_short");
        assert!(is_name("ingress_sbox") && is_name("lb_fyhfrxn30"));
        assert!(!is_name("1-fyhfrxn30h") && !is_name("0123456789ab") && !is_name("default"));
    }

    #[test]
    fn only_a_namespace_is_a_sandbox() {
        let found = look(Path::new("/proc/self/ns/net")).unwrap();
        let metadata = fs::metadata("/proc/self/ns/net").unwrap();
        assert_eq!(found.identity, (metadata.dev(), metadata.ino()));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lb_x");
        assert_eq!(look(&file), None);
        fs::write(&file, "").unwrap();
        assert_eq!(look(&file), None);
    }

    #[test]
    fn the_engine_is_found_by_its_socket() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("docker.sock");
        assert!(directory(&socket).is_err());
        let _listener = UnixListener::bind(&socket).unwrap();
        // It is this process that listens, in this mount namespace, and it has no such argument.
        assert_eq!(directory(&socket).unwrap(), Path::new("/run/docker/netns"));
    }
}
