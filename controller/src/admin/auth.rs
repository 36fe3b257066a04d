//! The bearer token of the TCP listener.

use super::problem::Problem;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use thiserror::Error;

/// The least length of a token.
const LEAST_LENGTH: usize = 16;
/// What needs no token: whether the daemon is there.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token from {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write a new token to {}: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// Others can read it.
    #[error("{} can be read by others: make it mode 0600", path.display())]
    Readable {
        /// The file.
        path: PathBuf,
    },
    /// It can be guessed, or cannot be sent in a header.
    #[error("the token in {} is not one line of {LEAST_LENGTH} printable ASCII characters or more", path.display())]
    Weak {
        /// The file.
        path: PathBuf,
    },
}

/// A bearer token. It is never shown.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// Reads the token of a file, without white space around it.
    ///
    /// # Errors
    /// Any [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let read_error = |cause| TokenError::Read { path: path.to_owned(), cause };
        let file = File::open(path).map_err(read_error)?;
        if file.metadata().map_err(read_error)?.mode() & 0o077 != 0 {
            return Err(TokenError::Readable { path: path.to_owned() });
        }
        let mut text = String::new();
        file.take(4096).read_to_string(&mut text).map_err(read_error)?;
        let token = text.trim();
        if token.len() < LEAST_LENGTH || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Weak { path: path.to_owned() });
        }
        Ok(Self(token.into()))
    }

    /// Makes a token of 256 random bits and writes it to a file that only its owner can read, in place of what is there.
    ///
    /// # Errors
    /// Any [`TokenError`].
    pub fn generate(path: &Path) -> Result<Self, TokenError> {
        let random_path = Path::new("/dev/urandom");
        let mut random = [0u8; 32];
        File::open(random_path)
            .and_then(|mut file| file.read_exact(&mut random))
            .map_err(|cause| TokenError::Read { path: random_path.to_owned(), cause })?;
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let write = || {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            writeln!(file, "{token}")
        };
        write().map_err(|cause| TokenError::Write { path: path.to_owned(), cause })?;
        Ok(Self(token.into()))
    }

    /// Whether a request has it, in a time that does not tell how much of it is right.
    fn is_in(&self, request: &Request) -> bool {
        let Some(value) = request.headers().get(header::AUTHORIZATION) else { return false };
        let Some((scheme, token)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else { return false };
        scheme.eq_ignore_ascii_case("bearer") && bool::from(token.trim().as_bytes().ct_eq(self.0.as_bytes()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(..)")
    }
}

/// Lets a request pass that has the token or needs none.
pub(super) async fn check(State(token): State<Token>, request: Request, next: Next) -> Response {
    if OPEN_PATHS.contains(&request.uri().path()) || token.is_in(&request) {
        return next.run(request).await;
    }
    let detail = "send the header `Authorization: Bearer TOKEN` with the token of this daemon";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_generated_token_is_secret_and_new() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.token");
        let first = Token::generate(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Token::read(&path).unwrap().0, first.0);
        assert_eq!(first.0.len(), 64);
        assert_ne!(Token::generate(&path).unwrap().0, first.0);
        assert!(!format!("{first:?}").contains(&*first.0));
    }

    #[test]
    fn a_token_that_is_no_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(matches!(Token::read(&path), Err(TokenError::Read { .. })));
        fs::write(&path, "0123456789abcdef\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Token::read(&path), Err(TokenError::Readable { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(Token::read(&path).is_ok());
        for weak in ["short", "", "0123456789 abcdef", "0123456789abcdeä"] {
            fs::remove_file(&path).unwrap();
            fs::write(&path, weak).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Token::read(&path), Err(TokenError::Weak { .. })), "{weak:?}");
        }
    }
}
