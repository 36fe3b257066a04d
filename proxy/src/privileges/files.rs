//! The file system, by a Landlock ruleset (landlock(7)) that restricts all that there is and allows nothing of it.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr, RulesetError,
    Scope,
};
use std::fmt;

/// The newest of Landlock's versions that is asked for. An older kernel takes of it what it knows.
const NEWEST: ABI = ABI::V10;

/// Whether the file system is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// It is, as far as this version of Landlock knows it.
    GivenUp {
        /// The version (`LANDLOCK_CREATE_RULESET_VERSION`).
        version: i32,
    },
    /// The kernel has no Landlock or does not use it: system calls that open files are refused all the same.
    NoLandlock,
}

impl fmt::Display for Files {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GivenUp { version } => write!(formatter, "Landlock version {version}"),
            Self::NoLandlock => formatter.write_str("no Landlock"),
        }
    }
}

/// Gives up opening, making, changing and removing anything in the file system, listening on TCP ports, and what reaches
/// processes outside by signals and abstract sockets. What is open stays so.
pub(super) fn give_up() -> Result<Files, RulesetError> {
    // Not connecting by TCP, which is what the proxy is there for.
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .restrict_self()?;
    Ok(match status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            Files::GivenUp { version: kernel_abi.unwrap_or(effective_abi as i32) }
        }
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => Files::NoLandlock,
    })
}
