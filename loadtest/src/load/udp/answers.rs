//! Which of a client's datagrams were answered.

use std::collections::VecDeque;

/// Answers to so many of the last datagrams are told apart exactly: a multiple of 64. What is older is over.
const WINDOW: u64 = 1 << 18;
/// Settled datagrams that are remembered at least, so that another answer to them is known as a duplicate.
const REMEMBERED: u64 = 1 << 12;
const BITS: u64 = 64;

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first to a datagram that was waited for.
    Expected,
    /// The first to a datagram that had been given up; or any to one that is too old to tell.
    Late,
    /// One more.
    Duplicate,
    /// To a datagram that was never sent.
    Impossible,
}

/// The datagrams of a client, by sequence number.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The first datagram in `words`, a multiple of [`BITS`].
    first: u64,
    /// The next to be sent.
    next: u64,
    words: VecDeque<Word>,
    waiting: u64,
    /// One more than the highest answered.
    highest: u64,
}

/// 64 datagrams, one bit each.
#[derive(Debug, Clone, Copy, Default)]
struct Word {
    answered: u64,
    given_up: u64,
}

impl Word {
    const fn settled(self) -> u64 {
        self.answered | self.given_up
    }
}

impl Answers {
    /// The number of the next datagram.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Datagrams that were sent and neither answered nor given up.
    pub(super) const fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The next datagram was sent. Returns how many old ones are given up for it.
    pub(super) fn sent(&mut self) -> u64 {
        if self.next.is_multiple_of(BITS) {
            self.words.push_back(Word::default());
        }
        self.next += 1;
        self.waiting += 1;
        self.forget()
    }

    /// Gives up a datagram.
    pub(super) fn give_up(&mut self, sequence: u64) {
        if let Some((word, bit)) = self.find(sequence)
            && word.settled() & bit == 0
        {
            word.given_up |= bit;
            self.waiting -= 1;
        }
    }

    /// An answer came. Returns what it is, and whether one to a later datagram had come before it (RFC 4737).
    pub(super) fn answered(&mut self, sequence: u64) -> (Kind, bool) {
        let kind = self.settle(sequence);
        let first = matches!(kind, Kind::Expected | Kind::Late);
        let reordered = first && sequence < self.highest;
        if first {
            self.highest = self.highest.max(sequence + 1);
        }
        (kind, reordered)
    }

    fn settle(&mut self, sequence: u64) -> Kind {
        if sequence >= self.next {
            return Kind::Impossible;
        }
        // Too old to be told from a duplicate.
        let Some((word, bit)) = self.find(sequence) else { return Kind::Late };
        if word.answered & bit != 0 {
            return Kind::Duplicate;
        }
        let given_up = word.given_up & bit != 0;
        word.answered |= bit;
        if given_up {
            return Kind::Late;
        }
        self.waiting -= 1;
        Kind::Expected
    }

    fn find(&mut self, sequence: u64) -> Option<(&mut Word, u64)> {
        let index = usize::try_from(sequence.checked_sub(self.first)? / BITS).ok()?;
        Some((self.words.get_mut(index)?, 1 << (sequence % BITS)))
    }

    /// Drops what is over, and what is settled and not recent.
    fn forget(&mut self) -> u64 {
        let mut given_up = 0;
        while let Some(word) = self.words.front() {
            let open = u64::from((!word.settled()).count_ones());
            let age = self.next - self.first;
            if age <= WINDOW && (open > 0 || age <= REMEMBERED) {
                break;
            }
            given_up += open;
            self.waiting -= open;
            self.first += BITS;
            self.words.pop_front();
        }
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(count: u64) -> Answers {
        let mut answers = Answers::default();
        for _ in 0..count {
            assert_eq!(answers.sent(), 0);
        }
        answers
    }

    #[test]
    fn answers_in_order_are_expected() {
        let mut answers = sent(200);
        for sequence in 0..200 {
            assert_eq!(answers.answered(sequence), (Kind::Expected, false));
        }
        assert_eq!(answers.waiting(), 0);
    }

    #[test]
    fn the_rest_is_told_apart() {
        let mut answers = sent(4);
        assert_eq!(answers.answered(4), (Kind::Impossible, false));
        assert_eq!(answers.answered(2), (Kind::Expected, false));
        assert_eq!(answers.answered(2), (Kind::Duplicate, false));
        assert_eq!(answers.answered(1), (Kind::Expected, true));
        answers.give_up(0);
        answers.give_up(0);
        answers.give_up(1);
        assert_eq!(answers.waiting(), 1);
        assert_eq!(answers.answered(0), (Kind::Late, true));
        assert_eq!(answers.answered(0), (Kind::Duplicate, false));
        answers.give_up(3);
        assert_eq!(answers.waiting(), 0);
        assert_eq!(answers.answered(3), (Kind::Late, false));
        assert_eq!(answers.answered(3), (Kind::Duplicate, false));
    }

    #[test]
    fn memory_is_bounded_and_what_is_over_is_given_up_once() {
        let mut answers = Answers::default();
        let mut given_up = 0;
        for _ in 0..WINDOW + 10 * BITS {
            given_up += answers.sent();
        }
        assert!(answers.words.len() as u64 <= WINDOW / BITS);
        assert_eq!(given_up + answers.waiting(), answers.next());
        assert!(given_up > 0);
        assert_eq!(answers.answered(0), (Kind::Late, false));
        assert_eq!(answers.answered(given_up), (Kind::Expected, false));
    }

    #[test]
    fn a_long_run_without_losses_remembers_little() {
        let mut answers = Answers::default();
        for sequence in 0..100_000 {
            assert_eq!(answers.sent(), 0);
            assert_eq!(answers.answered(sequence), (Kind::Expected, false));
        }
        assert!(answers.words.len() as u64 <= REMEMBERED / BITS + 1);
        assert_eq!(answers.answered(99_000), (Kind::Duplicate, false));
    }
}
