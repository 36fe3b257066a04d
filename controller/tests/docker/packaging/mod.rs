//! What `packaging/` offers to start ringlb with, on machines that have booted.

mod container;
mod order;
mod privileges;
mod restarts;
mod steering;
mod unit;

use crate::image::program;
use std::path::{Path, PathBuf};

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Copies the daemon and what it starts into a directory.
fn copy_programs(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    for name in ["ringlb", "ringlb-proxy"] {
        std::fs::copy(program(name), directory.join(name)).unwrap();
    }
}
