//! Behaviours across crates.
//!
//! One program for all of it: each would link the whole of Homeport once more.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod conformance;
mod corpora;
mod decoders;
mod features;
mod nat;
mod realms;
mod roaming;
mod simulation;
