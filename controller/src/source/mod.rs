//! Where wishes come from, and where they meet.
//!
//! A source says what should be: [`api`] what callers ask for, others beside it what they observe. All of it goes
//! through [`Desired`], which holds the one model, checks each wish against it and tells the networks concerned. No
//! source touches the kernel, and none knows of another.

pub mod api;
pub mod docker;
mod journal;
pub mod status;

pub use journal::{DiskError, Durable, Journal, JournalError};

use crate::model::{
    Change, DesiredState, Generation, Model, Name, Network, ObservedNetwork, Rejection, ServiceChange, Shared,
};
use crate::reconcile::{Concern, Meeting, Receipt, Reconcilers};
use imbl::ordmap::DiffItem;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::time::timeout;

/// How long what an earlier daemon has left behind is waited for, where nobody wishes for it any more.
const LEFTOVERS_PATIENCE: Duration = Duration::from_secs(1);

/// What should be on this node.
#[derive(Debug)]
pub struct Desired {
    inner: Mutex<Inner>,
    reconcilers: Reconcilers,
}

#[derive(Debug, Default)]
struct Inner {
    model: Model,
    journal: Option<Journal>,
    /// The sources that have not observed anything yet, while that is waited for.
    awaited: Option<HashSet<&'static str>>,
}

/// Why a wish is not taken. Nothing changes then.
#[derive(Debug, Error)]
pub enum WishError {
    /// It is not valid.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It cannot be kept for the next daemon.
    #[error("the change cannot be kept, so it is not made: {0}")]
    Journal(#[from] JournalError),
}

/// A wish that was taken.
#[derive(Debug)]
pub struct Taken {
    /// The model before it.
    pub before: Model,
    /// The model with it.
    pub after: Model,
    /// One receipt for each network concerned.
    pub receipts: Vec<(Name, Receipt)>,
    /// Says when it is kept for the next daemon, whatever happens; none if nothing is kept.
    pub durable: Option<Durable>,
}

/// What became of an observation.
#[derive(Debug, Default)]
pub struct Observed {
    /// The networks of which not everything was taken, and why: the network as a whole, or one published port.
    pub refused: Vec<(Name, Rejection)>,
    /// One receipt for each network in which something changed.
    pub receipts: Vec<(Name, Receipt)>,
}

impl Desired {
    /// Nothing is desired yet, and nothing is kept.
    #[must_use]
    pub fn new(reconcilers: Reconcilers) -> Self {
        Self { inner: Mutex::default(), reconcilers }
    }

    /// What was kept is desired, and what will be is kept.
    #[must_use]
    pub fn kept(reconcilers: Reconcilers, journal: Journal, model: Model) -> Self {
        let inner = Inner { model, journal: Some(journal), ..Inner::default() };
        let desired = Self { inner: Mutex::new(inner), reconcilers };
        for network in desired.model().networks().values() {
            // Nobody waits for it; what goes wrong is logged and shown by the status.
            drop(desired.tell(network, Some(network), Concern::Table));
        }
        desired
    }

    /// Meets the proxies that an earlier daemon has left behind, each network's by themselves, and has their networks go on after
    /// the tables that they have.
    pub fn meet(self: &Arc<Self>, meetings: Vec<Meeting>) {
        for meeting in meetings {
            let desired = Arc::clone(self);
            tokio::spawn(async move {
                let found = meeting.meet().await;
                desired.go_on_after(found.network(), found.generation());
                found.hand_over();
            });
        }
    }

    fn go_on_after(&self, network: &Name, generation: Generation) {
        // None of them has had a table.
        if generation == 0 {
            return;
        }
        let mut inner = self.lock();
        inner.model = std::mem::take(&mut inner.model).going_on_after([(network.clone(), generation)]);
        if let Some(network) = inner.model.network(network) {
            // Nobody waits for it.
            drop(self.tell(network, Some(network), Concern::Table));
        }
    }

    /// Says that these sources are all that there are beside the API. Once each of them has observed for the first time,
    /// nobody wishes any more for what an earlier daemon has left behind and no task has taken over: it is ended and
    /// removed. Returns when that is done, if there is no source to wait for, but does not wait for what is stuck.
    pub async fn await_sources(&self, sources: impl IntoIterator<Item = &'static str>) {
        let sources: HashSet<_> = sources.into_iter().collect();
        if !sources.is_empty() {
            self.lock().awaited = Some(sources);
            return;
        }
        if timeout(LEFTOVERS_PATIENCE, self.reconcilers.end_leftovers()).await.is_err() {
            tracing::warn!("what an earlier daemon has left behind is not ended yet");
        }
    }

