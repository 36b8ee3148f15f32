//! Measurements of Homeport.
//!
//! The program `throughput` measures; this library is what it is made of, so that each
//! part has tests of its own. A figure here is one that was measured in this run: what
//! could not be measured is absent, with the reason.

pub mod addresses;
pub mod alloc;
pub mod case;
pub mod check;
pub mod cycles;
pub mod frames;
pub mod generator;
pub mod latency;
pub mod machine;
pub mod measure;
#[cfg(feature = "dpdk")]
pub mod null_path;
mod order;
pub mod plan;
pub mod plot;
pub mod ports;
pub mod print;
pub mod progress;
pub mod registrations;
pub mod report;
pub mod scaling;
pub mod storm;
pub mod subscribers;
pub mod suite;
pub mod tables;
pub mod targets;
pub mod world;
pub mod yardstick;
