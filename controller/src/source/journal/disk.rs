//! Getting the journal onto the disk: a thread that does it for all lines written meanwhile at once.

use std::fs::File;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use thiserror::Error;
use tokio::sync::watch;

/// The disk did not take the journal.
#[derive(Debug, Clone, Error)]
#[error("the disk does not take the journal: {0}")]
pub struct DiskError(String);

/// How far the journal is on the disk.
#[derive(Debug, Clone)]
struct Progress {
    /// All entries up to this one are.
    reached: u64,
    /// Why no further one will be, if so.
    failed: Option<DiskError>,
}

/// The thread, and what it has done. It ends with this value.
#[derive(Debug)]
pub(super) struct Disk {
    orders: mpsc::Sender<Order>,
    progress: watch::Sender<Progress>,
}

struct Order {
    file: Arc<File>,
    /// The last entry in it.
    last: u64,
}

/// Says when an entry is on the disk.
#[derive(Debug)]
pub struct Durable {
    progress: watch::Receiver<Progress>,
    entry: u64,
}

impl Disk {
    pub(super) fn start() -> io::Result<Self> {
        let (orders, waiting) = mpsc::channel();
        let progress = watch::Sender::new(Progress { reached: 0, failed: None });
        let told = progress.clone();
        thread::Builder::new().name("journal".to_owned()).spawn(move || sync_all(&waiting, &told))?;
        Ok(Self { orders, progress })
    }

    /// Has the entries of the file up to that one put onto the disk.
    pub(super) fn sync(&self, file: &Arc<File>, last: u64) {
        // Nobody is there only after a panic of the thread, and then nobody is told that anything is done.
        let _ = self.orders.send(Order { file: Arc::clone(file), last });
    }

    /// Takes note that all entries up to that one are on the disk, by other means.
    pub(super) fn reached(&self, last: u64) {
        self.progress.send_replace(Progress { reached: last, failed: None });
    }

    /// The last entry that is on the disk.
    pub(super) fn durable(&self) -> u64 {
        self.progress.borrow().reached
    }

    pub(super) fn has_failed(&self) -> bool {
        self.progress.borrow().failed.is_some()
    }

    pub(super) fn wait_for(&self, entry: u64) -> Durable {
        Durable { progress: self.progress.subscribe(), entry }
    }
}

impl Durable {
    /// Returns when it is on the disk.
    ///
    /// # Errors
    /// If the disk did not take it.
    pub async fn reached(mut self) -> Result<(), DiskError> {
        let entry = self.entry;
        let is_over = |progress: &Progress| progress.reached >= entry || progress.fails(entry).is_some();
        match self.progress.wait_for(is_over).await {
            Ok(progress) => progress.fails(entry).cloned().map_or(Ok(()), Err),
            Err(_) => Err(DiskError("the daemon is ending".to_owned())),
        }
    }
}

impl Progress {
    fn fails(&self, entry: u64) -> Option<&DiskError> {
        self.failed.as_ref().filter(|_| self.reached < entry)
    }
}

fn sync_all(orders: &mpsc::Receiver<Order>, progress: &watch::Sender<Progress>) {
    while let Ok(first) = orders.recv() {
        let Order { file, last } = orders.try_iter().last().unwrap_or(first);
        let synced = file.sync_data();
        progress.send_modify(|progress| match synced {
            // After an error the kernel may have dropped what it could not write, and then say that all is well (fsync(2)):
            // only a journal that was begun anew counts.
            Ok(()) if progress.failed.is_none() => progress.reached = progress.reached.max(last),
            Ok(()) => {}
            Err(_) if progress.reached >= last => {}
            Err(error) => {
                tracing::error!(%error, "the disk does not take the journal");
                progress.failed = Some(DiskError(error.to_string()));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(disk: &Disk, entry: u64) -> Result<(), DiskError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(disk.wait_for(entry).reached())
    }

    #[test]
    fn entries_that_were_written_meanwhile_go_together() {
        let disk = Disk::start().unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        (1..=100).for_each(|last| disk.sync(&file, last));
        wait(&disk, 100).unwrap();
        wait(&disk, 7).unwrap();
        assert_eq!(disk.durable(), 100);
    }

    #[test]
    fn after_a_failure_only_another_way_helps() {
        let disk = Disk::start().unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        // A file that cannot be put onto a disk (fsync(2), EINVAL).
        let nowhere = Arc::new(File::options().write(true).open("/dev/full").unwrap());
        disk.sync(&file, 1);
        wait(&disk, 1).unwrap();
        disk.sync(&nowhere, 2);
        wait(&disk, 2).unwrap_err();
        disk.sync(&file, 3);
        wait(&disk, 3).unwrap_err();
        assert!(disk.has_failed() && wait(&disk, 1).is_ok());
        disk.reached(3);
        disk.sync(&file, 4);
        wait(&disk, 4).unwrap();
    }
}
