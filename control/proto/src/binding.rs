//! A home agent's mobility bindings: the record of RFC 5944 §3.8.1, from which
//! the forwarding state is derived.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::{PortId, TenantId};
use smallvec::SmallVec;

use crate::action::{BindingState, CareOf};
use crate::config::Prefix;
use crate::message::{Identification, RequestFlags};
use crate::{Instant, Lifetime};

/// The care-of addresses of a binding. Most have one, which takes no memory of its own.
pub type Registrations = SmallVec<[Registration; 1]>;

/// Where one mobile node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MobilityBinding {
    /// The virtual home agent.
    pub tenant: TenantId,
    /// The node's home address.
    pub home_address: Ipv4Addr,
    /// The home agent's address.
    pub home_agent: Ipv4Addr,
    /// The link of its home network; `None` on a virtual one.
    pub home_link: Option<PortId>,
    /// The networks behind it, if it is a mobile router (RFC 5177 §6.2.1).
    pub mobile_networks: Vec<Prefix>,
    /// Whether outer headers always have DF; else it is copied.
    pub set_df: bool,
    /// Whether TCP is told of the tunnel's MTU.
    pub clamp_mss: bool,
    /// Since when there is a binding, renewals not counted; in whole seconds.
    pub since: Instant,
    /// Its care-of addresses, the one registered first in front. Never empty.
    pub registrations: Registrations,
}

/// One care-of address of a binding, and the request that registered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The tunnel, with the lifetime granted.
    pub care_of: CareOf,
    /// The flags of the request.
    pub flags: RequestFlags,
    /// The identification of the request.
    pub identification: Identification,
    /// When it was accepted.
    pub registered_at: Instant,
    /// When it ends; `None` is never.
    pub expires: Option<Instant>,
    /// The foreign agent that relayed the request, if one did.
    pub foreign_agent: Option<Ipv4Addr>,
    /// The keepalive interval that the other end of a UDP tunnel was told.
    pub keepalive: Option<Duration>,
    /// How far the question stands whether the node is where its tunnel goes.
    pub(crate) proof: Option<PathProof>,
}

/// The question whether the node is where its tunnel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathProof {
    /// What only who receives our question can know.
    pub(crate) nonce: u64,
    /// When it was asked first; the answer is waited for from then on.
    pub(crate) begun: Instant,
    /// How often it has been asked.
    pub(crate) asked: usize,
    /// Bytes that may still be sent there: three times what came from there, less
    /// what was sent.
    pub(crate) allowance: usize,
}

impl Registration {
    /// What is left of the lifetime, in whole seconds.
    pub fn remaining(&self, now: Instant) -> Lifetime {
        self.expires.map_or(Lifetime::INFINITE, |expires| {
            let seconds = expires.saturating_since(now).as_secs();
            Lifetime(u16::try_from(seconds).unwrap_or(u16::MAX - 1))
        })
    }
}

impl MobilityBinding {
    /// The registration of a care-of address, by the address that the node itself
    /// knows: behind a NAT, the one that no other node need be alone with.
    pub fn registration(&self, care_of_address: Ipv4Addr) -> Option<&Registration> {
        self.registrations
            .iter()
            .find(|registration| registration.care_of.registered == care_of_address)
    }

    /// The forwarding state.
    pub fn state(&self) -> BindingState {
        BindingState {
            tenant: self.tenant,
            home_address: self.home_address,
            home_agent: self.home_agent,
            care_of_addresses: self.registrations.iter().map(|one| one.care_of).collect(),
            home_link: self.home_link,
            mobile_networks: self.mobile_networks.clone(),
            set_df: self.set_df,
            clamp_mss: self.clamp_mss,
        }
    }

    /// When the next care-of address expires.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.registrations.iter().filter_map(|registration| registration.expires).min()
    }

    /// Adds a registration, or renews that of the same care-of address.
    pub(crate) fn put(&mut self, registration: Registration) {
        let address = registration.care_of.registered;
        match self.registrations.iter_mut().find(|one| one.care_of.registered == address) {
            Some(before) => *before = registration,
            None => self.registrations.push(registration),
        }
    }
}
