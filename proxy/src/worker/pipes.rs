//! The pipes for splicing: those in use, and those at hand.

use crate::ring::Pipe;
use crate::shared::Budget;
use std::time::Instant;

/// The most pipes at hand for the next direction that turns out to be bulk.
const MOST_KEPT: usize = 16;

/// A pipe in use by one direction of a connection.
#[derive(Debug)]
pub(super) struct LeasedPipe {
    pub(super) pipe: Pipe,
    /// When bytes last moved.
    pub(super) moved_at: Instant,
}

/// The pipes of a data thread. How many there may be is for all threads together: every open pipe counts.
#[derive(Debug)]
pub(super) struct Pipes {
    kept: Vec<Pipe>,
    most_kept: usize,
    leased: usize,
}

impl Pipes {
    /// What so many threads keep at hand is at most half of all pipes, so that the other half is for whoever needs it.
    pub(super) fn new(budget: &Budget, threads: usize) -> Self {
        let share = budget.most() / 2 / threads.max(1);
        Self { kept: Vec::new(), most_kept: share.min(MOST_KEPT), leased: 0 }
    }

    /// Whether any pipe is in use.
    pub(super) fn are_leased(&self) -> bool {
        self.leased > 0
    }

    /// An empty pipe; `None` if there are too many or the kernel gives none.
    pub(super) fn lease(&mut self, budget: &Budget, now: Instant) -> Option<Box<LeasedPipe>> {
        let pipe = self.kept.pop().or_else(|| open(budget))?;
        self.leased += 1;
        Some(Box::new(LeasedPipe { pipe, moved_at: now }))
    }

    /// Takes a pipe back. One that still holds bytes is closed.
    pub(super) fn give_back(&mut self, budget: &Budget, leased: LeasedPipe) {
        self.leased -= 1;
        if leased.pipe.is_empty() && self.kept.len() < self.most_kept {
            self.kept.push(leased.pipe);
        } else {
            // Its descriptors first: whoever takes its place needs them.
            drop(leased);
            budget.give_back();
        }
    }
}

fn open(budget: &Budget) -> Option<Pipe> {
    if !budget.take() {
        return None;
    }
    let pipe = Pipe::open();
    if pipe.is_none() {
        budget.give_back();
    }
    pipe
}
