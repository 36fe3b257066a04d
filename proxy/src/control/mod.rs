//! The control channel between a node's daemon and a proxy.
//!
//! The channel is a `SOCK_SEQPACKET` socket. [`message`] says what travels over it, [`settings`] what a service's settings are,
//! [`frame`] how a message becomes packets, [`descriptors`] how descriptors travel, [`digest`] what a table is in brief, [`version`] which versions of it there are, [`replacement`] how a proxy takes another one's place, [`thread`] answers requests in the proxy and sees to the health of backends, [`ports`] has what a proxy was given and can hand over.

mod checker;
pub mod descriptors;
pub mod digest;
pub mod frame;
mod handover;
mod health;
pub mod histogram;
pub mod memory;
pub mod message;
pub mod ports;
pub mod replacement;
mod retirement;
pub mod settings;
pub mod thread;
pub mod version;
