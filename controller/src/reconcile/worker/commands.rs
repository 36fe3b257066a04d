//! What a network's task is told.

use super::waiters::Waiter;
use super::{Next, Worker};
use crate::reconcile::{Command, Unsettled};
use tokio::time::Instant;

impl Worker {
    /// Takes a command and all that have come behind it, so that one step serves them all.
    pub(super) async fn take_all(&mut self, first: Command) -> Next {
        match self.take(first).await {
            Next::End => Next::End,
            Next::GoOn => self.take_waiting().await,
        }
    }

    /// Takes all commands that have come.
    pub(super) async fn take_waiting(&mut self) -> Next {
        while let Ok(command) = self.commands.try_recv() {
            if self.take(command).await == Next::End {
                return Next::End;
            }
        }
        Next::GoOn
    }

    async fn take(&mut self, command: Command) -> Next {
        match command {
            Command::Wish { network, concern, reply } => {
                let (since, generation) = (Instant::now(), network.generation());
                self.waiting.push_back(Waiter { since, generation, concern, fresh: true, reply });
                let before = self.wish.as_ref().and_then(|wish| wish.observed_sandbox());
                if before != network.observed_sandbox() {
                    // What failed in the sandbox that was says nothing of the one that is.
                    self.building.succeeded();
                    self.restart.succeeded();
                }
                self.wish = Some(network);
            }
            Command::Remove { reply } => {
                let last = self.wish.as_ref().map_or(0, |wish| wish.generation());
                self.take_down().await;
                // Nobody may care any more.
                let _ = reply.send(Ok(last));
                for waiter in self.waiting.drain(..) {
                    let _ = waiter.reply.send(Err(Unsettled::Removed { network: self.name.clone() }));
                }
                tracing::info!(network = %self.name, "removed the network");
                self.acknowledged = 0;
                if self.reconcilers.forget(&self.name, &self.commands) {
                    return Next::End;
                }
            }
            Command::Status { reply } => {
                let statistics = self.statistics.ask(self.proxy.as_mut());
                let _ = reply.send((self.status(), statistics));
            }
            Command::Upgrade { drain, reply } => self.begin_upgrade(drain, Some(reply)),
            Command::Stop { keep, reply } => {
                if keep {
                    self.give_successor_up("the daemon ends").await;
                } else {
                    self.take_down().await;
                }
                let _ = reply.send(());
                return Next::End;
            }
        }
        Next::GoOn
    }
}
