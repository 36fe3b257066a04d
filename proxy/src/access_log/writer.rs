//! Writing lines beside the data path.

use super::{Record, write_line};
use crate::privileges;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

/// The most records that wait to be written: about a tenth of a second's connections of one data thread.
const QUEUE: usize = 4096;
/// Lines are written together up to this size.
const BATCH: usize = 64 * 1024;

/// The data threads' end.
#[derive(Debug, Clone)]
pub struct AccessLog(SyncSender<Box<Record>>);

impl AccessLog {
    /// Hands a record over. False if it was dropped because too many wait.
    #[must_use]
    pub fn offer(&self, record: Record) -> bool {
        self.0.try_send(Box::new(record)).is_ok()
    }
}

/// Starts the thread that writes the lines of `network` to `out`, and can do nothing else.
///
/// # Errors
/// If the thread cannot be started or does not give up its privileges.
pub fn start(network: String, out: impl Write + Send + 'static) -> io::Result<AccessLog> {
    let (sender, records) = sync_channel(QUEUE);
    let (sealed, is_sealed) = channel();
    std::thread::Builder::new().name("access-log".into()).spawn(move || {
        let result = privileges::seal();
        let go_on = result.is_ok();
        // The other end waits for it.
        let _ = sealed.send(result);
        if go_on {
            write(&network, &records, out);
        }
    })?;
    is_sealed.recv().map_err(io::Error::other)?.map_err(io::Error::other)?;
    Ok(AccessLog(sender))
}

fn write(network: &str, records: &Receiver<Box<Record>>, mut out: impl Write) {
    let mut lines = Vec::new();
    while let Ok(record) = records.recv() {
        let mut next = Some(record);
        while let Some(record) = next {
            // Writing to memory fails never.
            let _ = write_line(network, &record, &mut lines);
            next = if lines.len() < BATCH { records.try_recv().ok() } else { None };
        }
        // One write, so that lines of several proxies in one file do not mix. Whoever reads the log may be gone: that is
        // no reason to stop serving, and it may come back.
        let _ = out.write_all(&lines).and_then(|()| out.flush());
        lines.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::settings::AccessLogFormat;
    use crate::flow::Ending;
    use crate::flow::termination::{Stage, TerminationCode};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, SystemTime};

    /// A reader that does not read: the queue fills up, and offering a record never waits.
    #[test]
    fn records_are_dropped_when_nobody_reads() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let log = start("web".to_owned(), theirs).unwrap();
        let address = "10.1.0.2:40000".parse().unwrap();
        let record = Record {
            format: AccessLogFormat::Text,
            time: SystemTime::UNIX_EPOCH,
            service: "api".into(),
            client: Some(address),
            vip: address,
            backend: None,
            termination: TerminationCode::new(Ending::Completed, None, Stage::Data),
            attempts: 1,
            connect: None,
            duration: Duration::ZERO,
            bytes_to_backend: 0,
            bytes_to_client: 0,
        };
        let mut taken = 0u64;
        while log.offer(record.clone()) {
            taken += 1;
            assert!(taken < 1_000_000, "nothing is ever dropped");
        }
        // All that were taken come out once somebody reads.
        drop(log);
        let lines = io::BufRead::lines(io::BufReader::new(ours)).map_while(Result::ok).count();
        assert_eq!(lines as u64, taken);
    }
}
