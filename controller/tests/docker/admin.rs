//! What a daemon says of itself.

use crate::http;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A daemon's admin socket.
pub(crate) struct Admin {
    socket: PathBuf,
}

impl Admin {
    /// That of the daemon on a run directory.
    pub(crate) fn of(run_dir: &Path) -> Self {
        Self { socket: run_dir.join("admin.sock") }
    }

    pub(crate) fn answers(&self) -> bool {
        http::get(&self.socket, "/healthz").is_ok_and(|(status, _)| status == 200)
    }

    pub(crate) fn status(&self) -> Value {
        let (status, body) = http::get(&self.socket, "/v1/status").unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The status of the network of that name.
    pub(crate) fn network(&self, name: &str) -> Option<Value> {
        self.status()["networks"].as_array()?.iter().find(|network| network["name"] == name).cloned()
    }

    /// The proxy's process of each network that has one, by the network's name. The number is that in the daemon's process
    /// namespace.
    pub(crate) fn proxies(&self) -> Vec<(String, i64)> {
        let status = self.status();
        let networks = status["networks"].as_array().unwrap();
        let proxy = |network: &Value| Some((network["name"].as_str()?.to_owned(), network["proxy"]["pid"].as_i64()?));
        networks.iter().filter_map(proxy).collect()
    }
}
