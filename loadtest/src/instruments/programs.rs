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
