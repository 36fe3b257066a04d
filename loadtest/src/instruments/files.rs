//! Files and directories of a measurement.

use super::BenchError;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// The directory of configurations, logs and sockets, in a `/run` of the measurement's own.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn create(name: &str) -> Result<Self, BenchError> {
        let path = Path::new("/run").join(name);
        fs::create_dir_all(&path).map_err(BenchError::file("create", &path))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

/// Where results go.
pub(crate) struct Outputs {
    json: Option<PathBuf>,
    report: Option<PathBuf>,
}

impl Outputs {
    /// So that it shows at once, not after an hour, if something cannot be written.
    pub(crate) fn prepare(json: Option<&Path>, report: Option<&Path>) -> Result<Self, BenchError> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(BenchError::file("find", path));
        let outputs = Self { json: json.map(absolute).transpose()?, report: report.map(absolute).transpose()? };
        if let Some(parent) = outputs.json.as_deref().and_then(Path::parent) {
            fs::create_dir_all(parent).map_err(BenchError::file("create", parent))?;
        }
        if let Some(directory) = &outputs.report {
            fs::create_dir_all(directory).map_err(BenchError::file("create", directory))?;
        }
        Ok(outputs)
    }

    /// After each step, so that a measurement that is interrupted has not been for nothing. `files` are the report's.
    pub(crate) fn write(
        &self,
        results: &impl Serialize,
        files: impl FnOnce() -> Vec<(String, String)>,
    ) -> Result<(), BenchError> {
        if let Some(path) = &self.json {
            let text =
                serde_json::to_string_pretty(results).map_err(|error| BenchError::file("write", path)(error.into()))?;
            replace(path, &(text + "\n"))?;
        }
        if let Some(directory) = &self.report {
            for (name, text) in files() {
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
