//! What this node does for the others, or lets others do for it, as its place in the swarm is.

use super::{Certificates, Following, Serving, Timing, follow, serve};
use crate::source::docker::facts::{Facts, ServiceFacts};
use crate::source::docker::sandbox_files;
use crate::source::docker::view::Node;
use crate::source::status::SharedStatus;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Where the certificates are in the Engine's data directory.
const CERTIFICATES: &str = "swarm/certificates";

/// How often it is looked where the Engine is: one that was started anew is another process.
const LOOK: Duration = Duration::from_secs(10);

/// What a link needs.
#[derive(Debug)]
pub struct Link {
    /// The node's place in the swarm.
    pub node: watch::Receiver<Option<Arc<Node>>>,
    /// What a manager knows.
    pub facts: watch::Receiver<Arc<Facts>>,
    /// Where what a worker learns goes.
    pub feed: watch::Sender<Option<Arc<Facts>>>,
    /// Where what goes wrong is told.
    pub status: SharedStatus,
    /// The Engine's socket.
    pub socket: PathBuf,
    /// The TCP port of all managers.
    pub port: u16,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Nothing,
    Serve { address: SocketAddr, certificates: PathBuf },
    Follow { certificates: PathBuf },
}

/// What is done.
#[derive(Debug)]
enum Doing {
    Nothing,
    Serve(Serving),
    Follow(Following),
}

impl Link {
    /// Serves while the node is a manager, and follows while it is a worker.
    pub async fn run(mut self) {
        let (known, to_serve) = watch::channel(self.facts.borrow_and_update().services.clone());
        let (managers, to_follow) = watch::channel(Vec::new());
        let (mut part, mut doing) = (Part::Nothing, Doing::Nothing);
        loop {
            let node = self.node.borrow_and_update().clone();
            if let Some(node) = node {
                let listed = manager_addresses(&node, self.port);
                managers.send_if_modified(|managers| {
                    let changed = *managers != listed;
                    *managers = listed;
                    changed
                });
                if let Some(wanted) = self.part(&node)
                    && wanted != part
                {
                    doing = begin(&wanted, &to_serve, &to_follow);
                    if !matches!(wanted, Part::Follow { .. }) {
                        self.feed.send_if_modified(|fed| fed.take().is_some());
                    }
                    part = wanted;
                }
            }
            tokio::select! {
                changed = self.node.changed() => if changed.is_err() {
                    return;
                },
                changed = self.facts.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    known.send_replace(self.facts.borrow_and_update().services.clone());
                }
                learned = doing.changed() => {
                    if let Some(services) = learned {
                        self.feed.send_replace(Some(Arc::new(Facts { services })));
                    }
                }
                () = sleep(LOOK) => {}
            }
            let error = doing.error();
            self.status.update(|status| status.labels_error = error);
        }
    }

    /// Nothing as long as the Engine is away: then it goes on as it was.
    fn part(&self, node: &Node) -> Option<Part> {
        if !node.in_swarm() {
            return Some(Part::Nothing);
        }
        let certificates = sandbox_files::seen(&self.socket, &Path::new(&node.root_dir).join(CERTIFICATES)).ok()?;
        if !node.manager {
            return Some(Part::Follow { certificates });
        }
        let address = node.address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Some(Part::Serve { address: SocketAddr::new(address, self.port), certificates })
    }
}

fn begin(
    part: &Part,
    to_serve: &watch::Receiver<Vec<ServiceFacts>>,
    to_follow: &watch::Receiver<Vec<SocketAddr>>,
) -> Doing {
    match part {
        Part::Nothing => Doing::Nothing,
        Part::Serve { address, certificates } => {
            let certificates = Arc::new(Certificates::new(certificates));
            Doing::Serve(serve(*address, certificates, to_serve.clone(), Timing::default()))
        }
        Part::Follow { certificates } => {
            let certificates = Arc::new(Certificates::new(certificates));
            Doing::Follow(follow(to_follow.clone(), certificates, Timing::default()))
        }
    }
}

impl Doing {
    /// Waits until something is new; gives the services if others were learned.
    async fn changed(&mut self) -> Option<Vec<ServiceFacts>> {
        match self {
            Self::Nothing => std::future::pending().await,
            Self::Serve(serving) => {
                if serving.status.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                None
            }
            Self::Follow(following) => tokio::select! {
                changed = following.services.changed() => match changed {
                    Ok(()) => following.services.borrow_and_update().clone(),
                    Err(_) => std::future::pending().await,
                },
                changed = following.status.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    None
                }
            },
        }
    }

    fn error(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Serve(serving) => serving.status.borrow().error.clone(),
            Self::Follow(following) => following.status.borrow().error.clone(),
        }
    }
}

/// The Engine names managers with the port of the swarm itself.
fn manager_addresses(node: &Node, port: u16) -> Vec<SocketAddr> {
    let parsed = node.managers.iter().filter_map(|manager| manager.parse::<SocketAddr>().ok());
    parsed.map(|manager| SocketAddr::new(manager.ip(), port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_are_asked_at_the_port_for_workers() {
        let node = Node {
            version: String::new(),
            id: "n".to_owned(),
            address: "192.0.2.2".to_owned(),
            swarm: "active".to_owned(),
            manager: false,
            managers: vec!["192.0.2.1:2377".to_owned(), "[2001:db8::1]:2377".to_owned(), "no address".to_owned()],
            root_dir: "/var/lib/docker".to_owned(),
        };
        let expected: Vec<SocketAddr> = vec!["192.0.2.1:9479".parse().unwrap(), "[2001:db8::1]:9479".parse().unwrap()];
        assert_eq!(manager_addresses(&node, 9479), expected);
    }
}
