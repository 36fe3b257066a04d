//! The programs that are measured: where they are, and of which version.

use super::process::output;
use std::env;
use std::path::PathBuf;
use std::process::Command;

/// A program that is there.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Where.
    pub(crate) path: PathBuf,
    /// What it says of its version.
    pub(crate) version: String,
}

impl Found {
    /// The program there, asked for its version by that argument. An error says what is wrong with it.
    pub(crate) fn at(path: PathBuf, version: &str) -> Result<Self, String> {
        let said = output(Command::new(&path).arg(version)).map_err(|error| error.to_string())?;
        // Some say first how they were called, which is about this machine.
        let said = said.replace(&*path.to_string_lossy(), "");
        let version = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned();
        Ok(Self { path, version })
    }

    /// The daemon beside this program, with its proxy beside it.
    pub(crate) fn ringlb() -> Result<Self, String> {
        beside_this_program("ringlb-proxy")?;
        Self::at(beside_this_program("ringlb")?, "--version")
    }
}

fn beside_this_program(name: &str) -> Result<PathBuf, String> {
    let own = env::current_exe().map_err(|error| format!("this program does not know where it is: {error}"))?;
    let path = own.with_file_name(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("there is no {}; `make build` puts all programs into one directory", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_version_does_not_tell_where_the_program_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("balancer");
        std::fs::write(&path, "#!/bin/sh\necho; echo \"$0  version: 1.2/$1\"\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(Found::at(path, "--version").unwrap().version, "version: 1.2/--version");
    }
}
