//! The task that sees to the services of plain networks.

use super::{Compose, ComposeError, ComposeObservation, engine};
use crate::source::Desired;
use crate::source::status::{RefusedNetwork, SharedStatus};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The name of this source.
pub const NAME: &str = "compose";

/// How often all is looked at without an event.
const SLOW_POLL: Duration = Duration::from_secs(60);

/// How long events are collected before it is looked what they have changed.
const BURST: Duration = Duration::from_millis(3);

/// The pause before an Engine that is away is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Begins to see to the services of the Engine at `socket`; gives the status of this source.
#[must_use]
pub fn start(socket: PathBuf, desired: Arc<Desired>) -> SharedStatus {
    let status = SharedStatus::new(NAME);
    let task = Task { socket, desired, status: status.clone() };
    tokio::spawn(task.run());
    status
}

struct Task {
    socket: PathBuf,
    desired: Arc<Desired>,
    status: SharedStatus,
}

impl Task {
    async fn run(self) {
        loop {
            if let Err(error) = self.see_to(&self.socket).await {
                tracing::debug!(%error, "cannot see to plain networks");
                self.status.update(|status| {
                    status.reachable = false;
                    status.last_error = Some(error.to_string());
                });
            }
            sleep(RETRY).await;
        }
    }

    /// Until the Engine goes away.
    async fn see_to(&self, socket: &Path) -> Result<(), ComposeError> {
        let docker = engine::connect(socket).await?;
        let filters = HashMap::from([("type", vec!["container"])]);
        // From before the first look, so that nothing is missed.
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let mut events = pin!(docker.events(Some(options)));
        let mut compose = Compose::new(docker.clone(), socket.to_owned());
        loop {
            let observation = compose.observe().await?;
            let wait = observation.again.unwrap_or(SLOW_POLL).min(SLOW_POLL);
            self.say(observation);
            let deadline = tokio::time::Instant::now() + wait;
            let mut concerned = false;
            while !concerned {
                match tokio::time::timeout_at(deadline, events.next()).await {
                    Ok(Some(Ok(event))) => concerned = compose.heard(&event).await,
                    Ok(Some(Err(error))) => return Err(engine::failed("tell of events", &error)),
                    Ok(None) => return Err(ComposeError::Ended),
                    Err(_) => break,
                }
            }
            while let Ok(Some(Ok(event))) = timeout(BURST, events.next()).await {
                compose.heard(&event).await;
            }
        }
    }

    fn say(&self, observation: ComposeObservation) {
        let ComposeObservation { networks, invalid_labels, refused, .. } = observation;
        let observed = self.desired.observe(NAME, networks);
        let rejected = observed.refused.into_iter();
        let rejected =
            rejected.map(|(name, reason)| RefusedNetwork { name: name.to_string(), reason: reason.to_string() });
        let refused_networks = refused.into_iter().chain(rejected).collect();
        self.status.update(|status| {
            (status.reachable, status.last_error) = (true, None);
            status.labels_from = "containers";
            status.invalid_labels = invalid_labels;
            status.refused_networks = refused_networks;
        });
    }
}
