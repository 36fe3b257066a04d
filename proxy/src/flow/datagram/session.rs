//! What one UDP session does next: events in, operations out.
//!
//! Whoever carries the operations out does so at once, in their order, and reports what they lead to before anything
//! else of this session. A datagram that has just come is *at hand* until then: the operations say what becomes of it.
//!
//! A session is *connecting* when it picks a backend, then *connected*, and after some events connecting again: it moves.
//! Moving loses no session: whoever was at a backend that is gone or refuses is served by another in the same moment.

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The client sent `count` datagrams, which are at hand.
    Received {
        /// How many: more than one if the kernel has put them together.
        count: u32,
    },
    /// There is a socket to a backend.
    Connected,
    /// There cannot be one to that backend: it is not reachable from here.
    ConnectFailed,
    /// There is no backend left to connect to.
    NoBackend,
    /// The backend, or the way to it, has refused what was sent to it (ICMP).
    Refused,
    /// The same, told when the datagrams at hand were to be forwarded: they have not been sent.
    ForwardRefused {
        /// How many were at hand; 1 if it was the copy.
        count: u32,
    },
    /// The backend sent `count` datagrams, which are at hand.
    Replied {
        /// How many.
        count: u32,
    },
    /// The backend has replied to what went past ([`Session::pass`]).
    RepliesPassed,
    /// The backend may not be used any longer: it was removed, or has drained long enough.
    BackendGone,
    /// The session must end.
    End(Ending),
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Nothing came for as long as the service's settings say.
    Idle,
    /// It had as many replies as the service's settings say.
    Answered,
    /// There was no backend, or all that were tried refused.
    NoBackend,
    /// It made room for another one.
    Evicted,
    /// The proxy stops.
    Stopped,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Pick a backend that has not been tried and open a socket to it. → `Connected`, `ConnectFailed`, `NoBackend`
    Connect,
    /// Close the socket to the backend. `failed`: the backend counts as tried and as one that failed.
    Disconnect {
        /// Whether the backend is to blame.
        failed: bool,
    },
    /// Forget which backends were tried.
    ForgetTried,
    /// Send what is at hand to the backend. → nothing, or `ForwardRefused`
    Forward,
    /// Keep a copy of what is at hand.
    Keep,
    /// Send the copy to the backend. → nothing, or `ForwardRefused`
    ForwardKept,
    /// The copy is not needed any more.
    DropKept,
    /// Send what is at hand to the client.
    Deliver,
    /// What is at hand, or if there is nothing the copy, is lost: there is no backend for it.
    Lose,
    /// The session is over. There is no socket to a backend any more.
    Close {
        /// Why.
        ending: Ending,
    },
}

/// The state of one session.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    /// Attempts to find a backend since one was found or replied.
    attempts: u8,
    /// Whether there is a copy of the only datagram that the backend has been sent since it last replied.
    kept: bool,
    /// The replies that the client waits for until the session ends; `None` if replies do not end it.
    expected: Option<u64>,
    /// Replies for each datagram of the client; 0 if replies do not end the session.
    responses: u16,
    /// How many other backends are tried after one that cannot be reached or refuses.
    retries: u8,
    /// Whether datagrams may go between client and backend without an event.
    passes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was sent so far.
    New,
    Connecting {
        carries: Carries,
    },
    Connected {
        /// Whether the backend has been sent anything that it has not replied to.
        waiting: bool,
    },
    Closed,
}

/// What is to be sent as soon as there is a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carries {
    Nothing,
    AtHand { count: u32 },
    Kept,
}

impl Session {
    /// A session that waits for its first datagram. So many other backends are tried when one refuses. It ends when it has had `responses` replies for each datagram of the
    /// client; never by that if it is 0.
    #[must_use]
    pub fn new(retries: u8, responses: u16) -> Self {
        let expected = (responses > 0).then_some(0);
        Self { phase: Phase::New, attempts: 0, kept: false, expected, responses, retries, passes: false }
    }

    /// A session that goes on where another proxy has left it: it has a socket to a backend, and ends after so many more replies
    /// as that one [expected](Self::expected).
    #[must_use]
    pub fn resumed(retries: u8, responses: u16, expected: Option<u64>) -> Self {
        let phase = Phase::Connected { waiting: true };
        // Where there are none left it would have ended; a service that waits for none by now waits for none.
        let expected = if responses > 0 { Some(expected.unwrap_or(0).max(1)) } else { None };
        Self { phase, attempts: 0, kept: false, expected, responses, retries, passes: false }
    }

