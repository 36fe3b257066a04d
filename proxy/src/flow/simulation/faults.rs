//! What went wrong, and what else was seen, over all worlds.

use crate::flow::Side;

/// Declares the counters with what each of them counts, so that none can be left out of the check.
macro_rules! faults {
    ($($name:ident: $what:literal,)*) => {
        #[derive(Debug, Default)]
        pub(super) struct Faults {
            pub(super) steps: u64,
            $(pub(super) $name: u64,)*
        }

        impl Faults {
            /// Checks that all of it has happened.
            pub(super) fn check(&self) {
                $(assert!(self.$name > 0, "the simulation never had {}", $what);)*
            }
        }
    };
}

faults! {
    connect_failures: "connect failures",
    connect_timeouts: "attempts that took too long",
    given_up: "attempts given up as their backend gets no more connections",
    shortages: "attempts without a socket",
    retries: "further attempts",
    retries_denied: "further attempts that are denied",
    no_service: "VIPs without a service",
    no_backend: "services without a backend left",
    spares: "backends picked that are not eligible",
    backups: "backups picked",
    panics: "picks in panic",
    service_full: "full services",
    backends_full: "refusals as all backends are full",
    queue_full: "full queues",
    waits: "waits for a place",
    waits_served: "waits that end with a place",
    waits_over: "waits that take too long",
    turns_too_late: "turns of connections that are gone",
    clients_gone_waiting: "clients that are gone while they wait",
    clients_gone: "clients that are gone before they are served",
    headers_in: "headers of clients",
    headers_split: "headers in pieces",
    headers_refused: "headers that are refused",
    headers_late: "headers that are late",
    headers_reset: "resets within a header",
    headers_out: "headers for backends",
    headers_out_short: "headers that are sent in pieces",
    headers_out_unused: "headers for an attempt that was given up",
    starved: "starved receives",
    lost_more: "lost F_MORE",
    short_sends: "short sends",
    client_resets: "client resets",
    backend_resets: "backend resets",
    resets_before_data: "resets before any data",
    send_failures: "send failures",
    aborts: "aborts",
    aborts_while_connecting: "aborts while connecting",
    aborts_while_introducing: "aborts within a header",
    aborts_while_waiting: "aborts while waiting for a place",
    late_data_after_stop: "data after a stop",
    no_pipe: "missing pipes",
    quiet: "quiet splices",
    lingers_over: "lingers that end",
    spliced_bytes: "spliced bytes",
    completed: "completed connections",
    changes: "changes of the table",
    changes_refused: "changes that do not apply",
    snapshots: "snapshots",
    vips_swapped: "VIPs swapped between services",
    published: "picks for a published port",
    conditions: "changes of health",
    changes_during_picks: "changes while a backend is picked",
    picks_removed: "picks of a backend that has been removed meanwhile",
    service_changed: "connections whose VIP belongs to another service when they go on",
    removed_while_connecting: "removals while connecting",
    removed_while_relaying: "removals while relaying",
    removed_while_closing: "removals while closing",
    drained_while_connecting: "drain deadlines while connecting",
    drained_while_relaying: "drain deadlines while relaying",
    drains_taken_back: "drain deadlines that are not wanted any more",
    won_over_cancellation: "connects that win over their cancellation",
    outlived_changes: "connections that complete although the table has changed",
}

impl Faults {
    pub(super) fn resets_of(&mut self, side: Side) -> &mut u64 {
        match side {
            Side::Client => &mut self.client_resets,
            Side::Backend => &mut self.backend_resets,
        }
    }
}
