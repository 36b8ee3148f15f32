//! The packet dataplane of Homeport.
//!
//! # The life of a packet
//!
//! A [`worker`] polls its ports. A port hands it a [`burst`](packet::Burst) of up
//! to [`BURST`](packet::BURST) packets, each in a [`Packet`](packet::Packet) with
//! headroom in front. The worker runs stages over the whole burst: `fast` reads each
//! frame, brings the bucket and then the entry of its address into the cache, and
//! takes the packets that need nothing more than a tunnel, a route or a known
//! translation to their end; while registration messages are shed, `surge` takes those
//! before it. What is left goes the general way, packet by packet:
//! [`parse`] reads the frame; [`classify`] names the packet (pure functions from bytes
//! and table readers to a
//! class); forwarding does what the name says: [`encap`]/[`decap`] rewrite in
//! place, the route says the port, [`adjacency`] puts the link header in front, or
//! [`hold`] keeps the packet until its next hop has answered; and the port
//! transmits the burst. What the dataplane does not claim goes to the port's
//! kernel twin; what is for the protocol machines is *punted* to the control core
//! over a bounded ring, with its reason.
//!
//! Every packet that is received ends in exactly one [`Verdict`](verdict::Verdict),
//! and every verdict is counted at the port that the packet came in on:
//! `total_in == transmitted + punted + to_kernel + Σ dropped + held`, always
//! ([`stats`]).
//!
//! # What the control core may do
//!
//! It writes the tables ([`table`]), takes punted packets and injects its own
//! ([`punt`]), and reads counters ([`stats`]). RX cores poll, never block, never
//! lock, never allocate; a reader of a table never waits.
//!
//! # Modules
//!
//! [`launch`] makes a dataplane · [`worker`] runs it, several of them on a core each · [`packet`] buffers and bursts · [`port`] where packets come from and go to ·
//! [`table`] what the control core knows, readable without waiting · [`verdict`]
//! what becomes of a packet · [`napt`] address translation · [`punt`] the rings to and from
//! the control core · [`trace`] each step of a packet, for who asks.

pub mod adjacency;
pub mod allowance;
pub mod arp;
pub mod broadcast;
pub mod classify;
pub mod config;
pub mod decap;
pub mod encap;
mod fast;
mod forward;
pub mod fragment;
mod handover;
pub mod hold;
pub mod icmp_error;
pub mod keepalive;
pub mod launch;
pub mod mss;
pub mod napt;
mod output;
pub mod packet;
pub mod parse;
#[cfg(feature = "planted-bugs")]
pub mod planted;
pub mod port;
pub mod punt;
pub mod reassembly;
mod registration;
pub mod ring;
pub mod stats;
mod steering;
mod surge;
mod sync;
pub mod table;
pub mod trace;
pub mod tunnel_icmp;
pub mod tunnel_mtu;
pub mod verdict;
pub mod worker;

pub use homeport_wire::{MacAddress, PortId, TenantId};
