//! Mobile IP as pure state machines (RFC 5944, RFC 2002, RFC 3024, RFC 1256).
//!
//! # The contract
//!
//! Nothing here reads a clock, a random source or a socket. A machine is driven
//! from outside, in this order:
//!
//! 1. `handle_*(input, now)`: something happened. [`Now`] carries monotonic time
//!    for timers and NTP time for identifications.
//! 2. `poll_action()` until it gives `None`: what to do about it, in order. The
//!    order is binding: *install before reply* means that the action which
//!    installs a binding precedes the one that sends the accepting reply.
//! 3. `poll_timeout()`: when to call `handle_timeout` if nothing else happens.
//!
//! Randomness (nonces, jitter) comes from a generator seeded at construction. So
//! a recorded list of inputs replays to the same actions; with what was [drawn](draws)
//! beside it, even without the seed and the keys.
//!
//! # Where things live
//!
//! * [`message`]: what is on the wire, parsed into values.
//! * [`security`]: mobility security associations and authenticators.
//! * [`identification`]: replay protection by timestamps and by nonces.
//! * [`decision`]: why a message was accepted, denied or discarded, for who asks.
//! * [`limits`]: every bound, its number and its counter.
//! * [`home_agent`] with [`binding`], [`foreign_agent`] with [`visitor`],
//!   [`advertiser`], `mobile_node`: the machines.
//! * [`agent`]: one process's home agents, foreign agents and advertisers behind
//!   one set of inputs and outputs.
//!
//! `List`s here are the RFC's records (lifetimes, identification, security); the
//! forwarding tables derived from them belong to the dataplane.
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::cast_possible_truncation)]

extern crate alloc;

pub mod action;
pub mod advertiser;
pub mod agent;
pub mod binding;
pub mod config;
pub mod counters;
pub mod decision;
pub mod draws;
pub mod event;
pub mod foreign_agent;
pub mod hex;
pub mod home_agent;
pub mod identification;
pub mod keepalive;
pub mod limits;
pub mod message;
pub mod mobile_node;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod revocation;
pub mod security;
pub mod shown;
pub mod time;
mod timer;
pub mod visitor;

pub use action::{Action, Encapsulation, Payload, ReverseTunnel, StoredSession, Transmit};
pub use agent::{Agent, Datagram};
pub use homeport_wire::{MacAddress, PortId, TenantId};
pub use keepalive::TunnelledEcho;
pub use time::{Instant, Lifetime, Now, NtpTime};
