//! Echo servers and load for TCP and UDP, on io_uring.
//!
//! * [`Server`] answers a small [`protocol`] over TCP and UDP: it echoes, names itself, and takes or gives bulk data.
//! * [`Load`] drives such servers and measures: [`Workload`] says with what, [`LoadOptions`] how much, [`Report`]
//!   what came of it.
//!
//! Both run on a thread of their own with their own tokio-uring runtime, so they can be used from any program, whether
//! or not it has a runtime. [`Load::start_in`] and [`Server::start_in`] first call a function on that thread: a caller
//! enters a network namespace there.
//!
//! ```no_run
//! use ringlb_load::{Load, LoadOptions, Server, ServerOptions, Workload};
//! use std::time::Duration;
//!
//! let server = Server::start(ServerOptions::new("backend-1".parse()?))?;
//! let mut options = LoadOptions::new(server.addresses().to_vec(), Workload::Connect);
//! options.duration = Some(Duration::from_secs(2));
//! let report = Load::start(options)?.join()?;
//! println!("{report}");
//! println!("{} failed", report.failures);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod pattern;
pub mod protocol;
pub mod units;

mod datagram;
mod error;
mod failure;
mod limits;
mod load;
mod record;
mod report;
mod server;
mod thread;
mod uring;

pub use error::LoadError;
pub use limits::raise_descriptor_limit;
pub use load::{Direction, Exchange, Load, LoadHandle, LoadOptions, LoadStopper, Workload};
pub use report::{
    BackendReport, DatagramReport, EndReason, ErrorKind, ErrorReport, Latencies, LatencySummary, Progress, Report,
    SCHEMA_VERSION, TargetReport, Timeline, TimelineBucket,
};
pub use server::{Server, ServerCounters, ServerHandle, ServerOptions};
