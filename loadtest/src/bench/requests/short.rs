//! A client that makes a connection for each request.

use super::connection::{Connection, Progress};
use super::poll::Poll;
use super::{Failures, LOST_AFTER, Order, Outcome, REVIEW, no_answer};
use crate::instruments::statistics::Times;
use std::io;
use std::time::Instant;

/// Carries an order out with so many connections at a time.
pub(super) fn run(order: &Order, connections: usize) -> io::Result<Outcome> {
    let started = Instant::now();
    let places = (0..connections).map(|_| None).collect();
    let free = (0..connections).collect();
    let (failures, times) = (Failures::default(), Times::default());
    Client { order, poll: Poll::new()?, places, free, begun: 0, started, reviewed: started, failures, times }.run()
}

struct Client<'a> {
    order: &'a Order,
    poll: Poll,
    places: Vec<Option<Short>>,
    /// Places without a connection.
    free: Vec<usize>,
    /// Connections that have been begun.
    begun: u64,
    started: Instant,
    reviewed: Instant,
    failures: Failures,
    times: Times,
}

/// A connection for one request.
struct Short {
    connection: Connection,
    begun: Instant,
    /// Whether it has been there, so that the request was sent.
    asked: bool,
}

impl Client<'_> {
    fn run(mut self) -> io::Result<Outcome> {
        loop {
            let now = Instant::now();
            if now - self.started < self.order.duration {
                // Those that cannot even be begun have their next chance after the next events.
                for place in std::mem::take(&mut self.free) {
                    self.begin(place, now);
                }
            } else if self.free.len() == self.places.len() {
                break;
            }
            if now - self.reviewed >= REVIEW {
                self.reviewed = now;
                self.give_up(now);
            }
            for event in 0..self.poll.wait(Some(REVIEW))? {
                self.go_on(self.poll.number(event));
            }
        }
        Ok(Outcome {
            failures: self.failures.count,
            failure: self.failures.first,
            elapsed: self.started.elapsed(),
            times: self.times,
        })
    }

    fn begin(&mut self, place: usize, now: Instant) {
        let target = self.order.targets[place % self.order.targets.len()];
        let connection = Connection::begin(target, self.begun).and_then(|connection| {
            self.poll.add_beginning(&connection.stream, place)?;
            Ok(connection)
        });
        self.begun += 1;
        match connection {
            Ok(connection) => self.places[place] = Some(Short { connection, begun: now, asked: false }),
            Err(error) => self.fail(place, &error),
        }
    }

    /// Sends the request or takes what has come of its answer, and closes the connection with that.
    fn go_on(&mut self, place: usize) {
        let Some(Some(short)) = self.places.get_mut(place) else { return };
        let progress = if short.asked {
            short.connection.take()
        } else {
            short.asked = true;
            short.connection.ask(short.begun).map(|()| Progress::Partial)
        };
        match progress {
            Ok(Progress::Partial) => {}
            Ok(Progress::Whole(begun)) => {
                self.end(place);
                self.times.push(begun.elapsed());
            }
            Err(error) => self.fail(place, &error),
        }
    }

    fn give_up(&mut self, now: Instant) {
        for place in 0..self.places.len() {
            if self.places[place].as_ref().is_some_and(|short| now - short.begun > LOST_AFTER) {
                self.fail(place, &no_answer());
            }
        }
    }

    fn fail(&mut self, place: usize, error: &io::Error) {
        self.failures.note(error);
        self.end(place);
    }

    fn end(&mut self, place: usize) {
        self.places[place] = None;
        self.free.push(place);
    }
}
