//! Naming a connection or a session, so that what comes late is not taken for what came later.

/// A place in a data thread's list of connections, or in that of its UDP sessions, at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The place.
    pub index: u32,
    /// How often the place has been used before, modulo 2^24.
    pub generation: u32,
}

/// The generations that there are: as many as fit into the token of an operation.
pub const GENERATION_MASK: u32 = 0x00ff_ffff;