    /// After how many more replies it ends; `None` if replies do not end it.
    #[must_use]
    pub fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// Whether datagrams may go between client and backend without an event: where replies are counted, each must be seen.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self.phase, Phase::Connected { .. }) && self.expected.is_none()
    }

    /// Datagrams go between client and backend without an event from now on, until [`stay`](Self::stay) or until it moves. There
    /// is no copy any more, and none is kept: nobody would say that it was answered.
    pub fn pass(&mut self) {
        self.passes = true;
        self.kept = false;
    }

    /// Each datagram is an event again.
    pub fn stay(&mut self) {
        self.passes = false;
    }

    /// Takes an event in and adds what is to be done, in this order, to `operations`.
    pub fn on(&mut self, event: Event, operations: &mut Vec<Operation>) {
        match (self.phase, event) {
            (Phase::Closed, _) => {}
            (_, Event::End(ending)) => self.close(ending, operations),
            (Phase::New, Event::Received { count }) => {
                self.expect(count);
                self.connect(Carries::AtHand { count }, operations);
            }
            (Phase::Connecting { carries }, event) => self.while_connecting(carries, event, operations),
            (Phase::Connected { waiting }, event) => self.while_connected(waiting, event, operations),
            (Phase::New, _) => {}
        }
    }

    fn while_connecting(&mut self, carries: Carries, event: Event, operations: &mut Vec<Operation>) {
        match event {
            Event::Connected => {
                self.phase = Phase::Connected { waiting: carries != Carries::Nothing };
                match carries {
                    Carries::Nothing => {}
                    Carries::AtHand { count } => self.forward_first(count, operations),
                    Carries::Kept => operations.push(Operation::ForwardKept),
                }
            }
            Event::ConnectFailed => self.move_on(carries, operations),
            Event::NoBackend => self.give_up(carries, operations),
            _ => {}
        }
    }

    fn while_connected(&mut self, waiting: bool, event: Event, operations: &mut Vec<Operation>) {
        match event {
            Event::Received { count } => {
                self.expect(count);
                self.phase = Phase::Connected { waiting: true };
                if waiting {
                    // Which of several datagrams was refused nobody says, so only one that is alone has a second chance.
                    self.drop_kept(operations);
                    operations.push(Operation::Forward);
                } else {
                    self.forward_first(count, operations);
                }
            }
            Event::Replied { count } => self.replied(count, operations),
            Event::RepliesPassed => self.forget_tried(operations),
            Event::Refused => {
                operations.push(Operation::Disconnect { failed: true });
                self.move_on(if self.kept { Carries::Kept } else { Carries::Nothing }, operations);
            }
            Event::ForwardRefused { count } => {
                operations.push(Operation::Disconnect { failed: true });
                // The kernel tells of a refusal instead of sending: what is at hand, of which there may be a copy, was not
                // sent.
                self.move_on(if self.kept { Carries::Kept } else { Carries::AtHand { count } }, operations);
            }
            Event::BackendGone => {
                operations.push(Operation::Disconnect { failed: false });
                // It may have been answering what it was sent, so that is not sent again.
                self.drop_kept(operations);
                self.attempts = 0;
                operations.push(Operation::ForgetTried);
                self.connect(Carries::Nothing, operations);
            }
            Event::Connected | Event::ConnectFailed | Event::NoBackend | Event::End(_) => {}
        }
    }

    fn replied(&mut self, count: u32, operations: &mut Vec<Operation>) {
        self.forget_tried(operations);
        self.phase = Phase::Connected { waiting: false };
        self.drop_kept(operations);
        operations.push(Operation::Deliver);
        if let Some(expected) = &mut self.expected {
            *expected = expected.saturating_sub(u64::from(count));
            if *expected == 0 {
                self.close(Ending::Answered, operations);
            }
        }
    }

    fn forget_tried(&mut self, operations: &mut Vec<Operation>) {
        if self.attempts > 0 {
            self.attempts = 0;
            operations.push(Operation::ForgetTried);
        }
    }

    fn connect(&mut self, carries: Carries, operations: &mut Vec<Operation>) {
        self.phase = Phase::Connecting { carries };
        self.passes = false;
        self.attempts = self.attempts.saturating_add(1);
        operations.push(Operation::Connect);
    }

    /// Tries another backend, if it was not too many already.
    fn move_on(&mut self, carries: Carries, operations: &mut Vec<Operation>) {
        if self.attempts <= self.retries {
            self.connect(carries, operations);
        } else {
            self.give_up(carries, operations);
        }
    }

    fn give_up(&mut self, carries: Carries, operations: &mut Vec<Operation>) {
        if carries != Carries::Nothing {
            operations.push(Operation::Lose);
        }
        // There is no socket any more, so that closing must not ask for its end.
        self.phase = Phase::New;
        self.close(Ending::NoBackend, operations);
    }

    /// Sends what the backend gets after its last reply, and keeps a copy: if the backend refuses it, another one gets it.
    fn forward_first(&mut self, count: u32, operations: &mut Vec<Operation>) {
        if count == 1 && !self.passes {
            self.kept = true;
            operations.push(Operation::Keep);
        }
        operations.push(Operation::Forward);
    }

    fn expect(&mut self, count: u32) {
        if let Some(expected) = &mut self.expected {
            *expected = expected.saturating_add(u64::from(self.responses) * u64::from(count));
        }
    }

    fn drop_kept(&mut self, operations: &mut Vec<Operation>) {
        if std::mem::take(&mut self.kept) {
            operations.push(Operation::DropKept);
        }
    }

    fn close(&mut self, ending: Ending, operations: &mut Vec<Operation>) {
        if matches!(self.phase, Phase::Connected { .. }) {
            operations.push(Operation::Disconnect { failed: false });
        }
        self.phase = Phase::Closed;
        operations.push(Operation::Close { ending });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(session: &mut Session, event: Event) -> Vec<Operation> {
        let mut operations = Vec::new();
        session.on(event, &mut operations);
        operations
    }

    #[test]
    fn what_passes_leaves_no_copy() {
        let mut session = Session::new(2, 0);
        on(&mut session, Event::Received { count: 1 });
        assert!(!session.may_pass());
        on(&mut session, Event::Connected);
        assert!(session.may_pass());
        session.pass();
        assert_eq!(on(&mut session, Event::RepliesPassed), [Operation::ForgetTried]);
        assert_eq!(on(&mut session, Event::Received { count: 1 }), [Operation::Forward]);
        // It moves, with nothing to be sent again, and keeps copies there.
        let refused = [Operation::Disconnect { failed: true }, Operation::Connect];
        assert_eq!(on(&mut session, Event::Refused), refused);
        on(&mut session, Event::Connected);
        assert_eq!(on(&mut session, Event::Received { count: 1 }), [Operation::Keep, Operation::Forward]);

        on(&mut session, Event::Replied { count: 1 });
        session.pass();
        session.stay();
        assert_eq!(on(&mut session, Event::Received { count: 1 }), [Operation::Keep, Operation::Forward]);
        // Where replies are counted, each must be seen.
        let mut counting = Session::new(2, 2);
        on(&mut counting, Event::Received { count: 1 });
        on(&mut counting, Event::Connected);
        on(&mut counting, Event::Replied { count: 1 });
        assert!(!counting.may_pass());
    }

    #[test]
    fn a_session_goes_on_where_another_proxy_has_left_it() {
        let mut first = Session::new(2, 1);
        on(&mut first, Event::Received { count: 3 });
        on(&mut first, Event::Connected);
        on(&mut first, Event::Replied { count: 1 });
        assert_eq!(first.expected(), Some(2));
        let mut second = Session::resumed(2, 1, first.expected());
        assert_eq!(on(&mut second, Event::Replied { count: 1 }), [Operation::Deliver]);
        assert_eq!(on(&mut second, Event::Received { count: 1 }), [Operation::Keep, Operation::Forward]);
        let last = on(&mut second, Event::Replied { count: 2 });
        let over = [Operation::Disconnect { failed: false }, Operation::Close { ending: Ending::Answered }];
        assert_eq!(last, [&[Operation::DropKept, Operation::Deliver][..], &over].concat());
        // The setting may be another one by now.
        assert_eq!(Session::resumed(2, 0, Some(7)).expected(), None);
        assert_eq!(Session::resumed(2, 1, None).expected(), Some(1));
        let mut moved = Session::resumed(2, 0, None);
        let gone = on(&mut moved, Event::BackendGone);
        assert_eq!(gone, [Operation::Disconnect { failed: false }, Operation::ForgetTried, Operation::Connect]);
    }
}
