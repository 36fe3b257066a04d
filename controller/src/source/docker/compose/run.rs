//! The task that sees to the services of plain networks.

use super::maker::Maker;
use super::{Compose, ComposeObservation};
use crate::source::Desired;
use crate::source::docker::Location;
use crate::source::docker::connection::{self, Contact};
use crate::source::docker::engine::Engine;
use crate::source::docker::look::BURST;
use crate::source::status::{RefusedNetwork, SharedStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// The name of this source.
pub const NAME: &str = "compose";

/// How often all is looked at without an event.
const SLOW_POLL: Duration = Duration::from_secs(60);

/// How soon an Engine is asked again that did not say.
const RETRY: Duration = Duration::from_millis(500);

/// Begins to see to the services of the Engine; gives the status of this source.
#[must_use]
pub fn start(engine: Location, desired: Arc<Desired>) -> SharedStatus {
    let status = SharedStatus::new(NAME);
    let task = Task { engine, desired, status: status.clone() };
    tokio::spawn(task.run());
    status
}

struct Task {
    engine: Location,
    desired: Arc<Desired>,
    status: SharedStatus,
}

impl Task {
    async fn run(self) {
        let (contacts, mut contact) = mpsc::unbounded_channel();
        let (done, mut finished) = mpsc::unbounded_channel();
        tokio::spawn(connection::keep(self.engine.socket.clone(), contacts));
        let mut compose: Option<Compose> = None;
        let mut due = Instant::now();
        loop {
            tokio::select! {
                Some(contact) = contact.recv() => match contact {
                    Contact::Made(made) => {
                        let (engine, _) = *made;
                        compose = Some(Compose::new(self.maker(engine), done.clone()));
                        due = Instant::now();
                    }
                    Contact::Lost(reason) => {
                        compose = None;
                        self.status.update(|status| (status.reachable, status.last_error) = (false, Some(reason)));
                    }
                    Contact::Happened(happening) => {
                        if let Some(compose) = &mut compose && compose.heard(&happening).await {
                            due = due.min(Instant::now() + BURST);
                        }
                    }
                },
                Some(finished) = finished.recv() => {
                    if let Some(compose) = &mut compose {
                        compose.is_done(finished);
                        due = Instant::now();
                    }
                }
                () = sleep_until(due), if compose.is_some() => {
                    if let Some(compose) = &mut compose {
                        due = Instant::now() + self.observe(compose).await;
                    }
                }
            }
        }
    }

    fn maker(&self, engine: Engine) -> Maker {
        Maker { engine, location: self.engine.clone() }
    }

    /// Gives in which time it is to be observed again if nothing happens.
    async fn observe(&self, compose: &mut Compose) -> Duration {
        match compose.observe().await {
            Ok(observation) => {
                let again = observation.again.unwrap_or(SLOW_POLL).min(SLOW_POLL);
                self.say(observation);
                again
            }
            Err(error) => {
                tracing::debug!(%error, "cannot see to plain networks");
                self.status.update(|status| status.last_error = Some(error.to_string()));
                RETRY
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
