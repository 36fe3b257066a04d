//! Where the program has what it works with: registers, and its frame in memory.

/// The packet.
pub(super) const CONTEXT: u8 = 6;
/// The leg that the packet is not of.
pub(super) const OTHER: u8 = 7;
/// The connection's record.
pub(super) const RECORD: u8 = 8;
/// The leg that the packet is of.
pub(super) const LEG: u8 = 9;

// What the packet has. Numbers are of the machine's byte order from `SEQUENCE` to `SHAPE`.
/// A hardware address, as a key.
pub(super) const MAC: i16 = -8;
/// The end's address and the proxy's.
pub(super) const KEY_ADDRESSES: i16 = -16;
pub(super) const KEY_PORTS: i16 = -20;
/// 0 if the packet is of the client's leg, 1 if it is of the backend's.
pub(super) const SIDE: i16 = -24;
pub(super) const SEQUENCE: i16 = -28;
pub(super) const ACKNOWLEDGED: i16 = -32;
pub(super) const CLOCK: i16 = -36;
pub(super) const ECHO: i16 = -40;
/// Of its data.
pub(super) const DATA_BYTES: i16 = -44;
pub(super) const FLAGS: i16 = -48;
/// The size of the TCP header if it is one of those that the program understands, or [`ODD`].
pub(super) const SHAPE: i16 = -52;
/// The port of the other end, or 0.
pub(super) const NEXT_HOP: i16 = -56;
/// What the program adds to the blocks of selective acknowledgements.
pub(super) const BLOCK_SHIFT: i16 = -60;
/// 1 if the packet is from the proxy's socket, 0 if it is from the end.
pub(super) const FROM_SOCKET: i16 = -64;

/// The words of a TCP header that the program changes, in network byte order: ports, sequence number, acknowledgement, timestamp
/// and its echo, and what has the window. As they are, and as they will be.
pub(super) const WORDS: i16 = 6;
pub(super) const BEFORE: i16 = -88;
pub(super) const AFTER: i16 = -112;
/// Source and destination, as they are and as they will be.
pub(super) const ADDRESSES_BEFORE: i16 = -120;
pub(super) const ADDRESSES_AFTER: i16 = -128;
/// What the packet that the socket gets instead has, for its checksum: the pseudo header, and the TCP header.
pub(super) const SOCKETS_HEADER: i16 = -176;
/// What is put back into the packet after that.
pub(super) const KEPT: i16 = -192;
/// The blocks of selective acknowledgements, as they are and as they will be.
pub(super) const BLOCKS_BEFORE: i16 = -216;
pub(super) const BLOCKS_AFTER: i16 = -240;
/// 1 if the connection begins to pass with this packet.
pub(super) const BEGINS: i16 = -244;
/// 1 if the packet goes back to the proxy's socket that has sent it.
pub(super) const ANSWERS: i16 = -256;
/// What the packet that the proxy's socket gets then has, in network byte order.
pub(super) const SOCKETS_SEQUENCE: i16 = -248;
pub(super) const SOCKETS_ACKNOWLEDGED: i16 = -252;

/// A header without options.
pub(super) const PLAIN: i32 = 20;
/// A header with timestamps and nothing else, two bytes of padding before.
pub(super) const WITH_CLOCK: i32 = 32;
/// What [`SHAPE`] is for other ones.
pub(super) const ODD: i32 = 0;

// Offsets in a frame with such a header.
pub(super) const TOTAL_LENGTH: i16 = 16;
pub(super) const TCP_SEQUENCE: i16 = 38;
pub(super) const TCP_ACKNOWLEDGED: i16 = 42;
pub(super) const TCP_LENGTH: i16 = 46;
/// Two bytes later than the length and the flags, with which it makes a word.
pub(super) const TCP_WINDOW: i16 = 48;
pub(super) const TCP_FLAGS: i16 = 47;
pub(super) const TCP_CHECKSUM: i16 = 50;
pub(super) const TCP_OPTIONS: i16 = 54;
pub(super) const TCP_CLOCK: i16 = 58;
pub(super) const TCP_ECHO: i16 = 62;
pub(super) const TCP_BLOCKS: i16 = 66;

pub(super) const TCP: i32 = 6;
pub(super) const FIN: i32 = 1;
pub(super) const SYN: i32 = 2;
pub(super) const RST: i32 = 4;
pub(super) const PSH: i32 = 8;
pub(super) const ACK: i32 = 16;
pub(super) const URG: i32 = 32;

/// In the value that has the sandbox's hardware address: its port.
pub(super) const SANDBOX_PORT: i16 = 8;
