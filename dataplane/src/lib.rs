//! The packet dataplane of Homeport.
//!
//! # The life of a packet
//!
//! A [`worker`] polls its ports. A port hands it a [`burst`](packet::Burst) of up
//! to [`BURST`](packet::BURST) packets, each in a [`Packet`](packet::Packet) with
//! headroom in front. The worker runs stages over the whole burst: `classify`
//! names each packet (a pure function from bytes and table readers to a class),
//! the tables say where it goes, [`encap`]/[`decap`] rewrite it in place,
//! [`adjacency`] puts the link header in front, and the port transmits it. What
//! the dataplane does not claim goes to the port's kernel twin; what is for the
//! protocol machines is *punted* to the control core over a bounded ring, with
//! its reason.
//!
//! Every packet that is received ends in exactly one [`Verdict`](verdict::Verdict),
//! and every verdict is counted:
//! `rx == tx + punted + to_kernel + Σ dropped + held`, always.
//!
//! # What the control core may do
//!
//! It writes the tables ([`table`]), takes punted packets and injects its own
//! ([`punt`]), and reads counters ([`stats`]). RX cores poll, never block, never
//! lock, never allocate; a reader of a table never waits.
//!
//! # Modules
//!
//! [`packet`] buffers and bursts · [`port`] where packets come from and go to ·
//! [`table`] what the control core knows, readable without waiting · [`verdict`]
//! what becomes of a packet · [`punt`] the rings to and from the control core.

pub mod packet;
pub mod port;
pub mod punt;
pub mod ring;
pub mod stats;
mod sync;
pub mod table;
pub mod verdict;

pub use homeport_wire::{MacAddress, PortId, TenantId};
