//! Which names of this daemon a request over TCP may be for.
//!
//! A page in somebody's browser may send requests to whatever its own name resolves to, this daemon included, and read the
//! answers ("DNS rebinding"). It cannot choose the `Host` header: that has the page's name. So a request must be for an
//! address, or for a name that the daemon is known to have.

use super::problem::Problem;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// The names of this daemon.
#[derive(Debug, Clone)]
pub struct Names(Arc<HashSet<String>>);

impl Names {
    /// `localhost`, this machine's name (`uname -n`), and the names that were given.
    #[must_use]
    pub fn new(given: &[String]) -> Self {
        let machine = nix::sys::utsname::uname().map(|name| name.nodename().to_string_lossy().into_owned());
        let all = given.iter().cloned().chain(machine.ok()).chain(["localhost".to_owned()]);
        Self(Arc::new(all.map(|name| name.to_ascii_lowercase()).collect()))
    }

    /// Whether a `Host` header names this daemon: by any address, or by one of the names, with or without a port.
    fn include(&self, host: &str) -> bool {
        if let Some(bracketed) = host.strip_prefix('[') {
            return bracketed.split_once(']').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
        }
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        name.parse::<IpAddr>().is_ok() || self.0.contains(&name.trim_end_matches('.').to_ascii_lowercase())
    }
}

/// Lets a request pass that is for this daemon, or that names no host at all, as browsers always do.
pub(super) async fn check(State(names): State<Names>, request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    // What the request line names goes before the header (RFC 9112, 3.2.2).
    let named = request.uri().authority().map(ToString::to_string);
    let named = named.as_deref().or_else(|| hosts.next().map(|host| host.to_str().unwrap_or_default()));
    if named.is_none_or(|host| names.include(host)) && hosts.next().is_none() {
        return next.run(request).await;
    }
    let detail = "the header `Host` names another host: ask for an address or the name of this machine, or start the daemon \
                  with `--admin-host NAME`";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_known_names_are_this_daemon() {
        let names = Names::new(&["Node-1.Example".to_owned()]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:9480",
            "192.0.2.7:80",
            "[::1]",
            "[2001:db8::1]:9480",
            "localhost",
            "LOCALHOST:1",
            "node-1.example:9480",
            "node-1.example.",
        ] {
            assert!(names.include(host), "{host}");
        }
        let machine = nix::sys::utsname::uname().unwrap().nodename().to_str().unwrap().to_owned();
        assert!(names.include(&machine));
        for host in [
            "",
            "evil.example",
            "evil.example:9480",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::1",
            "[evil]",
        ] {
            assert!(!names.include(host), "{host}");
        }
    }
}
