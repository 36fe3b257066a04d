//! What a completion belongs to, as the 64 bits that travel through the kernel.

pub use crate::flow::{GENERATION_MASK, Slot};

use crate::flow::Side;

/// Names an operation: its kind, and for those of a connection or a session the slot and the slot's generation. A completion that
/// comes late finds another generation in its slot and is dropped instead of being taken for the next connection's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// An accept operation of a listener.
    Accept {
        /// The listener's place in the worker's list.
        listener: u32,
    },
    /// The receive of a steered UDP socket.
    Datagrams {
        /// The socket's place in the worker's list.
        socket: u32,
    },
    /// The receive of a UDP session's socket.
    Session {
        /// Which session.
        slot: Slot,
    },
    /// The read of the wake-up descriptor.
    Wake,
    /// A cancellation; what was cancelled reports itself.
    Cancel,
    /// An operation of a connection.
    Connection {
        /// Which operation.
        kind: Kind,
        /// Which connection.
        slot: Slot,
    },
}

/// The operations of a connection. At most one of each is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Connecting to the backend.
    Connect,
    /// Receiving into shared buffers.
    Receive(Side),
    /// Receiving into a private buffer.
    ReceivePrivate(Side),
    /// Sending to that side.
    Send(Side),
    /// Waiting, in the direction from that side.
    Await(Side),
}

const KINDS: [Kind; 9] = [
    Kind::Connect,
    Kind::Receive(Side::Client),
    Kind::Receive(Side::Backend),
    Kind::ReceivePrivate(Side::Client),
    Kind::ReceivePrivate(Side::Backend),
    Kind::Send(Side::Client),
    Kind::Send(Side::Backend),
    Kind::Await(Side::Client),
    Kind::Await(Side::Backend),
];
const ACCEPT: u64 = 0xff;
const WAKE: u64 = 0xfe;
const CANCEL: u64 = 0xfd;
const DATAGRAMS: u64 = 0xfc;
const SESSION: u64 = 0xfb;

impl Token {
    /// The 64 bits: kind (8), generation (24), index (32).
    #[must_use]
    pub fn encode(self) -> u64 {
        match self {
            Self::Accept { listener } => (ACCEPT << 56) | u64::from(listener),
            Self::Datagrams { socket } => (DATAGRAMS << 56) | u64::from(socket),
            Self::Session { slot } => at_slot(SESSION, slot),
            Self::Wake => WAKE << 56,
            Self::Cancel => CANCEL << 56,
            Self::Connection { kind, slot } => at_slot(u64::from(kind.number()), slot),
        }
    }

    /// The token that was encoded so; `None` for bits that no token has.
    #[must_use]
    pub fn decode(bits: u64) -> Option<Self> {
        let index = u32::try_from(bits & 0xffff_ffff).ok()?;
        let slot = Slot { index, generation: u32::try_from(bits >> 32).ok()? & GENERATION_MASK };
        match bits >> 56 {
            ACCEPT => Some(Self::Accept { listener: index }),
            WAKE => Some(Self::Wake),
            CANCEL => Some(Self::Cancel),
            DATAGRAMS => Some(Self::Datagrams { socket: index }),
            SESSION => Some(Self::Session { slot }),
            number => {
                let kind = *KINDS.get(usize::try_from(number).ok()?)?;
                Some(Self::Connection { kind, slot })
            }
        }
    }
}

fn at_slot(kind: u64, slot: Slot) -> u64 {
    (kind << 56) | (u64::from(slot.generation & GENERATION_MASK) << 32) | u64::from(slot.index)
}

impl Kind {
    fn number(self) -> u8 {
        let receive = |side: Side, first: u8| if side == Side::Client { first } else { first + 1 };
        match self {
            Self::Connect => 0,
            Self::Receive(side) => receive(side, 1),
            Self::ReceivePrivate(side) => receive(side, 3),
            Self::Send(side) => receive(side, 5),
            Self::Await(side) => receive(side, 7),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        let slots = [(0, 0), (7, 1), (u32::MAX, GENERATION_MASK)].map(|(index, generation)| Slot { index, generation });
        let connections =
            KINDS.into_iter().flat_map(|kind| slots.into_iter().map(move |slot| Token::Connection { kind, slot }));
        let listeners = [0, 1, u32::MAX].map(|listener| Token::Accept { listener });
        let sockets = [0, 1, u32::MAX].map(|socket| Token::Datagrams { socket });
        let sessions = slots.map(|slot| Token::Session { slot });
        let others = listeners.into_iter().chain(sockets).chain(sessions).chain([Token::Wake, Token::Cancel]);
        let mut seen = std::collections::HashSet::new();
        for token in connections.chain(others) {
            assert!(seen.insert(token.encode()), "{token:?} is not unique");
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(0x20 << 56), None);
    }
}
