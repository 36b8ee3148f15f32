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
pub mod machine;
pub mod measure;
pub mod registrations;
pub mod report;
pub mod storm;
pub mod world;
