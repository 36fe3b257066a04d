//! Taking back what was done in somebody else's namespace.

use crate::netfilter::{Family, Table, delete_table};
use crate::{Error, Namespace, Result, parameters, takeover};
use ipnet::IpNet;
use std::io;

/// What was taken back in somebody else's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleared {
    /// The VIPs' routes.
    pub routes: Vec<IpNet>,
    /// The nftables tables, with their families in nft(8)'s words.
    pub tables: Vec<String>,
    /// The kernel parameters, by their paths under `/proc/sys`.
    pub parameters: Vec<String>,
}

impl Cleared {
    /// Whether nothing was there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Takes back all that this crate does in a namespace that it has not made: the routes to VIPs, rules, and the kernel
/// parameters that have the values of a proxy's sandbox. Whatever else is there stays. The proxy's sockets, and the steering
/// that goes with them, are the proxy's. Does all it can, and gives every error beside what was done.
pub async fn clear(namespace: &Namespace) -> (Cleared, Vec<Error>) {
    let (mut cleared, mut errors) = (Cleared::default(), Vec::new());
    match clear_routes(namespace).await {
        Ok(routes) => cleared.routes = routes,
        Err(error) => errors.push(error),
    }
    match delete_tables(namespace) {
        Ok(tables) => cleared.tables = tables,
        Err(error) => errors.push(error),
    }
    match parameters::reset_in_foreign(namespace) {
        Ok(parameters) => cleared.parameters = parameters,
        Err(error) => errors.push(error),
    }
    (cleared, errors)
}

async fn clear_routes(namespace: &Namespace) -> Result<Vec<IpNet>> {
    let links = namespace.links().await?;
    let routes = links.local_routes().await?;
    for route in &routes {
        links.remove_local_route(*route).await?;
    }
    Ok(routes)
}

fn delete_tables(namespace: &Namespace) -> Result<Vec<String>> {
    let families = [Family::Ipv4, Family::Ipv6, Family::NetworkDevice];
    let tables: Vec<_> = families.into_iter().map(Table::of).chain([takeover::TABLE]).collect();
    let deleted = namespace.run(|| -> io::Result<Vec<String>> {
        let mut deleted = Vec::new();
        for table in tables {
            if delete_table(table)? {
                deleted.push(table.to_string());
            }
        }
        Ok(deleted)
    })?;
    deleted.map_err(|cause| Error::Tables { namespace: namespace.label().to_owned(), cause })
}
