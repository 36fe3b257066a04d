//! The control channel between a node's daemon and a proxy.
//!
//! The channel is a `SOCK_SEQPACKET` socket. [`message`] says what travels over it, [`settings`]
//! what a service's settings are, [`frame`] how a message
//! becomes packets, [`thread`] answers requests in the proxy.

pub mod frame;
pub mod histogram;
pub mod message;
pub mod settings;
pub mod thread;
