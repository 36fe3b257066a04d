//! The data plane of one ringlb network.
//!
//! A proxy accepts every connection to a VIP of its network, picks a backend and relays. It is told what to do over a
//! control channel and knows of nothing but the table that it was given.
//!
//! Pure, each usable and tested without a kernel: [`table`] (what there is), [`balance`] (which backend), [`admission`] (who
//! may come in), [`proxy_protocol`] (who the client is), [`flow`] (what a connection does next), [`health`] (which backends
//! are well). Around them: [`ring`] (io_uring), [`worker`] (a data thread), [`threads`] (all of them), [`control`] (the
//! control thread), [`access_log`] (what remains of connections that ended), [`shared`] (what the
//! threads have in common).

pub mod access_log;
pub mod admission;
pub mod balance;
pub mod connection_map;
pub mod control;
pub mod flow;
pub mod health;
pub mod inherited;
pub mod log;
pub mod privileges;
pub mod proxy_protocol;
pub mod ring;
pub mod session_map;
pub mod shared;
mod shared_memory;
pub mod table;
pub mod threads;
pub mod worker;
