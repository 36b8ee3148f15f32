//! The admin API, and everything that people and programs see of a running
//! Homeport: one versioned API (JSON over HTTP/1.1 on a unix socket) under the
//! CLI, the metrics and the tests.
//!
//! A walk through `homeport show bindings`: the command asks over the socket,
//! the `server` turns the path into a [`Query`](api::Query) with the caller's
//! [`Identity`](api::Identity), the event loop takes it from its
//! [`AdminHandle`](api::AdminHandle) when nothing more urgent waits and answers
//! with [`view`]s, which travel back as JSON and are printed.

pub mod api;
pub mod client;
pub mod explain;
mod listener;
pub mod metrics;
pub mod names;
pub mod print;
pub mod server;
pub mod sessions;
pub mod show;
pub mod sockets;
pub mod table;
pub mod top;
pub mod trace;
pub mod view;