    /// What is desired now.
    #[must_use]
    pub fn model(&self) -> Model {
        self.lock().model.clone()
    }

    /// The tasks that see to it.
    #[must_use]
    pub fn reconcilers(&self) -> &Reconcilers {
        &self.reconcilers
    }

    /// Takes a change of one network.
    ///
    /// # Errors
    /// What is wrong with it; then nothing changes.
    pub fn change(&self, network: &str, change: &Change) -> Result<Taken, WishError> {
        let mut inner = self.lock();
        let after = inner.model.change(network, change)?;
        let before = inner.take(&after, |journal| journal.change(network, change))?;
        let concern = match change {
            Change::PutAttachment { attachment, .. } => {
                Name::new(attachment).map_or(Concern::Table, Concern::Attachment)
            }
            Change::Service { service, change: ServiceChange::Put(_) } => {
                Name::new(service).map_or(Concern::Table, Concern::Service)
            }
            Change::PutNetwork(_)
            | Change::RemoveNetwork { .. }
            | Change::RemoveAttachment { .. }
            | Change::Service { .. } => Concern::Table,
        };
        // The model stays locked, so that the wishes of a network arrive in the order of its states.
        let (earlier, now) = (before.network(network), after.network(network));
        let receipts = earlier.or(now).map(|any| self.tell(any, now, concern)).into_iter().collect();
        let durable = inner.journal.as_ref().map(Journal::durable);
        Ok(Taken { before, after, receipts, durable })
    }

    /// Takes a whole desired state as one batch.
    ///
    /// # Errors
    /// All that is wrong with it; then nothing changes.
    pub fn replace(&self, state: &DesiredState) -> Result<Taken, WishError> {
        let mut inner = self.lock();
        let after = inner.model.desired(state)?;
        let before = inner.take(&after, |journal| journal.state(state))?;
        // The networks that stay as they are get a receipt too: they may not be there yet.
        let made = after.networks().values().filter(|network| network.source().is_none());
        let mut receipts: Vec<_> = made.map(|network| self.tell(network, Some(network), Concern::Everything)).collect();
        receipts.extend(before.networks().diff(after.networks()).filter_map(|difference| match difference {
            DiffItem::Remove(_, network) => Some(self.tell(network, None, Concern::Everything)),
            DiffItem::Add(..) | DiffItem::Update { .. } => None,
        }));
        let durable = inner.journal.as_ref().map(Journal::durable);
        Ok(Taken { before, after, receipts, durable })
    }

    /// Takes all that a source observes, as one batch. What is not among it any more is removed; networks in which nothing
    /// differs are left alone.
    ///
    /// Gives for each network what of it cannot be taken, if something cannot; the rest is. Of a network that cannot be
    /// taken the earlier state stays.
    pub fn observe(&self, source: &'static str, networks: Vec<ObservedNetwork>) -> Observed {
        let mut inner = self.lock();
        let (after, refused) = inner.model.observe(source, networks);
        let before = std::mem::replace(&mut inner.model, after);
        // The model stays locked, so that the wishes of a network arrive in the order of its states.
        let receipts = before.networks().diff(inner.model.networks()).map(|difference| match difference {
            DiffItem::Add(_, network) | DiffItem::Update { new: (_, network), .. } => {
                self.tell(network, Some(network), Concern::Everything)
            }
            DiffItem::Remove(_, network) => self.tell(network, None, Concern::Everything),
        });
        let receipts = receipts.collect();
        if let Some(awaited) = &mut inner.awaited {
            awaited.remove(source);
            if awaited.is_empty() {
                inner.awaited = None;
                // Nobody waits for it; what goes wrong is logged.
                drop(self.reconcilers.end_leftovers());
            }
        }
        Observed { refused, receipts }
    }

    fn tell(&self, any: &Network, now: Option<&Shared<Network>>, concern: Concern) -> (Name, Receipt) {
        let name = any.name().clone();
        let receipt = self.reconcilers.wish(&name, now.cloned(), concern);
        (name, receipt)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Makes `after` the model once `write` has written down what led to it; gives the model before.
    fn take(
        &mut self,
        after: &Model,
        write: impl FnOnce(&mut Journal) -> Result<(), JournalError>,
    ) -> Result<Model, JournalError> {
        if let Some(journal) = &mut self.journal
            && self.model.networks().diff(after.networks()).next().is_some()
        {
            journal.mend(&self.model)?;
            write(journal)?;
            journal.shorten(after);
        }
        Ok(std::mem::replace(&mut self.model, after.clone()))
    }
}
