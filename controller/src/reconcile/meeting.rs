//! Meeting the proxies of a network that an earlier daemon has left behind. The network's task waits for that, and nobody else.

use super::Settings;
use super::orphans::{Orphans, meet_network};
use crate::model::{Generation, Name};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The proxies of a network that are to be met, and its task, which waits for them.
#[derive(Debug)]
#[must_use = "the network's task waits until they are met"]
pub struct Meeting {
    network: Name,
    sockets: Vec<String>,
    settings: Arc<Settings>,
    task: oneshot::Sender<Orphans>,
}

/// Proxies of a network that have been met, on their way to its task.
#[derive(Debug)]
#[must_use = "the network's task waits for them"]
pub struct Found {
    network: Name,
    orphans: Orphans,
    task: oneshot::Sender<Orphans>,
}

impl Meeting {
    /// A meeting with what listens on these control sockets; and what its network's task waits for.
    pub(super) fn new(
        network: Name,
        sockets: Vec<String>,
        settings: Arc<Settings>,
    ) -> (Self, oneshot::Receiver<Orphans>) {
        let (task, orphans) = oneshot::channel();
        (Self { network, sockets, settings, task }, orphans)
    }

    /// Hears who they are. Those that cannot be understood are ended; that takes some seconds.
    pub async fn meet(self) -> Found {
        let Self { network, sockets, settings, task } = self;
        let orphans = meet_network(&settings.control, settings.versions, &network, sockets).await;
        Found { network, orphans, task }
    }
}

impl Found {
    /// Their network.
    #[must_use]
    pub fn network(&self) -> &Name {
        &self.network
    }

    /// The generation of the newest table that they have; 0 if there is none of them.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.orphans.generation()
    }

    /// Gives them to the network's task. What the network is to be must be of a later generation by then.
    pub fn hand_over(self) {
        // A task that has been stopped needs them no more.
        let _ = self.task.send(self.orphans);
    }
}
