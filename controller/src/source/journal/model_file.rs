//! The file with a whole model.

use super::{JournalError, damaged, failed};
use crate::model::{Kept, Model};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub(super) const NAME: &str = "state.json";
/// Of a file and a journal before they had checksums. They are read, and written as what they are now.
pub(super) const WITHOUT_CHECKSUMS: u64 = 1;
const VERSION: u64 = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    /// The number of the journal that goes on from here.
    journal: u64,
    /// CRC-32 of the model's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<u32>,
    model: Box<RawValue>,
}

pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// The version, the number of the journal that goes on from the model, and the model; an empty one if there is no file.
pub(super) fn read(directory: &Path) -> Result<(u64, u64, Kept), JournalError> {
    let path = path(directory);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((VERSION, 0, Model::default().keep())),
        Err(error) => return Err(failed("read", &path)(error)),
    };
    let document: Document = serde_json::from_slice(&text).map_err(|error| damaged(&path, &error))?;
    let checksum = Some(crc32fast::hash(document.model.get().as_bytes()));
    match document.version {
        WITHOUT_CHECKSUMS => {}
        VERSION if document.checksum == checksum => {}
        VERSION => return Err(damaged(&path, &"it is not as it was written")),
        other => {
            return Err(damaged(&path, &format_args!("its version is {other}, this program reads up to {VERSION}")));
        }
    }
    let kept = serde_json::from_str(document.model.get()).map_err(|error| damaged(&path, &error))?;
    Ok((document.version, document.journal, kept))
}

/// Puts the model, and which journal goes on from it, onto the disk, with all files of the directory that are there. Gives its
/// length in bytes.
pub(super) fn write(directory: &Path, journal: u64, model: &Kept) -> Result<u64, JournalError> {
    let path = path(directory);
    let new_path = path.with_extension("new");
    let text = || {
        let model = serde_json::value::to_raw_value(model)?;
        let checksum = Some(crc32fast::hash(model.get().as_bytes()));
        serde_json::to_vec(&Document { version: VERSION, journal, checksum, model })
    };
    let text = text().map_err(|error| failed("write", &new_path)(error.into()))?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new_path)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new_path, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(failed("write", &path))?;
    Ok(text.len() as u64)
}
