//! The control channel between a node's daemon and a proxy.
//!
//! The channel is a `SOCK_SEQPACKET` socket. [`message`] says what travels over it, [`settings`] what a service's settings are,
//! [`frame`] how a message becomes packets, [`descriptors`] how descriptors travel, [`thread`] answers requests in the proxy and sees to the health of backends, [`ports`] has what a proxy was given and can hand over.

mod checker;
pub mod descriptors;
pub mod frame;
mod health;
pub mod histogram;
pub mod memory;
pub mod message;
pub mod ports;
pub mod settings;
pub mod thread;
