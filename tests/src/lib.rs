//! What the behaviours in `tests/` share: frames, captures and outside judges.
//!
//! This crate is for tests only, so it panics where a test should fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support"
)]

pub mod decoder;
pub mod frame;
pub mod fuzz;
pub mod host;
pub mod nat;
pub mod realms;
pub mod world;
