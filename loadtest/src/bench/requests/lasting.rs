//! A client whose connections stay open.

use super::connection::{Connection, Progress};
use super::poll::Poll;
use super::{Failures, LOST_AFTER, Order, Outcome, REVIEW, no_answer};
use crate::instruments::statistics::Times;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use ringlb_load::units::to_float;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// Requests at a fixed rate are due together at multiples of this. A timer for each would take more of the processor than the
/// requests, in a virtual machine most of all, and what it took would be seen as a balancer's latency.
const TICK: Duration = Duration::from_micros(200);

/// Carries an order out with so many connections.
///
/// # Errors
/// If a connection cannot be made at the start.
pub(super) fn run(order: &Order, connections: usize) -> io::Result<Outcome> {
    Client::open(order, connections)?.run()
}

struct Client<'a> {
    order: &'a Order,
    poll: Poll,
    timer: TimerFd,
    /// Those that broke and could not be made anew are missing.
    connections: Vec<Option<Connection>>,
    /// Connections without a request.
    free: VecDeque<usize>,
    /// When requests were due that wait for one.
    waiting: VecDeque<Instant>,
    /// Requests that have been due.
    begun: u64,
    started: Instant,
    reviewed: Instant,
    failures: Failures,
    times: Times,
}

impl<'a> Client<'a> {
    fn open(order: &'a Order, connections: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        poll.add_timer(&timer, connections)?;
        let open = |index| {
            let connection = Connection::open(order.targets[index % order.targets.len()], index)?;
            poll.add(&connection.stream, index)?;
            Ok(Some(connection))
        };
        let free = (0..connections).collect();
        let connections = (0..connections).map(open).collect::<io::Result<_>>()?;
        let started = Instant::now();
        Ok(Self {
            order,
            poll,
            timer,
            connections,
            free,
            waiting: VecDeque::new(),
            begun: 0,
            started,
            reviewed: started,
            failures: Failures::default(),
            times: Times::default(),
        })
    }

    fn run(mut self) -> io::Result<Outcome> {
        loop {
            let now = Instant::now();
            let over = now - self.started >= self.order.duration;
            if over && self.free.len() >= self.connections.iter().flatten().count() {
                break;
            }
            if over {
                self.waiting.clear();
            } else {
                self.begin(now)?;
            }
            if now - self.reviewed >= REVIEW {
                self.reviewed = now;
                self.give_up(now);
            }
            for event in 0..self.poll.wait(Some(REVIEW))? {
                let index = self.poll.number(event);
                if index < self.connections.len() {
                    self.take(index, over);
                }
            }
        }
        Ok(Outcome {
            failures: self.failures.count,
            failure: self.failures.first,
            elapsed: self.started.elapsed(),
            times: self.times,
        })
    }

    /// Begins the requests that are due.
    fn begin(&mut self, now: Instant) -> io::Result<()> {
        let Some(rate) = self.order.rate else {
            while let Some(index) = self.free.pop_front() {
                self.ask(index, now);
            }
            return Ok(());
        };
        loop {
            let due = self.started + due_at(self.begun, rate);
            if due > now {
                let left = Expiration::OneShot(TimeSpec::from_duration(due - now));
                self.timer.set(left, TimerSetTimeFlags::empty())?;
                break;
            }
            self.begun += 1;
            self.waiting.push_back(due);
        }
        self.serve_waiting();
        Ok(())
    }

    fn serve_waiting(&mut self) {
        while !self.free.is_empty()
            && let Some(due) = self.waiting.pop_front()
            && let Some(index) = self.free.pop_front()
        {
            self.ask(index, due);
        }
    }

    fn ask(&mut self, index: usize, due: Instant) {
        let Some(connection) = &mut self.connections[index] else { return };
        if let Err(error) = connection.ask(due) {
            self.fail(index, &error);
        }
    }

    /// Takes what has come on a connection, and begins the next request as soon as one is answered.
    fn take(&mut self, index: usize, over: bool) {
        let Some(connection) = &mut self.connections[index] else { return };
        match connection.take() {
            Ok(Progress::Partial) => {}
            Ok(Progress::Whole(due)) => {
                let now = Instant::now();
                self.times.push(now - due);
                match self.order.rate {
                    None if !over => self.ask(index, now),
                    _ => self.free.push_back(index),
                }
                self.serve_waiting();
            }
            Err(error) => self.fail(index, &error),
        }
    }

    fn give_up(&mut self, now: Instant) {
        let is_lost = |connection: &Connection| connection.due().is_some_and(|due| now - due > LOST_AFTER);
        let lost: Vec<_> = (0..self.connections.len())
            .filter(|&index| self.connections[index].as_ref().is_some_and(is_lost))
            .collect();
        for index in lost {
            self.fail(index, &no_answer());
        }
    }

    /// Counts a failed request and replaces its connection.
    fn fail(&mut self, index: usize, error: &io::Error) {
        self.failures.note(error);
        // Closed before the new one is made. Without a request it still counts as free.
        let is_free = self.connections[index].take().is_some_and(|connection| connection.due().is_none());
        let opened = Connection::open(self.order.targets[index % self.order.targets.len()], index);
        if let Ok(connection) = opened
            && self.poll.add(&connection.stream, index).is_ok()
        {
            self.connections[index] = Some(connection);
            if !is_free {
                self.free.push_back(index);
            }
        }
    }
}

/// When a request is due at that rate a second, after so many others.
fn due_at(others: u64, rate: f64) -> Duration {
    let exact = Duration::from_secs_f64(to_float(others) / rate);
    TICK * u32::try_from(exact.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_their_rate_and_at_ticks() {
        for rate in [1.0, 999.9, 36_275.0, 1e6] {
            let mut last = Duration::ZERO;
            for others in (0..200_000).step_by(997) {
                let due = due_at(others, rate);
                let exact = Duration::from_secs_f64(to_float(others) / rate);
                assert!(due >= exact && due - exact < TICK, "request {others} at {rate}/s is due at {due:?}");
                assert!(due >= last && due.as_nanos().is_multiple_of(TICK.as_nanos()));
                last = due;
            }
        }
    }
}
