//! `ringlb cleanup`: after the daemon's end, nothing of ringlb is left on the node.
//!
//! What a daemon makes is found by names that follow from its run directory, by the control sockets in it, and in the
//! Engine that it observed. Namespaces of the Engine's in which a proxy of another run directory serves are left alone.

mod neighbours;
mod report;

pub(crate) use report::Report;

use crate::reconcile::{
    ControlDirectory, end_proxies, remove_control_sockets, remove_memory_groups, remove_namespaces,
};
use crate::run_dir::{RunDir, RunDirError};
use crate::source::docker::{self, Location, Remains};
use neighbours::Neighbours;
use report::{EndedProxy, Left, OtherSandbox};
use ringlb_netns::Namespace;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Where an Engine mounts its sandboxes if nobody can be asked.
const USUAL_SANDBOXES: &str = "/run/docker/netns";

/// Device and inode of a namespace.
type Identity = (u64, u64);

/// Removes all that daemons on `run_dir` have left behind, and what they have made with an Engine: with `engine`, or else with
/// the one that the last of them observed. What cannot be removed is in the report; the rest is done.
///
/// # Errors
/// If a daemon runs there, or the directory cannot be used. Then nothing is touched.
pub(crate) async fn run(run_dir: &Path, engine: Option<Location>) -> Result<Report, RunDirError> {
    let run_dir = RunDir::open(run_dir)?;
    let mut cleanup = Cleanup::default();
    let control = ControlDirectory::open(run_dir.path())
        .map_err(|cause| RunDirError::Unusable { path: run_dir.path().to_owned(), cause })?;
    cleanup.end_proxies(&control).await;
    let engine = engine.or_else(|| match run_dir.engine() {
        Ok(engine) => engine,
        Err(error) => {
            cleanup
                .report
                .errors
                .push(format!("cannot read which Engine was observed: {error}; name it with --source"));
            None
        }
    });
    cleanup.clear_engine(engine.as_ref()).await;
    let (namespaces, errors) = remove_namespaces(run_dir.path(), &cleanup.served).await;
    cleanup.report.namespaces = namespaces;
    cleanup.report.errors.extend(errors);
    let (mut files, errors) = remove_control_sockets(&control, &cleanup.served);
    cleanup.report.errors.extend(errors);
    let (groups, errors) = remove_memory_groups(run_dir.path(), &cleanup.served);
    files.extend(groups);
    cleanup.report.errors.extend(errors);
    if let Err(error) = control.remove_if_empty() {
        cleanup.report.errors.push(error.to_string());
    }
    let mut report = cleanup.report;
    // What is to be done again with the Engine must know where it is.
    let (removed, errors) = run_dir.remove(report.errors.is_empty());
    files.extend(removed);
    report.files = files;
    report.errors.extend(errors);
    Ok(report)
}

#[derive(Debug, Default)]
struct Cleanup {
    report: Report,
    /// The networks whose proxies could not be ended.
    served: HashSet<crate::model::Name>,
    /// The namespaces in which something may have been done, by what they are, and what they are called.
    sandboxes: BTreeMap<Identity, (Namespace, String)>,
}

impl Cleanup {
    async fn end_proxies(&mut self, control: &ControlDirectory) {
        for proxy in end_proxies(control).await {
            if let Some(reason) = proxy.failure {
                self.report.errors.push(format!("cannot end the proxy of network {}: {reason}", proxy.network));
                self.served.insert(proxy.network);
                continue;
            }
            if let Some(namespace) = proxy.sandbox
                && let Ok(identity) = namespace.identity()
            {
                self.sandboxes.insert(identity, (namespace, format!("the sandbox of network {}", proxy.network)));
            }
            self.report.proxies.push(EndedProxy { network: proxy.network, pid: proxy.pid });
        }
    }

    /// Removes what ringlb has made with the Engine, and takes back what was done in namespaces that it has not made.
    async fn clear_engine(&mut self, engine: Option<&Location>) {
        let neighbours = Neighbours::look();
        if let Some(engine) = engine {
            // Without an Engine its sandboxes may be there all the same, as after it was killed.
            let directory = engine.sandboxes().unwrap_or_else(|_| PathBuf::from(USUAL_SANDBOXES));
            match docker::sandboxes(&directory) {
                Ok(found) => found.into_iter().for_each(|file| self.add_sandbox(file.identity, &file.path)),
                Err(error) => {
                    self.report.errors.push(format!("cannot look for sandboxes in {}: {error}", directory.display()));
                }
            }
            if let Err(error) = self.remove_holders(engine, &directory, &neighbours).await {
                self.report.errors.push(error);
            }
        }
        for (identity, (namespace, name)) in std::mem::take(&mut self.sandboxes) {
            if let Some(reason) = neighbours.reason(identity) {
                self.report.left.push(Left { what: name, reason });
                continue;
            }
            let (cleared, errors) = ringlb_netns::clear(&namespace).await;
            self.report.errors.extend(errors.iter().map(ToString::to_string));
            if !cleared.is_empty() {
                self.report.sandboxes.push(OtherSandbox::new(name, cleared));
            }
        }
    }

    fn add_sandbox(&mut self, identity: Identity, path: &Path) {
        match Namespace::open_path(path) {
            // It may be another one by now.
            Ok(namespace) if namespace.identity().is_ok_and(|found| found == identity) => {
                self.sandboxes.insert(identity, (namespace, path.display().to_string()));
            }
            Ok(_) | Err(ringlb_netns::Error::NamespaceMissing { .. }) => {}
            Err(error) => self.report.errors.push(error.to_string()),
        }
    }

    async fn remove_holders(
        &mut self,
        engine: &Location,
        sandboxes: &Path,
        neighbours: &Neighbours,
    ) -> Result<(), String> {
        let remains = Remains::of(engine).await.map_err(|error| error.to_string())?;
        let holders = remains.holders(sandboxes).await.map_err(|error| error.to_string())?;
        let mut all = true;
        for holder in holders {
            let identity = holder.sandbox.as_ref().map(|sandbox| sandbox.identity);
            if let Some(reason) = identity.and_then(|identity| neighbours.reason(identity)) {
                self.report.left.push(Left { what: holder.name, reason });
                all = false;
                continue;
            }
            match remains.remove_holder(&holder).await {
                Ok(()) => {
                    // Its namespace goes with it.
                    identity.map(|identity| self.sandboxes.remove(&identity));
                    self.report.holders.push(holder.name);
                }
                Err(error) => {
                    self.report.errors.push(error.to_string());
                    all = false;
                }
            }
        }
        if all {
            self.report.image = remains.remove_image().await.map_err(|error| error.to_string())?.map(str::to_owned);
        }
        Ok(())
    }
}
