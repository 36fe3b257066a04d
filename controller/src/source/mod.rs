//! Where wishes come from, and where they meet.
//!
//! A source says what should be: [`api`] what callers ask for, others beside it what they observe. All of it goes
//! through [`Desired`], which holds the one model, checks each wish against it and tells the networks concerned. No
//! source touches the kernel, and none knows of another.

pub mod api;

use crate::model::{Change, DesiredState, Model, Name, Network, Rejection, Shared};
use crate::reconcile::{Concern, Receipt, Reconcilers};
use imbl::ordmap::DiffItem;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What should be on this node.
#[derive(Debug)]
pub struct Desired {
    model: Mutex<Model>,
    reconcilers: Reconcilers,
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
}

impl Desired {
    /// Nothing is desired yet.
    #[must_use]
    pub fn new(reconcilers: Reconcilers) -> Self {
        Self { model: Mutex::default(), reconcilers }
    }

    /// What is desired now.
    #[must_use]
    pub fn model(&self) -> Model {
        self.lock().clone()
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
    pub fn change(&self, network: &str, change: &Change) -> Result<Taken, Rejection> {
        let mut model = self.lock();
        let after = model.change(network, change)?;
        let before = std::mem::replace(&mut *model, after.clone());
        let concern = match change {
            Change::PutAttachment { attachment, .. } => {
                Name::new(attachment).map_or(Concern::Table, Concern::Attachment)
            }
            Change::PutNetwork(_)
            | Change::RemoveNetwork { .. }
            | Change::RemoveAttachment { .. }
            | Change::Service { .. } => Concern::Table,
        };
        // The model stays locked, so that the wishes of a network arrive in the order of its states.
        let (earlier, now) = (before.network(network), after.network(network));
        let receipts = earlier.or(now).map(|any| self.tell(any, now, concern));
        Ok(Taken { before, after, receipts: receipts.into_iter().collect() })
    }

    /// Takes a whole desired state as one batch.
    ///
    /// # Errors
    /// All that is wrong with it; then nothing changes.
    pub fn replace(&self, state: &DesiredState) -> Result<Taken, Rejection> {
        let mut model = self.lock();
        let after = model.desired(state)?;
        let before = std::mem::replace(&mut *model, after.clone());
        // The networks that stay as they are get a receipt too: they may not be there yet.
        let mut receipts: Vec<_> =
            after.networks().values().map(|network| self.tell(network, Some(network), Concern::Everything)).collect();
        receipts.extend(before.networks().diff(after.networks()).filter_map(|difference| match difference {
            DiffItem::Remove(_, network) => Some(self.tell(network, None, Concern::Everything)),
            DiffItem::Add(..) | DiffItem::Update { .. } => None,
        }));
        Ok(Taken { before, after, receipts })
    }

    fn tell(&self, any: &Network, now: Option<&Shared<Network>>, concern: Concern) -> (Name, Receipt) {
        let name = any.name().clone();
        let receipt = self.reconcilers.wish(&name, now.cloned(), concern);
        (name, receipt)
    }

    fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
