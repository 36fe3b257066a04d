//! Those who wait for a proxy's statistics.

use super::proxy::Proxy;
use ringlb_proxy::control::message::Statistics;
use tokio::sync::oneshot;

/// At most one question is under way, whoever asks and however often: a proxy that does not answer is not asked again, so
/// that neither questions nor waiters pile up.
#[derive(Debug, Default)]
pub(super) struct StatisticsQuestion {
    asked: bool,
    waiting: Vec<oneshot::Sender<Statistics>>,
}

impl StatisticsQuestion {
    /// Asks, unless that is done already. What is given never comes if there is nobody to ask.
    pub(super) fn ask(&mut self, proxy: Option<&mut Proxy>) -> oneshot::Receiver<Statistics> {
        let (sender, statistics) = oneshot::channel();
        if !self.asked {
            // That the connection is broken is found out, and dealt with, where it is read from.
            self.asked = matches!(proxy.map(Proxy::ask_statistics), Some(Ok(true)));
        }
        self.waiting.retain(|waiting| !waiting.is_closed());
        if self.asked {
            self.waiting.push(sender);
        }
        statistics
    }

    /// Asks another proxy, if somebody waits: the one that was asked has been replaced.
    pub(super) fn ask_again(&mut self, proxy: Option<&mut Proxy>) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.asked = !self.waiting.is_empty() && matches!(proxy.map(Proxy::ask_statistics), Some(Ok(true)));
        if !self.asked {
            self.forget();
        }
    }

    /// Gives the answer to all.
    pub(super) fn answer(&mut self, statistics: &Statistics) {
        self.asked = false;
        for sender in self.waiting.drain(..) {
            let _ = sender.send(statistics.clone());
        }
    }

    /// The connection that the question went over is gone.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}
