//! The binding table of home agents: home address to tunnel.

use std::net::Ipv4Addr;

use homeport_wire::{PortId, TenantId, checksum};

use super::classes::Class;
use super::keyed::{TableKey, WORDS, tenant_address};

/// The most simultaneous bindings of one node that the dataplane copies to.
pub const MAX_TUNNELS: usize = 4;

/// What a binding is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BindingKey {
    /// The virtual home agent.
    pub tenant: TenantId,
    /// The node's home address.
    pub home_address: Ipv4Addr,
}

impl TableKey for BindingKey {
    /// Bindings lie together in home networks: the /16 tells most correspondents from
    /// mobile nodes, however many of these there are.
    const CLASS: Class = Class::BOUND;

    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        [tenant_address(self.tenant, self.home_address), 0, 0]
    }

    #[inline(always)]
    fn filtered(&self) -> Option<Ipv4Addr> {
        Some(self.home_address)
    }
}

/// How a tunnel encapsulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encapsulation {
    /// IP in IP (RFC 2003).
    #[default]
    IpInIp,
    /// Minimal encapsulation (RFC 2004). A fragment cannot be encapsulated so: it
    /// goes as IP in IP.
    Minimal,
    /// Generic routing encapsulation (RFC 2784).
    Gre {
        /// The key (RFC 2890), if there is one.
        key: Option<u32>,
    },
    /// IP in UDP with a tunnel data header (RFC 3519). Our own port is 434.
    Udp {
        /// The other end's port; zero while the tunnel is half-bound: the port is
        /// not known yet (RFC 3519 §4.11).
        peer_port: u16,
    },
    /// IP in UDP without a header between. Our own port is 434.
    PlainUdp {
        /// The other end's port.
        peer_port: u16,
    },
}

/// The kind of an [`Encapsulation`], as it is kept in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    IpInIp,
    Minimal,
    Gre,
    GreKeyed,
    Udp,
    PlainUdp,
}

/// What is so of a tunnel, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelFlags(u8);

impl TunnelFlags {
    /// Packets from it are accepted (reverse tunnel, RFC 3024).
    pub const REVERSE: TunnelFlags = TunnelFlags(1);
    /// The node itself decapsulates.
    pub const CO_LOCATED: TunnelFlags = TunnelFlags(2);
    /// The node wants the home network's broadcasts.
    pub const BROADCAST: TunnelFlags = TunnelFlags(4);
    /// Nobody has shown yet that the node is where the tunnel leads: it gets no
    /// more than three times what came from there.
    pub const UNPROVEN: TunnelFlags = TunnelFlags(8);

    /// These flags and those, if `set`.
    #[must_use]
    pub const fn with(self, flags: TunnelFlags, set: bool) -> Self {
        TunnelFlags(if set { self.0 | flags.0 } else { self.0 })
    }

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: TunnelFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// An [`Encapsulation`] as it is kept, and quickly compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carrier {
    /// The GRE key, or the other end's UDP port.
    parameter: u32,
    kind: Kind,
}

impl Carrier {
    /// That of an encapsulation.
    #[inline(always)]
    pub(crate) const fn of(encapsulation: Encapsulation) -> Self {
        let (kind, parameter) = match encapsulation {
            Encapsulation::IpInIp => (Kind::IpInIp, 0),
            Encapsulation::Minimal => (Kind::Minimal, 0),
            Encapsulation::Gre { key: None } => (Kind::Gre, 0),
            Encapsulation::Gre { key: Some(key) } => (Kind::GreKeyed, key),
            Encapsulation::Udp { peer_port } => (Kind::Udp, peer_port as u32),
            Encapsulation::PlainUdp { peer_port } => (Kind::PlainUdp, peer_port as u32),
        };
        Carrier { parameter, kind }
    }

    /// Whether it is minimal encapsulation.
    #[inline(always)]
    pub(crate) const fn is_minimal(self) -> bool {
        matches!(self.kind, Kind::Minimal)
    }
}

/// One tunnel of a binding.
#[derive(Clone, Copy, Debug)]
pub struct TunnelEnd {
    care_of_address: Ipv4Addr,
    /// As in a [`Carrier`].
    parameter: u32,
    kind: Kind,
    flags: TunnelFlags,
    /// See [`TunnelEnd::sum`].
    sum: u16,
}

/// What follows from the entry that it is in does not count.
impl PartialEq for TunnelEnd {
    fn eq(&self, other: &Self) -> bool {
        (self.care_of_address, self.carrier(), self.flags)
            == (other.care_of_address, other.carrier(), other.flags)
    }
}

impl Eq for TunnelEnd {}

impl TunnelEnd {
    /// A tunnel that ends at `care_of_address`: the outer destination, and the only
    /// outer source that its reverse tunnel may have. Behind a NAT that is the
    /// NAT's address.
    pub const fn new(
        care_of_address: Ipv4Addr,
        encapsulation: Encapsulation,
        flags: TunnelFlags,
    ) -> Self {
        let Carrier { parameter, kind } = Carrier::of(encapsulation);
        TunnelEnd { care_of_address, parameter, kind, flags, sum: 0 }
    }

    /// The same in the entry of a node of this home agent.
    fn in_entry_of(self, home_agent: Ipv4Addr) -> Self {
        let [a, b, c, d] = home_agent.octets();
        let [e, f, g, h] = self.care_of_address.octets();
        // The sum of half-words in the other order is the sum in the other order.
        let sum = !checksum::checksum(&[a, b, c, d, e, f, g, h]).swap_bytes();
        TunnelEnd { sum, ..self }
    }

    /// What outer source and destination add to the checksum of an outer header: the
    /// one's-complement sum of their half-words, the lower byte first (RFC 1071 §2 (B)).
    #[inline(always)]
    pub(crate) const fn sum(&self) -> u16 {
        self.sum
    }

