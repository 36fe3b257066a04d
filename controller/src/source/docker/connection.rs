//! Staying connected to an Engine that comes and goes.

use super::engine::{Engine, EngineError, Happening};
use super::view::Node;
use super::watch::DirectoryWatch;
use futures_util::StreamExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// The pause before the second attempt to connect; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// What becomes of the connection.
#[derive(Debug)]
pub(super) enum Contact {
    /// The Engine is there, and this is its node.
    Made(Box<(Engine, Node)>),
    /// Something happened.
    Happened(Happening),
    /// The Engine is not there, or not any more, and why.
    Lost(String),
}

/// Tells what becomes of the connection to the Engine at `socket`, until nobody listens.
pub(super) async fn keep(socket: PathBuf, contacts: mpsc::UnboundedSender<Contact>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let lost = match meet(&socket).await {
            Ok((engine, node)) => {
                pause = FIRST_PAUSE;
                let mut happenings = pin!(engine.happenings());
                if contacts.send(Contact::Made(Box::new((engine, node)))).is_err() {
                    return;
                }
                loop {
                    match happenings.next().await {
                        Some(Ok(happening)) => {
                            if contacts.send(Contact::Happened(happening)).is_err() {
                                return;
                            }
                        }
                        Some(Err(error)) => break error.to_string(),
                        None => break "the Engine has ended".to_owned(),
                    }
                }
            }
            Err(error) => error.to_string(),
        };
        if contacts.send(Contact::Lost(lost)).is_err() {
            return;
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
            () = appears(&socket) => {}
        }
    }
}

async fn meet(socket: &Path) -> Result<(Engine, Node), EngineError> {
    let engine = Engine::connect(socket).await?;
    let node = engine.node().await?;
    Ok((engine, node))
}

/// Waits until something happens beside the socket's file, such as that an Engine makes it.
async fn appears(socket: &Path) {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    match DirectoryWatch::new(directory) {
        Ok(watch) => {
            while watch.changed().await.is_ok() {
                if socket.exists() {
                    // It exists before it is listened on.
                    sleep(Duration::from_millis(5)).await;
                    return;
                }
            }
            std::future::pending::<()>().await;
        }
        Err(_) => std::future::pending::<()>().await,
    }
}
