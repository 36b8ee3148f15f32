//! The deterministic simulation: whole networks of real home agents, foreign agents,
//! mobile nodes and dataplane workers on one virtual clock, drawn from a seed, with
//! everything going wrong that can, and rules that must hold at every moment.
//!
//! * [`plan`]: what a seed decides, as data; [`random`]: how.
//! * [`layout`]: addresses and configurations.
//! * [`network`]: frames on their way, and what is wrong with the links.
//! * [`clock`]: NTP clocks that step and drift.
//! * [`world`]: the run; [`attacks`]: what strangers send.
//! * [`oracle`]: the rules, and [`sight`]: what a frame on a link shows.
//! * [`run`]: one seed from the draw to the verdict; [`shrink`]: the least of a plan
//!   that still fails.

pub mod attacks;
pub mod clock;
pub mod layout;
pub mod network;
pub mod oracle;
pub mod plan;
pub mod planted;
pub mod random;
pub mod run;
pub mod shrink;
pub mod sight;
pub mod world;
