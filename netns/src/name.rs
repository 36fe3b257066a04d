//! Which names the kernel and the file system take.

use crate::{Error, Result};

/// The longest interface name: `IFNAMSIZ` without the terminating zero (netdevice(7)).
pub(crate) const LONGEST_INTERFACE_NAME: usize = 15;

/// A named namespace is a file in one directory.
pub(crate) fn check_namespace_name(name: &str) -> Result<()> {
    let usable = !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(['.', '-'])
        && !name.chars().any(|character| character == '/' || character.is_whitespace() || character.is_control());
    if usable {
        return Ok(());
    }
    Err(Error::InvalidName {
        kind: "network namespace",
        name: name.to_owned(),
        rule: "use 1 to 255 bytes without '/', spaces or control characters, not starting with '.' or '-'",
    })
}

/// The rules of the kernel's `dev_valid_name`, and the two names that stand for something else in `/proc/sys/net`.
pub(crate) fn check_interface_name(name: &str) -> Result<()> {
    if is_interface_name(name) {
        return Ok(());
    }
    Err(Error::InvalidName {
        kind: "network interface",
        name: name.to_owned(),
        rule: "use 1 to 15 bytes without '/', ':', '%', spaces or control characters, other than '.', '..', 'all' and 'default'",
    })
}

pub(crate) fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_INTERFACE_NAME
        && !matches!(name, "." | ".." | "all" | "default")
        && !name.chars().any(|character| {
            matches!(character, '/' | ':' | '%') || character.is_whitespace() || character.is_control()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_names() {
        for good in ["a", "ringlb-web-lb", "with.dot", &"x".repeat(255)] {
            check_namespace_name(good).unwrap();
        }
        for bad in ["", ".", "..", ".hidden", "-x", "a/b", "a b", "a\nb", "a\0b", &"x".repeat(256)] {
            check_namespace_name(bad).unwrap_err();
        }
    }

    #[test]
    fn interface_names() {
        for good in ["a", "eth0", "br0", "fifteen-bytes-x", "ä"] {
            check_interface_name(good).unwrap();
        }
        for bad in ["", ".", "..", "all", "default", "a/b", "a:b", "a b", "eth%d", "a\0", "sixteen-bytes-xx"] {
            check_interface_name(bad).unwrap_err();
        }
    }
}
