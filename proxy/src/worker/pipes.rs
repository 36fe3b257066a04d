//! The pipes for splicing: how many there may be, and those at hand.

use crate::ring::Pipe;
use std::time::Instant;

/// Pipes at hand for the next direction that turns out to be bulk.
const KEPT: usize = 16;

/// A pipe in use by one direction of a connection.
#[derive(Debug)]
pub(super) struct LeasedPipe {
    pub(super) pipe: Pipe,
    /// When bytes last moved.
    pub(super) moved_at: Instant,
}

/// All pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    kept: Vec<Pipe>,
    leased: usize,
    most: usize,
}

impl Pipes {
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Vec::new(), leased: 0, most }
    }

    /// Whether any pipe is in use.
    pub(super) fn are_leased(&self) -> bool {
        self.leased > 0
    }

    /// An empty pipe; `None` if there are too many or the kernel gives none.
    pub(super) fn lease(&mut self, now: Instant) -> Option<Box<LeasedPipe>> {
        if self.leased >= self.most {
            return None;
        }
        let pipe = self.kept.pop().or_else(Pipe::open)?;
        self.leased += 1;
        Some(Box::new(LeasedPipe { pipe, moved_at: now }))
    }

    /// Takes a pipe back. One that still holds bytes is closed.
    pub(super) fn give_back(&mut self, leased: LeasedPipe) {
        self.leased -= 1;
        if leased.pipe.is_empty() && self.kept.len() < KEPT {
            self.kept.push(leased.pipe);
        }
    }
}
