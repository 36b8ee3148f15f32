//! A listener that keeps its connections few and short-lived, so that nobody
//! takes the daemon's descriptors by connecting and staying.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// How many connections a listener keeps; further ones wait.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// How long a connection lasts. Long enough for any request, and scrapers connect
/// again.
pub(super) const MAX_AGE: Duration = Duration::from_secs(60);

/// A listener with at most [`MAX_CONNECTIONS`] connections of at most [`MAX_AGE`].
#[derive(Debug)]
pub(super) struct Bounded<L> {
    listener: L,
    permits: Arc<Semaphore>,
    max_age: Duration,
}

impl<L> Bounded<L> {
    /// Bounds `listener`.
    pub(super) fn new(listener: L) -> Self {
        Bounded::with_bounds(listener, MAX_CONNECTIONS, MAX_AGE)
    }

    fn with_bounds(listener: L, connections: usize, max_age: Duration) -> Self {
        Bounded { listener, permits: Arc::new(Semaphore::new(connections)), max_age }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Held<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed, so a permit always comes.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, address) = self.listener.accept().await;
        let end = Box::pin(tokio::time::sleep(self.max_age));
        (Held { stream, end, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with its permit and its end.
#[derive(Debug)]
pub(super) struct Held<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S> Held<S> {
    /// The connection itself.
    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Ready with an error once its time is over; else wakes the task then.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.end.as_mut().poll(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the connection lasted too long"))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_end(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_end(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    #[test]
    fn connections_beyond_the_bound_wait_and_silent_ones_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let age = Duration::from_millis(50);
            let mut bounded = Bounded::with_bounds(listener, 1, age);
            let _first = TcpStream::connect(address).await.unwrap();
            let _second = TcpStream::connect(address).await.unwrap();
            let (mut held, _) = bounded.accept().await;
            let waits = tokio::time::timeout(Duration::from_millis(20), bounded.accept()).await;
            assert!(waits.is_err(), "the second waits for the first");
            let error = held.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            drop(held);
            tokio::time::timeout(Duration::from_secs(5), bounded.accept()).await.unwrap();
        });
    }
}
