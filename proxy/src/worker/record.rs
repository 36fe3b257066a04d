//! What remains of a connection that ended: counts, and a line in the access log.

use super::Worker;
use super::connections::{Connection, Introduction};
use crate::access_log::Record;
use crate::control::settings::AccessLogFormat;
use crate::flow::termination::{Stage, TerminationCode};
use crate::flow::{Ending, Side};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

impl Worker {
    /// Counts the end of a connection, and offers its record to the access log if its service asks for that.
    pub(super) fn record(&mut self, connection: &Connection, ending: Ending) {
        let counters = &self.thread.counters;
        match ending {
            Ending::ClientReset => counters.client_resets.add(1),
            Ending::BackendReset => counters.backend_resets.add(1),
            // Counted where the reason is known.
            Ending::Completed | Ending::NoBackend | Ending::Refused | Ending::Aborted => {}
        }
        let duration = self.moment().since(connection.opened);
        if let (Some(_), Some(admitted)) = (connection.connect_time, &connection.admitted) {
            admitted.service.session_times.add(duration);
        }
        let table = self.shared.table.load();
        let Some((service, _)) = table.find(&connection.target) else { return };
        let wanted = service.settings.access_log;
        if wanted.format == AccessLogFormat::Off || self.random.u32(..wanted.sample.0) != 0 {
            return;
        }
        let at_port = |address| SocketAddr::new(address, connection.backend_port);
        let backend = connection.backend.as_ref().map(|attempt| attempt.address);
        let record = Record {
            format: wanted.format,
            time: SystemTime::now(),
            service: service.name.clone(),
            client: client(connection),
            vip: connection.target.address,
            backend: backend.or_else(|| connection.tried.last().copied()).map(at_port),
            termination: TerminationCode::new(ending, connection.cause, stage(connection)),
            attempts: connection.attempts,
            connect: connection.connect_time.map(Duration::from),
            duration,
            bytes_to_backend: connection.sent[Side::Backend.index()],
            bytes_to_client: connection.sent[Side::Client.index()],
        };
        if !self.shared.access_log.offer(record) {
            counters.access_log_dropped.add(1);
        }
    }
}

fn stage(connection: &Connection) -> Stage {
    match connection.connect_time {
        None if matches!(connection.introduction, Introduction::Reading(_)) => Stage::Header,
        None => Stage::Connecting,
        Some(_) if connection.flow.is_half_closed() => Stage::LastData,
        Some(_) => Stage::Data,
    }
}

/// Who introduced itself by a header, or the peer.
fn client(connection: &Connection) -> Option<SocketAddr> {
    match &connection.introduction {
        Introduction::Given(addresses) => Some(addresses.source),
        _ => connection.client.as_deref().copied(),
    }
}
