//! The programs as people run them, and the parts of them that need a kernel.
//!
//! One program for all of it: each would link the whole of Homeport once more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod admin;
mod daemon;
mod homeportd;
mod kernel;
mod mobile_home_address;
mod mobile_node;
mod mobile_sessions;
mod mobile_tunnels;
mod namespace;
mod napt;
mod replay;
mod session_net;
