//! The asking side of the admin API: HTTP/1.1 over the unix socket, one request
//! to a connection, blocking.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::api::Refusal;

/// How long an answer may take; the server itself gives up earlier.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer that is read, in bytes: a few million bindings.
const MAX_ANSWER: u64 = 1 << 30;

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody answers on the socket.
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The daemon refused.
    Refused(Box<Refusal>),
    /// What answered is no daemon of this version.
    NotUnderstood(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Unreachable { socket, error } => {
                write!(f, "no daemon answers on {}: {error}", socket.display())
            }
            ClientError::Refused(refusal) => refusal.fmt(f),
            ClientError::NotUnderstood(what) => write!(f, "the answer is not understood: {what}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Asks the daemon on one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon on this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client { socket: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Gets a view.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.request("GET", path, None)
    }

    /// Posts a JSON body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.request("POST", path, Some(body))
    }

    /// Deletes what a path names.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.request("DELETE", path, None)
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let unreachable = |error| ClientError::Unreachable { socket: self.socket.clone(), error };
        let stream = UnixStream::connect(&self.socket).map_err(unreachable)?;
        let answer = exchange(stream, method, path, body).map_err(unreachable)?;
        let (status, body) = parse(&answer).map_err(ClientError::NotUnderstood)?;
        let value = serde_json::from_slice(body)
            .map_err(|error| ClientError::NotUnderstood(error.to_string()))?;
        if (200..300).contains(&status) {
            return Ok(value);
        }
        match serde_json::from_value(value) {
            Ok(refusal) => Err(ClientError::Refused(Box::new(refusal))),
            Err(_) => Err(ClientError::NotUnderstood(format!("status {status} without a reason"))),
        }
    }
}

/// Sends one request and reads until the server closes.
fn exchange(
    mut stream: UnixStream,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    // A server that refuses early may close before it has read all: then its
    // answer says more than our error.
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut answer = Vec::new();
    let received = stream.take(MAX_ANSWER).read_to_end(&mut answer);
    match (sent, received) {
        (_, Ok(_)) if !answer.is_empty() => Ok(answer),
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(()), Ok(_)) => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed without an answer"))
        }
    }
}

/// Status and body of an answer (RFC 9112). Our server always says the length, so
/// an answer without it, or shorter than it, was cut.
fn parse(answer: &[u8]) -> Result<(u16, &[u8]), String> {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or("there is no end of the header")?;
    let (head, rest) = answer.split_at_checked(end).ok_or("there is no header")?;
    let body = rest.get(4..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| "the header is no text")?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let status = match (first.next(), first.next()) {
        (Some("HTTP/1.1" | "HTTP/1.0"), Some(status)) => status.parse().ok(),
        _ => None,
    }
    .ok_or("this is no HTTP/1.1")?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .ok_or("its length is missing")?;
    if body.len() != length {
        return Err(format!("{} of {length} bytes came", body.len()));
    }
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_cut_or_is_no_http_is_not_believed() {
        let good = b"HTTP/1.1 404 Not Found\r\ncontent-LENGTH: 2\r\nx: y\r\n\r\n{}";
        assert_eq!(parse(good), Ok((404, &b"{}"[..])));
        for cut in 0..good.len() {
            assert!(parse(&good[..cut]).is_err(), "cut at {cut}");
        }
        for bad in [
            &b"SSH-2.0-x\r\n\r\n"[..],
            b"HTTP/1.1 ok\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}",
        ] {
            assert!(parse(bad).is_err());
        }
    }

    #[test]
    fn a_socket_that_is_not_there_is_unreachable() {
        let error = Client::new("/nonexistent/homeport.sock").get("/v1/status").unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }));
        assert!(error.to_string().starts_with("no daemon answers on /nonexistent/homeport.sock"));
    }
}
