//! What a network's plumbing is to be.

use crate::name::check_namespace_name;
use crate::{Error, Namespace, Result, Subnets};

/// A network, as far as its plumbing is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPlan {
    /// The start of the names of all namespaces that are made, such as `ringlb-`: whoever owns the prefix owns them.
    pub name_prefix: String,
    /// The network's name.
    pub network: String,
    /// Its subnets.
    pub subnets: Subnets,
    /// The MTU of its interfaces, in bytes.
    pub mtu: u32,
}

impl NetworkPlan {
    /// The MTU of a network whose plan does not say otherwise, in bytes: Ethernet's.
    pub const DEFAULT_MTU: u32 = 1500;

    /// A plan with the default MTU.
    #[must_use]
    pub fn new(name_prefix: impl Into<String>, network: impl Into<String>, subnets: impl Into<Subnets>) -> Self {
        Self {
            name_prefix: name_prefix.into(),
            network: network.into(),
            subnets: subnets.into(),
            mtu: Self::DEFAULT_MTU,
        }
    }

    /// The name of the namespace that the network's bridge is in.
    #[must_use]
    pub fn bridge_namespace(&self) -> String {
        format!("{}{}-bridge", self.name_prefix, self.network)
    }

    /// The name of the network's sandbox.
    #[must_use]
    pub fn sandbox_namespace(&self) -> String {
        format!("{}{}-lb", self.name_prefix, self.network)
    }

    /// Removes the network's bridge and sandbox by their names, whoever made them, and with the bridge all legs. Does
    /// all it can and returns every error.
    ///
    /// # Errors
    /// Those of [`Namespace::remove`].
    pub fn remove(&self) -> std::result::Result<(), Vec<Error>> {
        let names = [self.sandbox_namespace(), self.bridge_namespace()];
        let errors: Vec<_> = names.iter().filter_map(|name| Namespace::remove(name).err()).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Whether such a network can be made.
    pub(crate) fn check(&self) -> Result<()> {
        check_namespace_name(&self.bridge_namespace())?;
        if self.subnets == Subnets::default() {
            return Err(Error::NoSubnet { network: self.network.clone() });
        }
        // RFC 791 and RFC 8200, section 5: the kernel switches IPv6 off on interfaces with less.
        let minimum = if self.subnets.v6.is_some() { 1280 } else { 68 };
        if !(minimum..=65535).contains(&self.mtu) {
            return Err(Error::InvalidMtu { network: self.network.clone(), mtu: self.mtu, minimum });
        }
        Ok(())
    }
}
