//! The Engine's API. Nothing of the client crate leaves this module.

mod addresses;
mod error;
mod happening;
mod plain;
mod swarm;

pub(super) use error::EngineError;
pub(super) use happening::{ContainerAction, Happening};
pub(super) use plain::{Containers, Holder, HolderImage};

use bollard::errors::Error as ClientError;
use bollard::query_parameters::EventsOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{Stream, StreamExt};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// How long a question may take. The Engine answers in milliseconds, unless it is starting, or waits for other managers.
const QUESTION: Duration = Duration::from_secs(5);

/// How long something may take that it is to do.
const ORDER: Duration = Duration::from_secs(30);

/// A connection to an Engine.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    docker: Docker,
    socket: PathBuf,
}

impl Engine {
    /// Connects to the Engine at `socket`, by the newest version of its API that both speak.
    pub(super) async fn connect(socket: &Path) -> Result<Self, EngineError> {
        let action = "connect";
        let unreachable = |cause: String| EngineError::Unreachable { action, socket: socket.to_owned(), cause };
        let path = socket.to_str().ok_or_else(|| unreachable("its path is not UTF-8".to_owned()))?;
        let docker = Docker::connect_with_unix(path, ORDER.as_secs(), API_DEFAULT_VERSION)
            .map_err(|cause| unreachable(cause.to_string()))?;
        let socket = socket.to_owned();
        let negotiated = timeout(QUESTION, docker.negotiate_version()).await;
        match negotiated {
            Ok(Ok(docker)) => Ok(Self { docker, socket }),
            Ok(Err(cause)) => Err(failure(action, &socket, QUESTION, cause)),
            Err(_) => Err(EngineError::Late { action, socket, deadline: QUESTION }),
        }
    }

    /// What happens from now on. It ends when the Engine does.
    pub(super) fn happenings(&self) -> impl Stream<Item = Result<Happening, EngineError>> + use<> {
        let filters = HashMap::from([("type", vec!["container", "network", "service", "node"])]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let socket = self.socket.clone();
        let events = self.docker.events(Some(options));
        events.filter_map(move |event| {
            let happening = match event {
                Ok(event) => Happening::of(event).map(Ok),
                Err(cause) => Some(Err(failure("tell of events", &socket, QUESTION, cause))),
            };
            std::future::ready(happening)
        })
    }

    async fn asked<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, EngineError> {
        self.within(QUESTION, action, call).await
    }

    async fn told<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, EngineError> {
        self.within(ORDER, action, call).await
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        action: &'static str,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, EngineError> {
        match timeout(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(cause)) => Err(failure(action, &self.socket, deadline, cause)),
            Err(_) => Err(EngineError::Late { action, socket: self.socket.clone(), deadline }),
        }
    }
}

/// What was found, or nothing if there is no such thing.
fn found<T>(answer: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn failure(action: &'static str, socket: &Path, deadline: Duration, cause: ClientError) -> EngineError {
    let socket = socket.to_owned();
    match cause {
        ClientError::DockerResponseServerError { status_code: status, message } => {
            EngineError::Refused { action, socket, status, message }
        }
        ClientError::RequestTimeoutError => EngineError::Late { action, socket, deadline },
        cause => EngineError::Unreachable { action, socket, cause: with_sources(&cause) },
    }
}

/// The client's own words say little: what the kernel answered is further down.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}
