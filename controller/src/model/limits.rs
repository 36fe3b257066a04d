//! What one daemon holds at most. At a limit a change is refused with the limit in the reason.

/// Networks of a node.
pub const MAX_NETWORKS: usize = 1_000;
/// Attachments of a network on this node.
pub const MAX_ATTACHMENTS: usize = 10_000;
/// Services of a network.
pub const MAX_SERVICES: usize = 20_000;
/// Backends of a service.
pub const MAX_BACKENDS: usize = 1_000;
/// Published ports of a service.
pub const MAX_PUBLISHED: usize = 1_000;
/// Bytes of a request's body.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
/// Bytes of a state document: room for 1,000,000 backends.
pub const MAX_STATE: usize = 64 * 1024 * 1024;
/// Characters of a name.
pub const MAX_NAME: usize = 63;
/// The shortest prefix of an IPv4 subnet: 16,777,214 addresses.
pub const MIN_PREFIX: u8 = 8;
/// The longest prefix of an IPv4 subnet: 6 addresses.
pub const MAX_PREFIX: u8 = 29;
/// The shortest prefix of an IPv6 subnet: that of a site (RFC 6177). Its size costs nothing.
pub const MIN_PREFIX_V6: u8 = 48;
/// The longest prefix of an IPv6 subnet: 15 addresses.
pub const MAX_PREFIX_V6: u8 = 124;
/// Errors listed in one rejection. The rest is left out.
pub const MAX_ERRORS: usize = 20;
