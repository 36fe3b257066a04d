//! What a Docker Engine on this node makes: networks with their sandboxes, services and backends.

pub mod cluster;
pub mod compose;
pub mod facts;
mod labels;
mod sandbox_files;
