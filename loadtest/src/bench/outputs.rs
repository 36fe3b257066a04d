//! Where a benchmark's files are.

use super::results::Results;
use super::{BenchError, Options, report};
use std::fs;
use std::path::{Path, PathBuf};

/// The directory of configurations, logs and sockets, in a `/run` of the benchmark's own.
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn create() -> Result<Self, BenchError> {
        let path = PathBuf::from("/run/ringlb-bench");
        fs::create_dir_all(&path).map_err(BenchError::file("create", &path))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

/// Where results go.
pub(super) struct Outputs {
    json: Option<PathBuf>,
    report: Option<PathBuf>,
}

impl Outputs {
    /// So that it shows at once, not after an hour, if something cannot be written.
    pub(super) fn prepare(options: &Options) -> Result<Self, BenchError> {
        let absolute = |path: &PathBuf| std::path::absolute(path).map_err(BenchError::file("find", path));
        let outputs = Self {
            json: options.json.as_ref().map(absolute).transpose()?,
            report: options.report.as_ref().map(absolute).transpose()?,
        };
        if let Some(parent) = outputs.json.as_deref().and_then(Path::parent) {
            fs::create_dir_all(parent).map_err(BenchError::file("create", parent))?;
        }
        if let Some(directory) = &outputs.report {
            fs::create_dir_all(directory).map_err(BenchError::file("create", directory))?;
        }
        Ok(outputs)
    }

    /// After each run, so that a benchmark that is interrupted has not been for nothing.
    pub(super) fn write(&self, results: &Results) -> Result<(), BenchError> {
        if let Some(path) = &self.json {
            let text =
                serde_json::to_string_pretty(results).map_err(|error| BenchError::file("write", path)(error.into()))?;
            replace(path, &(text + "\n"))?;
        }
        if let Some(directory) = &self.report {
            for (name, text) in report::files(results) {
                replace(&directory.join(name), &text)?;
            }
        }
        Ok(())
    }
}

/// Whoever reads meanwhile sees the old file or the new one.
fn replace(path: &Path, text: &str) -> Result<(), BenchError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    fs::write(&new, text).map_err(BenchError::file("write", &new))?;
    fs::rename(&new, path).map_err(BenchError::file("replace", path))
}
