//! What should be, kept in files for the next daemon.
//!
//! A state directory has a file with a whole model and a journal of the wishes that were taken since. A wish is written
//! before it takes effect, with one system call whatever there is, and is on the disk before whoever made it is told that it is
//! done. While the disk writes, others are taken; they go there together. From time to time the whole model is written
//! anew and a new journal begun: the model's file says which journal goes on from it, so that the two change together.
//!
//! Both have checksums. What was damaged is named, and nothing of it is used; what a power cut left of wishes that nobody
//! was told of is left out.

mod disk;
mod line;
mod model_file;

pub use disk::{DiskError, Durable};

use crate::model::{Change, DesiredState, Model, Rejection};
use disk::Disk;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// A journal that is longer than this and than twice the model is replaced, in bytes.
const LONG: u64 = 4 * 1024 * 1024;

/// Why a state directory cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// A file or the directory cannot be read or written.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The journal's thread cannot be started.
    #[error("cannot start the thread that writes to the disk: {0}")]
    Thread(io::Error),
    /// Another daemon uses the directory.
    #[error("another ringlb daemon keeps its state in {}: end it first, or choose another --state-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file has been changed by somebody else.
    #[error("{} is damaged ({reason}): mend it, or move the directory away to start with nothing", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A wish, as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry<'a> {
    Change { network: std::borrow::Cow<'a, str>, change: std::borrow::Cow<'a, Change> },
    State(std::borrow::Cow<'a, DesiredState>),
}

/// An open state directory.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    number: u64,
    file: Arc<File>,
    length: u64,
    /// How long the journal may become.
    limit: u64,
    disk: Disk,
    /// The number of the last entry, in this journal or in one before it.
    last: u64,
    /// How many of them were in those before it.
    earlier: u64,
    _lock: Flock<File>,
}

