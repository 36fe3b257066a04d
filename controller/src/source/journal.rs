//! What should be, kept in files for the next daemon.
//!
//! A state directory has a file with a whole model and a journal of the wishes that were taken since. A wish is written
//! before it takes effect, with one system call whatever there is. From time to time the whole model is written anew
//! and a new journal begun: the model's file says which journal goes on from it, so that the two change together.
//!
//! The journal is not forced to the disk with each wish, which would make a change ten times slower: it survives the
//! daemon's end, however it comes, and a crash of the machine but for the last seconds.

use crate::model::{Change, DesiredState, Kept, Model, Rejection};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A journal that is longer than this and than twice the model is replaced, in bytes.
const LONG: u64 = 4 * 1024 * 1024;
const STATE: &str = "state.json";
const VERSION: u64 = 1;

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

/// The model's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u64,
    /// The number of the journal that goes on from here.
    journal: u64,
    model: Kept,
}

/// An open state directory.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    number: u64,
    file: File,
    length: u64,
    /// How long the journal may become.
    limit: u64,
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
        let path = directory.join(STATE);
        let state = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| damaged(&path, &error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                State { version: VERSION, journal: 0, model: Model::default().keep() }
            }
            Err(error) => return Err(failed("read", &path)(error)),
        };
        if state.version != VERSION {
            return Err(damaged(
                &path,
                &format_args!("its version is {}, this program reads {VERSION}", state.version),
            ));
        }
        let restored = Model::restore(&state.model).map_err(|rejection| damaged(&path, &rejection))?;
        let model = replay(&directory.join(journal_name(state.journal)), restored)?;
        let mut journal = Self {
            directory: directory.to_owned(),
            number: state.journal,
            file: lock.try_clone().map_err(failed("open", directory))?,
            length: 0,
            limit: 0,
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

    fn write(&mut self, entry: &Entry<'_>) -> Result<(), JournalError> {
        let path = self.directory.join(journal_name(self.number));
        let mut line = serde_json::to_vec(entry).map_err(|error| failed("write", &path)(error.into()))?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // Half a line would be taken for damage once something follows it.
            let cut = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            cut.map_err(failed("shorten", &path))?;
            return Err(failed("write", &path)(error));
        }
        self.length += line.len() as u64;
        Ok(())
    }

    fn begin_anew(&mut self, model: &Model) -> Result<(), JournalError> {
        let number = self.number + 1;
        let journal_path = self.directory.join(journal_name(number));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&journal_path);
        let file = file.map_err(failed("make", &journal_path))?;

        let path = self.directory.join(STATE);
        let new_path = path.with_extension("new");
        let state = State { version: VERSION, journal: number, model: model.keep() };
        let text = serde_json::to_vec(&state).map_err(|error| failed("write", &new_path)(error.into()))?;
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new_path)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new_path, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(failed("write", &path))?;

        let old = self.directory.join(journal_name(self.number));
        (self.number, self.file, self.length) = (number, file, 0);
        self.limit = LONG.max(2 * text.len() as u64);
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
fn replay(path: &Path, mut model: Model) -> Result<Model, JournalError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(model),
        Err(error) => return Err(failed("read", path)(error)),
        Ok(_) => {}
    }
    let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    // What follows the last end of a line was cut off by a crash before anybody was told that it is done.
    if lines.pop().is_some_and(|rest| !rest.is_empty()) {
        tracing::warn!(path = %path.display(), "the last entry of the journal is incomplete and left out");
    }
    for (index, line) in lines.into_iter().enumerate() {
        let line_error = |reason: &dyn std::fmt::Display| damaged(path, &format_args!("line {}: {reason}", index + 1));
        let entry = serde_json::from_slice(line).map_err(|error| line_error(&error))?;
        let next: Result<Model, Rejection> = match &entry {
            Entry::Change { network, change } => model.change(network, change),
            Entry::State(state) => model.desired(state),
        };
        model = next.map_err(|rejection| line_error(&rejection))?;
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
mod tests {
    use super::*;
    use crate::model::{BackendChange, BackendSpec, Families, NetworkSpec, ServiceChange};
    use std::os::unix::fs::PermissionsExt;

    fn put_network() -> Change {
        let subnet: ipnet::IpNet = "10.1.0.0/16".parse().unwrap();
        Change::PutNetwork(NetworkSpec { subnet: subnet.into(), vip_prefix: Families::default() })
    }

    fn service(change: ServiceChange) -> Change {
        Change::Service { service: "api".to_owned(), change }
    }

    fn backend(last: u8, change: BackendChange) -> Change {
        service(ServiceChange::Backend { address: [10, 1, 0, last].into(), change })
    }

    fn all_changes() -> Vec<Change> {
        vec![
            put_network(),
            service(ServiceChange::Put(Box::default())),
            backend(1, BackendChange::Put(BackendSpec::default())),
            backend(2, BackendChange::Put(BackendSpec::default())),
            backend(2, BackendChange::Drain),
            backend(1, BackendChange::Remove),
        ]
    }

    /// Takes changes as [`super::super::Desired`] does.
    fn take(journal: &mut Journal, model: &mut Model, changes: &[Change]) {
        for change in changes {
            let next = model.change("web", change).unwrap();
            journal.change("web", change).unwrap();
            *model = next;
            journal.shorten(model);
        }
    }

    fn state_of(model: &Model) -> DesiredState {
        model.keep().state
    }

    #[test]
    fn what_was_taken_is_there_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (mut journal, mut model) = Journal::open(&path).unwrap();
        assert!(model.networks().is_empty());
        take(&mut journal, &mut model, &all_changes());
        assert!(matches!(Journal::open(&path), Err(JournalError::InUse { .. })));
        drop(journal);

        let (mut journal, restored) = Journal::open(&path).unwrap();
        assert_eq!(state_of(&restored), state_of(&model));
        let generation = |model: &Model| model.network("web").unwrap().generation();
        assert!(generation(&restored) >= generation(&model));
        let state = DesiredState { version: 1, networks: Vec::new() };
        journal.state(&state).unwrap();
        drop(journal);
        let (_, emptied) = Journal::open(&path).unwrap();
        assert!(emptied.networks().is_empty());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(STATE))), (0o700, 0o600));
    }

    /// Whatever the moment at which a daemon is killed: what is read is what was there after some number of whole wishes.
    #[test]
    fn a_journal_that_was_cut_anywhere_is_read_up_to_there() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, mut model) = Journal::open(directory.path()).unwrap();
        let mut states = vec![state_of(&model)];
        let mut ends = vec![0];
        for change in all_changes() {
            take(&mut journal, &mut model, &[change]);
            states.push(state_of(&model));
            ends.push(journal.length);
        }
        let name = journal_name(journal.number);
        let text = fs::read(directory.path().join(&name)).unwrap();
        let state = fs::read(directory.path().join(STATE)).unwrap();
        drop(journal);
        for length in 0..=text.len() {
            let cut = tempfile::tempdir().unwrap();
            fs::write(cut.path().join(&name), &text[..length]).unwrap();
            fs::write(cut.path().join(STATE), &state).unwrap();
            let (_, restored) = Journal::open(cut.path()).unwrap();
            let whole = ends.iter().filter(|end| **end <= length as u64).count();
            assert_eq!(state_of(&restored), states[whole - 1], "{length}");
        }
    }

    #[test]
    fn a_long_journal_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, mut model) = Journal::open(directory.path()).unwrap();
        take(&mut journal, &mut model, &all_changes());
        journal.limit = 2_000;
        let first = journal.number;
        for _ in 0..50 {
            take(
                &mut journal,
                &mut model,
                &[backend(9, BackendChange::Put(BackendSpec::default())), backend(9, BackendChange::Remove)],
            );
            journal.limit = journal.limit.min(2_000);
        }
        assert!(journal.number > first + 2);
        assert!(journal.length <= 2_200);
        let files = |directory: &Path| {
            let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(files(directory.path()), [journal_name(journal.number).as_str(), "lock", STATE]);
        drop(journal);
        // One that a killed daemon had just begun goes.
        fs::write(directory.path().join(journal_name(999)), "rubbish").unwrap();
        let (journal, restored) = Journal::open(directory.path()).unwrap();
        assert_eq!(state_of(&restored), state_of(&model));
        assert_eq!(files(directory.path()), [journal_name(journal.number).as_str(), "lock", STATE]);
    }

    /// What was written when a network had one IPv4 subnet, and nothing else.
    #[test]
    fn a_state_directory_of_one_family_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let state = r#"{"version":1,"journal":3,"model":{"state":{"version":1,"networks":[{"name":"web",
            "subnet":"10.1.0.0/24","vip_prefix":"10.1.0.192/26",
            "attachments":[{"name":"c1","netns":"/run/netns/c1","ip":"10.1.0.1"}],
            "services":[{"name":"api","vip":"10.1.0.192","backends":[{"ip":"10.1.0.1","weight":1,"drain":false}]}]}]},
            "networks":{"web":{"generation":7,"lb_address":"10.1.0.180"}}}}"#;
        let journal = [
            r#"{"change":{"network":"web","change":{"service":{"service":"api","change":{"backend":{"address":"10.1.0.2","change":{"put":{"weight":3,"drain":false}}}}}}}}"#,
            r#"{"change":{"network":"web","change":{"put_attachment":{"attachment":"c2","spec":{"netns":"/run/netns/c2","ip":"10.1.0.9"}}}}}"#,
            r#"{"change":{"network":"web","change":{"service":{"service":"db","change":{"put":{"vip":"10.1.0.200"}}}}}}"#,
            r#"{"change":{"network":"other","change":{"put_network":{"subnet":"10.2.0.0/24","vip_prefix":"10.2.0.128/25"}}}}"#,
            r#"{"change":{"network":"empty","change":{"put_network":{"subnet":"10.3.0.0/24"}}}}"#,
        ];
        fs::write(directory.path().join(STATE), state).unwrap();
        fs::write(directory.path().join("journal.3"), journal.map(|line| format!("{line}\n")).concat()).unwrap();
        let (_, model) = Journal::open(directory.path()).unwrap();
        let web = model.network("web").unwrap();
        // One for the restart, and one for each change of the table.
        assert_eq!(web.generation(), 10);
        assert_eq!(web.lb_address().unwrap().to_string(), "10.1.0.180");
        assert_eq!(web.attachments()["c2"].ip.to_string(), "10.1.0.9");
        assert_eq!(web.services()["db"].vip.to_string(), "10.1.0.200");
        assert_eq!(web.services()["api"].backends.len(), 2);
        let other = model.network("other").unwrap();
        assert_eq!(
            (other.subnet().to_string(), other.vip_prefix().to_string()),
            ("10.2.0.0/24".into(), "10.2.0.128/25".into())
        );
        // And it is written as it was.
        let text = fs::read_to_string(directory.path().join(STATE)).unwrap();
        assert!(text.contains(r#""subnet":"10.1.0.0/24","vip_prefix":"10.1.0.192/26""#), "{text}");
        assert!(text.contains(r#""lb_address":"10.1.0.180""#), "{text}");
    }

    #[test]
    fn damage_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, mut model) = Journal::open(directory.path()).unwrap();
        take(&mut journal, &mut model, &all_changes());
        let path = directory.path().join(journal_name(journal.number));
        drop(journal);
        let text = fs::read_to_string(&path).unwrap();
        for (damaged, expected) in [
            (text.replacen("change", "chance", 1), "line 1: "),
            (text.replacen("10.1.0.2", "10.9.0.2", 1), "line 4: "),
            (format!("{text}\n"), "line 7: "),
        ] {
            fs::write(&path, damaged).unwrap();
            let error = Journal::open(directory.path()).unwrap_err().to_string();
            assert!(error.contains("is damaged") && error.contains(expected), "{error}");
        }
        fs::write(&path, text).unwrap();
        let state = directory.path().join(STATE);
        let good = fs::read_to_string(&state).unwrap();
        for bad in ["{", "{}", &good.replace("\"version\":1,\"journal\"", "\"version\":9,\"journal\"")] {
            fs::write(&state, bad).unwrap();
            assert!(matches!(Journal::open(directory.path()), Err(JournalError::Damaged { .. })), "{bad}");
        }
        fs::write(&state, good).unwrap();
        assert_eq!(state_of(&Journal::open(directory.path()).unwrap().1), state_of(&model));
    }
}
