//! What a cleanup has done.

use crate::model::Name;
use ringlb_netns::Cleared;
use serde::Serialize;
use std::path::PathBuf;

/// What a cleanup has done, left alone, and could not do.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The proxies that were ended.
    pub(crate) proxies: Vec<EndedProxy>,
    /// Namespaces of somebody else's in which something was taken back.
    pub(crate) sandboxes: Vec<OtherSandbox>,
    /// The containers that held VIPs, by their names, and their image.
    pub(crate) holders: Vec<String>,
    pub(crate) image: Option<String>,
    /// The namespaces that were removed.
    pub(crate) namespaces: Vec<String>,
    /// The files and directories that were removed.
    pub(crate) files: Vec<PathBuf>,
    /// What was left alone.
    pub(crate) left: Vec<Left>,
    /// What could not be done.
    pub(crate) errors: Vec<String>,
}

/// A proxy that was ended.
#[derive(Debug, Serialize)]
pub(crate) struct EndedProxy {
    pub(crate) network: Name,
    pub(crate) pid: Option<u32>,
}

/// A namespace of somebody else's, and what was taken back in it.
#[derive(Debug, Serialize)]
pub(crate) struct OtherSandbox {
    pub(crate) namespace: String,
    pub(crate) routes: Vec<String>,
    pub(crate) tables: Vec<String>,
    pub(crate) parameters: Vec<String>,
}

/// Something that was left alone, and why.
#[derive(Debug, Serialize)]
pub(crate) struct Left {
    pub(crate) what: String,
    pub(crate) reason: String,
}

impl OtherSandbox {
    pub(super) fn new(namespace: String, cleared: Cleared) -> Self {
        let Cleared { routes, tables, parameters } = cleared;
        let routes = routes.iter().map(ToString::to_string).collect();
        Self { namespace, routes, tables, parameters }
    }
}
