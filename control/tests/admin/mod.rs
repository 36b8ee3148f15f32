//! The admin API and the `homeport` command as an operator meets them: a real
//! server on a real socket, the real binary, and a thread in the place of the
//! event loop that answers with real types. (B-08)

mod command;
mod config;
mod explain;
mod harness;
mod real;
mod server;
mod sessions;
mod show;
mod trace;
