//! The control channel between a node's daemon and a proxy.
//!
//! The channel is a `SOCK_SEQPACKET` socket. [`message`] says what travels over it, [`settings`] what a service's settings are,
//! [`frame`] how a message becomes packets, [`thread`] answers requests in the proxy and sees to the health of backends.

mod checker;
pub mod frame;
mod health;
pub mod histogram;
pub mod message;
pub mod settings;
pub mod thread;
