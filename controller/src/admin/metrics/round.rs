//! One round of questions to all networks.

use crate::model::{Network, Shared};
use crate::reconcile::{NetworkStatus, Reconcilers};
use crate::source::Desired;
use futures_util::future::join_all;
use ringlb_proxy::control::message::Statistics;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, timeout_at};

/// How long a network's task and its proxy may take together to answer. Prometheus gives a scrape 10 s.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What was known when a scrape came.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) version: &'static str,
    pub(super) started: SystemTime,
    pub(super) networks: Vec<NetworkAnswer>,
}

/// A network: what should be, and what its task and its proxy have said in time.
#[derive(Debug)]
pub(super) struct NetworkAnswer {
    pub(super) network: Shared<Network>,
    pub(super) status: Option<NetworkStatus>,
    pub(super) statistics: Option<Statistics>,
}

impl Round {
    /// Asks all networks at the same time.
    pub(super) async fn ask(desired: &Desired, started: SystemTime) -> Self {
        let model = desired.model();
        let deadline = Instant::now() + TIMEOUT;
        let asked = model.networks().values().map(|network| ask(desired.reconcilers(), network, deadline));
        Self { version: env!("CARGO_PKG_VERSION"), started, networks: join_all(asked).await }
    }
}

async fn ask(reconcilers: &Reconcilers, network: &Shared<Network>, deadline: Instant) -> NetworkAnswer {
    let network = network.clone();
    let Ok(Some((status, statistics))) = timeout_at(deadline, reconcilers.status(network.name())).await else {
        return NetworkAnswer { network, status: None, statistics: None };
    };
    // It is an error too if there is no proxy to ask.
    let statistics = timeout_at(deadline, statistics).await.ok().and_then(Result::ok);
    NetworkAnswer { network, status: Some(status), statistics }
}