impl Journal {
    /// Opens a state directory, makes it if it is not there, and reads the model that is kept in it.
    ///
    /// # Errors
    /// Any [`JournalError`].
    pub fn open(directory: &Path) -> Result<(Self, Model), JournalError> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("make", directory))?;
        let lock = lock(directory)?;
        let (version, number, kept) = model_file::read(directory)?;
        let restored = Model::restore(&kept).map_err(|rejection| damaged(&model_file::path(directory), &rejection))?;
        let model = replay(&directory.join(journal_name(number)), version, restored)?;
        let mut journal = Self {
            directory: directory.to_owned(),
            number,
            file: Arc::new(lock.try_clone().map_err(failed("open", directory))?),
            length: 0,
            limit: 0,
            disk: Disk::start().map_err(JournalError::Thread)?,
            last: 0,
            earlier: 0,
            _lock: lock,
        };
        journal.begin_anew(&model)?;
        journal.remove_others()?;
        Ok((journal, model))
    }

    /// Writes down a change of a network.
    ///
    /// # Errors
    /// If it cannot be written; then it is as if nothing had been.
    pub fn change(&mut self, network: &str, change: &Change) -> Result<(), JournalError> {
        self.write(&Entry::Change { network: network.into(), change: std::borrow::Cow::Borrowed(change) })
    }

    /// Writes down a whole desired state.
    ///
    /// # Errors
    /// If it cannot be written; then it is as if nothing had been.
    pub fn state(&mut self, state: &DesiredState) -> Result<(), JournalError> {
        self.write(&Entry::State(std::borrow::Cow::Borrowed(state)))
    }

    /// Begins a new journal with `model` if the present one has become long. What fails is tried again later: the
    /// present one is as good.
    pub fn shorten(&mut self, model: &Model) {
        if self.length <= self.limit {
            return;
        }
        if let Err(error) = self.begin_anew(model) {
            self.limit = self.length.saturating_mul(2);
            tracing::error!(%error, "cannot shorten the journal");
        }
    }

    /// Says when all that was written so far is on the disk.
    #[must_use]
    pub fn durable(&self) -> Durable {
        self.disk.wait_for(self.last)
    }

    /// Begins a new journal with `model` if the disk did not take the present one.
    ///
    /// # Errors
    /// If it does not take the new one either.
    pub fn mend(&mut self, model: &Model) -> Result<(), JournalError> {
        if self.disk.has_failed() { self.begin_anew(model) } else { Ok(()) }
    }

    fn write(&mut self, entry: &Entry<'_>) -> Result<(), JournalError> {
        let path = self.directory.join(journal_name(self.number));
        let entry = serde_json::to_vec(entry).map_err(|error| failed("write", &path)(error.into()))?;
        let durable = self.disk.durable().saturating_sub(self.earlier);
        let line = line::encode(self.last + 1 - self.earlier, durable, &entry);
        let mut file = self.file.as_ref();
        if let Err(error) = file.write_all(&line) {
            // Half a line would be in the way of the next one.
            let cut = file.set_len(self.length).and_then(|()| file.seek(SeekFrom::Start(self.length)));
            cut.map_err(failed("shorten", &path))?;
            return Err(failed("write", &path)(error));
        }
        self.length += line.len() as u64;
        self.last += 1;
        self.disk.sync(&self.file, self.last);
        Ok(())
    }

    fn begin_anew(&mut self, model: &Model) -> Result<(), JournalError> {
        let number = self.number + 1;
        let journal_path = self.directory.join(journal_name(number));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&journal_path);
        let file = file.map_err(failed("make", &journal_path))?;
        let length = model_file::write(&self.directory, number, &model.keep())?;
        // With the model all of its wishes are on the disk.
        self.disk.reached(self.last);
        self.earlier = self.last;
        let old = self.directory.join(journal_name(self.number));
        (self.number, self.file, self.length) = (number, Arc::new(file), 0);
        self.limit = LONG.max(2 * length);
        remove(&old)
    }

    /// Removes journals that nothing goes on from: a daemon that was killed may have left one.
    fn remove_others(&self) -> Result<(), JournalError> {
        let ours = journal_name(self.number);
        for entry in fs::read_dir(&self.directory).map_err(failed("read", &self.directory))? {
            let entry = entry.map_err(failed("read", &self.directory))?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(JOURNAL) && name != ours) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

const JOURNAL: &str = "journal.";

fn journal_name(number: u64) -> String {
    format!("{JOURNAL}{number}")
}

/// The model after all wishes of a journal.
fn replay(path: &Path, version: u64, mut model: Model) -> Result<Model, JournalError> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(model),
        Err(error) => return Err(failed("read", path)(error)),
        Ok(text) => text,
    };
    let line_error =
        |number: u64, reason: &dyn std::fmt::Display| damaged(path, &format_args!("line {number}: {reason}"));
    let (entries, left_out) = if version == model_file::WITHOUT_CHECKSUMS {
        line::entries_without_checksums(&text)
    } else {
        line::entries(&text).map_err(|number| line_error(number, &"it is not as it was written"))?
    };
    // A crash cut it off before anybody was told that it is done.
    if let Some(number) = left_out {
        tracing::warn!(path = %path.display(), line = number, "the end of the journal is not whole and left out");
    }
    for (number, entry) in (1..).zip(entries) {
        let entry = serde_json::from_slice(entry).map_err(|error| line_error(number, &error))?;
        let next: Result<Model, Rejection> = match &entry {
            Entry::Change { network, change } => model.change(network, change),
            Entry::State(state) => model.desired(state),
        };
        model = next.map_err(|rejection| line_error(number, &rejection))?;
    }
    Ok(model)
}

fn lock(directory: &Path) -> Result<Flock<File>, JournalError> {
    let path = directory.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(failed("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => JournalError::InUse { path: directory.to_owned() },
        errno => failed("lock", &path)(errno.into()),
    })
}

fn remove(path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |cause| JournalError::Io { action, path, cause }
}

fn damaged(path: &Path, reason: &dyn std::fmt::Display) -> JournalError {
    JournalError::Damaged { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