    /// What carries its packets.
    #[inline(always)]
    pub(crate) const fn carrier(&self) -> Carrier {
        Carrier { parameter: self.parameter, kind: self.kind }
    }

    /// Where the tunnel ends.
    pub const fn care_of_address(&self) -> Ipv4Addr {
        self.care_of_address
    }

    /// How it encapsulates.
    pub const fn encapsulation(&self) -> Encapsulation {
        // A port was widened to 32 bits.
        let peer_port = self.parameter as u16;
        match self.kind {
            Kind::IpInIp => Encapsulation::IpInIp,
            Kind::Minimal => Encapsulation::Minimal,
            Kind::Gre => Encapsulation::Gre { key: None },
            Kind::GreKeyed => Encapsulation::Gre { key: Some(self.parameter) },
            Kind::Udp => Encapsulation::Udp { peer_port },
            Kind::PlainUdp => Encapsulation::PlainUdp { peer_port },
        }
    }

    /// Whether it is so.
    pub const fn is(&self, flags: TunnelFlags) -> bool {
        self.flags.contains(flags)
    }
}

/// How an entry's tunnels treat packets, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryFlags(u8);

impl EntryFlags {
    /// Outer headers have DF even when the packet inside has not; else it is
    /// copied (RFC 2003 §3.1).
    pub const SET_DF: EntryFlags = EntryFlags(1);
    /// TCP connections are told of the tunnel's MTU by their segment size.
    pub const CLAMP_MSS: EntryFlags = EntryFlags(2);

    /// These flags and those, if `set`.
    #[must_use]
    pub const fn with(self, flags: EntryFlags, set: bool) -> Self {
        EntryFlags(if set { self.0 | flags.0 } else { self.0 })
    }

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: EntryFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// Forwarding state of one home address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingEntry {
    /// Outer source of everything tunnelled.
    pub home_agent: Ipv4Addr,
    tunnels: [TunnelEnd; MAX_TUNNELS],
    /// The home link's number, or [`NO_LINK`].
    home_link: u16,
    tunnel_count: u8,
    /// How its tunnels treat packets.
    pub flags: EntryFlags,
}

/// No port has this number.
const NO_LINK: u16 = u16::MAX;

// With its key, an entry is one cache line.
const _: () = assert!(size_of::<BindingKey>() + size_of::<BindingEntry>() == 64);

impl BindingEntry {
    /// The entry of a node that is reached by `tunnels`; those beyond
    /// [`MAX_TUNNELS`] are left out. `None` without any tunnel. ARP for the home
    /// address is answered on `home_link`.
    pub fn new(
        home_agent: Ipv4Addr,
        tunnels: impl IntoIterator<Item = TunnelEnd>,
        home_link: Option<PortId>,
        flags: EntryFlags,
    ) -> Option<Self> {
        let mut ends = tunnels.into_iter().map(|end| end.in_entry_of(home_agent));
        let first = ends.next()?;
        let mut tunnels = [first; MAX_TUNNELS];
        let mut tunnel_count = 1;
        for (slot, end) in tunnels.iter_mut().skip(1).zip(ends) {
            *slot = end;
            tunnel_count += 1;
        }
        let home_link = home_link.map_or(NO_LINK, |port| port.0);
        Some(BindingEntry { home_agent, tunnels, home_link, tunnel_count, flags })
    }

    /// Its tunnels: never none.
    pub fn tunnels(&self) -> &[TunnelEnd] {
        self.tunnels.get(..usize::from(self.tunnel_count)).unwrap_or(&self.tunnels)
    }

    /// The home link on which ARP for the home address is answered.
    pub const fn home_link(&self) -> Option<PortId> {
        if self.home_link == NO_LINK { None } else { Some(PortId(self.home_link)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_gives_back_what_it_was_made_from() {
        let flags = TunnelFlags::default()
            .with(TunnelFlags::REVERSE, true)
            .with(TunnelFlags::CO_LOCATED, false)
            .with(TunnelFlags::UNPROVEN, true);
        let ends = [
            Encapsulation::IpInIp,
            Encapsulation::Minimal,
            Encapsulation::Gre { key: None },
            Encapsulation::Gre { key: Some(0) },
            Encapsulation::Gre { key: Some(u32::MAX) },
            Encapsulation::Udp { peer_port: 0 },
            Encapsulation::Udp { peer_port: 65_535 },
            Encapsulation::PlainUdp { peer_port: 434 },
        ];
        for encapsulation in ends {
            let address = Ipv4Addr::new(10, 0, 2, 2);
            let end = TunnelEnd::new(address, encapsulation, flags);
            assert_eq!((end.care_of_address(), end.encapsulation()), (address, encapsulation));
            assert!(end.is(TunnelFlags::REVERSE) && end.is(TunnelFlags::UNPROVEN));
            assert!(!end.is(TunnelFlags::CO_LOCATED) && !end.is(TunnelFlags::BROADCAST));
            let home_agent = Ipv4Addr::new(10, 0, 1, 2);
            for count in 1..=MAX_TUNNELS + 1 {
                let link = Some(PortId(7)).filter(|_| count % 2 == 0);
                let entry =
                    BindingEntry::new(home_agent, vec![end; count], link, EntryFlags::SET_DF)
                        .unwrap();
                assert_eq!(entry.tunnels(), vec![end; count.min(MAX_TUNNELS)]);
                assert_eq!((entry.home_link(), entry.flags), (link, EntryFlags::SET_DF));
            }
        }
        assert_eq!(BindingEntry::new(Ipv4Addr::LOCALHOST, [], None, EntryFlags::default()), None);
    }
}
