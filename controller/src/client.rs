//! A client of the API, over the admin socket.

use crate::admin::problem::Problem;
use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use thiserror::Error;
use tokio::net::UnixStream;

/// The largest answer that is read: the status of a full node is far below it.
const MAX_ANSWER: usize = 1024 * 1024 * 1024;

/// Why a request did not do what it should.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The daemon refused it, or could not do it.
    #[error("{}", describe(.0))]
    Problem(Box<Problem>),
    /// There is no daemon to ask.
    #[error("cannot reach the ringlb daemon at {}: {cause}; is `ringlb daemon` running, with the same --run-dir?", socket.display())]
    Unreachable {
        /// The admin socket.
        socket: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The connection to it broke.
    #[error("the connection to the ringlb daemon at {} broke: {reason}", socket.display())]
    Broken {
        /// The admin socket.
        socket: PathBuf,
        /// How.
        reason: String,
    },
    /// Its answer makes no sense.
    #[error("the ringlb daemon gave an answer that this program does not understand (status {status}): {reason}")]
    Unexpected {
        /// The answer's status.
        status: u16,
        /// What is wrong with it.
        reason: String,
    },
}

/// A client. It keeps its connection from one request to the next.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client of the daemon whose admin socket is at `socket`. Connects with the first request.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), connection: None }
    }

    /// Makes a request. A body is sent as JSON.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn request(&mut self, method: &str, path: &str, body: Option<Value>) -> Result<Value, ClientError> {
        let body = body.map(|body| ("application/json", Bytes::from(body.to_string())));
        self.send(method, path, body).await
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn get(&mut self, path: &str) -> Result<Value, ClientError> {
        self.request("GET", path, None).await
    }

    /// Makes a whole desired state so. `document` is JSON if it starts with `{`, else YAML.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn apply(&mut self, document: impl Into<Bytes>) -> Result<Value, ClientError> {
        let document = document.into();
        let json = document.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let content_type = if json { "application/json" } else { "application/yaml" };
        self.send("POST", "/v1/apply", Some((content_type, document))).await
    }

    /// Makes a request with a body of any type.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn send(&mut self, method: &str, path: &str, body: Option<(&str, Bytes)>) -> Result<Value, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        let body = match body {
            Some((content_type, body)) => {
                request = request.header(CONTENT_TYPE, content_type);
                body
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(body)).map_err(|error| self.broken(&error))?;
        let mut connection = self.connection().await?;
        let response = connection.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.broken(&*error))?.to_bytes();
        self.connection = Some(connection);
        answer(status, &body)
    }

    /// The connection of the last request if it is still good, else a new one.
    async fn connection(&mut self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        if let Some(mut connection) = self.connection.take()
            && connection.ready().await.is_ok()
        {
            return Ok(connection);
        }
        let unreachable = |cause| ClientError::Unreachable { socket: self.socket.clone(), cause };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (connection, driver) = handshake.map_err(|error| self.broken(&error))?;
        // Its errors come to the request that they concern.
        tokio::spawn(async move {
            let _ = driver.await;
        });
        Ok(connection)
    }

    fn broken(&self, error: &dyn std::error::Error) -> ClientError {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        ClientError::Broken { socket: self.socket.clone(), reason }
    }
}

/// One part of a path. What could be taken for a part of the path's syntax is written as `%` and its code.
#[must_use]
pub fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

fn answer(status: StatusCode, body: &[u8]) -> Result<Value, ClientError> {
    let unexpected = |reason: String| ClientError::Unexpected { status: status.as_u16(), reason };
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| unexpected(error.to_string()));
    }
    match serde_json::from_slice(body) {
        Ok(problem) => Err(ClientError::Problem(Box::new(problem))),
        Err(error) => Err(unexpected(error.to_string())),
    }
}

fn describe(problem: &Problem) -> String {
    match problem.errors.as_slice() {
        // What went wrong, and what becomes of it, is said by the detail then.
        _ if problem.status >= 500 => problem.detail.clone(),
        [] => problem.detail.clone(),
        errors => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths() {
        assert_eq!(segment("web-1.a_b"), "web-1.a_b");
        assert_eq!(segment("a/../b?c#d e%"), "a%2F..%2Fb%3Fc%23d%20e%25");
        assert_eq!(segment("ä"), "%C3%A4");
        assert_eq!(segment("fd00::1"), "fd00::1");
    }
}
