//! Metrics for Prometheus.
//!
//! A scrape asks each network's task, and by it the proxy, for what they have counted. One task of the daemon does the
//! asking; scrapes that come while it is at it get the same answer. The text is made on a thread of its own, so that
//! changes, which share one thread, do not wait for it.

mod listener;
mod names;
mod round;
mod text;

pub use listener::serve;
pub use names::{Kind, METRICS, Metric, Unit};

use crate::source::Desired;
use axum::body::Bytes;
use round::Round;
use std::sync::Arc;
use std::time::SystemTime;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

/// The type of the text.
pub const CONTENT_TYPE: &str = prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// Scrapes on their way to the task; further ones wait.
const MAX_WAITING: usize = 64;

/// Why there is no text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetricsError {
    /// The task has ended.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// The text was not made.
    #[error("the metrics cannot be written: {0}")]
    Text(String),
}

/// Where the metrics can be asked for, from any thread.
#[derive(Debug, Clone)]
pub struct Metrics {
    scrapes: mpsc::Sender<Scrape>,
}

/// A scrape that waits.
type Scrape = oneshot::Sender<Result<Bytes, MetricsError>>;

impl Metrics {
    /// Starts the task that asks. It ends when nobody can ask it any more.
    #[must_use]
    pub fn start(desired: Arc<Desired>, started: SystemTime) -> Self {
        let (scrapes, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(answer(desired, started, waiting));
        Self { scrapes }
    }

    /// The text of all metrics, as old as the round of questions that was under way, if one was.
    ///
    /// # Errors
    /// Any [`MetricsError`].
    pub async fn text(&self) -> Result<Bytes, MetricsError> {
        let (reply, text) = oneshot::channel();
        self.scrapes.send(reply).await.map_err(|_| MetricsError::ShuttingDown)?;
        text.await.unwrap_or(Err(MetricsError::ShuttingDown))
    }
}

async fn answer(desired: Arc<Desired>, started: SystemTime, mut scrapes: mpsc::Receiver<Scrape>) {
    while let Some(first) = scrapes.recv().await {
        let mut waiting = vec![first];
        let mut text = std::pin::pin!(text(&desired, started));
        let text = loop {
            tokio::select! {
                text = text.as_mut() => break text,
                Some(scrape) = scrapes.recv() => waiting.push(scrape),
            }
        };
        for scrape in waiting {
            // A client may have gone away.
            let _ = scrape.send(text.clone());
        }
    }
}

async fn text(desired: &Desired, started: SystemTime) -> Result<Bytes, MetricsError> {
    let round = Round::ask(desired, started).await;
    let text = match spawn_blocking(move || text::render(round)).await {
        Ok(text) => text.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    text.map(Bytes::from).map_err(|reason| {
        tracing::error!(reason, "cannot write the metrics");
        MetricsError::Text(reason)
    })
}
