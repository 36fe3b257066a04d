//! What counts as a task's stop, and that lasting connections end no sooner.

use crate::cluster::Cluster;
use crate::engine::ContainerEvent;
use crate::lasting::End;
use std::time::{Duration, SystemTime};

/// A signal is sent before the Engine tells of it.
const EVENT_DELAY: Duration = Duration::from_millis(200);

/// No connection may have ended before its server was told to stop, or died.
#[track_caller]
pub(crate) fn assert_none_was_cut(cluster: &Cluster, since: SystemTime, ends: &[End]) {
    let events = cluster.container_events(since);
    for end in ends {
        let stopped = stop_of(&events, &end.server);
        let cut = stopped.is_none_or(|stopped| end.time + EVENT_DELAY < stopped);
        assert!(!cut, "{} before its task stopped ({stopped:?}): {end:?}\n{events:#?}", end.reason);
    }
}

/// When a server was told to stop, or died.
pub(crate) fn stop_of(events: &[ContainerEvent], server: &str) -> Option<SystemTime> {
    let stops = events.iter().filter(|event| event.container == server && ["kill", "die"].contains(&&*event.action));
    stops.map(|event| event.time).min()
}
