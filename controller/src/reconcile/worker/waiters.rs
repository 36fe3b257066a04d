//! Those who wait for a network to be as they wish.

use super::Worker;
use crate::model::{Name, Port};
use crate::reconcile::{Concern, Unsettled};
use ringlb_proxy::control::message::Generation;
use std::collections::VecDeque;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(super) struct Waiter {
    pub(super) since: Instant,
    pub(super) generation: Generation,
    pub(super) concern: Concern,
    /// Whether no attempt to make what it waits for was made yet.
    pub(super) fresh: bool,
    pub(super) reply: oneshot::Sender<Result<Generation, Unsettled>>,
}

impl Worker {
    /// Tells those who wait what there is to tell.
    pub(super) fn answer(&mut self) {
        let Some(wish) = &self.wish else { return };
        if let Some(structure) = &self.structure {
            let failed = structure.failed_attachments();
            if !failed.is_empty() {
                fail(&mut self.waiting, &self.name, |waiter| match &waiter.concern {
                    Concern::Table | Concern::Service(_) => None,
                    Concern::Attachment(name) => {
                        failed.get(name).map(|reason| format!("attachment `{name}`: {reason}"))
                    }
                    Concern::Everything => {
                        failed.iter().next().map(|(name, reason)| format!("attachment `{name}`: {reason}"))
                    }
                });
            }
        }
        let failed = self.published.failed();
        if !failed.is_empty() {
            let reason = |port: &Port| failed.get(port).map(|reason| format!("published port {port}: {reason}"));
            fail(&mut self.waiting, &self.name, |waiter| match &waiter.concern {
                Concern::Table | Concern::Attachment(_) => None,
                Concern::Service(name) => {
                    let mut ports = wish.services().get(name)?.published.iter();
                    ports.find_map(|port| reason(&port.published))
                }
                Concern::Everything => failed.keys().next().and_then(reason),
            });
        }
        let settled = if self.meeting.is_some() {
            0
        } else if wish.lb_address().is_none() {
            wish.generation()
        } else if self.published.is_settled() {
            self.acknowledged
        } else {
            0
        };
        let timeout = self.settings.acknowledge_timeout;
        while let Some(waiter) = self.waiting.pop_front() {
            // A caller that has gone away is told all the same: it costs nothing.
            let _ = if waiter.generation <= settled {
                waiter.reply.send(Ok(settled))
            } else if waiter.since.elapsed() >= timeout {
                let (network, last_error) = (self.name.clone(), self.error.clone());
                waiter.reply.send(Err(Unsettled::Late { network, generation: waiter.generation, timeout, last_error }))
            } else {
                self.waiting.push_front(waiter);
                break;
            };
        }
        for waiter in self.waiting.iter_mut().rev().take_while(|waiter| waiter.fresh) {
            waiter.fresh = false;
        }
    }

    pub(super) fn fail_all(&mut self, reason: &str) {
        fail(&mut self.waiting, &self.name, |_| Some(reason.to_owned()));
    }
}

/// Answers those waiters for which there is a reason why what they wait for has failed.
fn fail(waiting: &mut VecDeque<Waiter>, name: &Name, reason: impl Fn(&Waiter) -> Option<String>) {
    let mut kept = VecDeque::with_capacity(waiting.len());
    for waiter in waiting.drain(..) {
        match reason(&waiter).filter(|_| waiter.fresh) {
            Some(reason) => {
                let _ = waiter.reply.send(Err(Unsettled::Failed { network: name.clone(), reason }));
            }
            None => kept.push_back(waiter),
        }
    }
    *waiting = kept;
}
