//! What should be: networks, their attachments, services and backends, and which of it is valid.
//!
//! Everything here is pure: no I/O, no clock. A [`Model`] is an immutable value with cheap copies; [`Model::change`]
//! and [`Model::desired`] make the next one, or say why not. A change that touches one backend shares everything else
//! with the model that it was made from, and [`Network::services`] of two models can be compared at the cost of what
//! differs.

mod address;
mod backends;
mod change;
mod desired;
pub mod document;
mod families;
mod kept;
pub mod limits;
mod listed;
mod name;
mod network;
mod observation;
mod observed;
mod published;
mod rejection;
mod services;
mod subnet;

pub use backends::{BackendDifference, Backends};
pub use change::{BackendChange, Change, Model, ServiceChange};
pub use document::{AttachmentSpec, BackendSpec, DesiredState, NetworkSpec, PublishedDocument, ServiceSpec};
pub use families::{Families, Family, OfFamily};
pub use kept::{Kept, KeptNetwork};
pub use name::Name;
pub use network::{Attachment, Backend, Network, Service, Shared};
pub use observed::{ObservedBackend, ObservedNetwork, ObservedSandbox, ObservedService};
pub(crate) use rejection::shortened;
pub use rejection::{FieldError, Rejection, RejectionKind};
pub use ringlb_proxy::control::message::{Generation, Port, Protocol, PublishedPort};
pub use ringlb_proxy::control::settings::Weight;
pub use services::{Difference, Services};

#[cfg(test)]
pub(crate) mod tests;
