//! What flows and mappings are found by, packed into words: they are hashed and
//! compared as such.

use std::net::Ipv4Addr;

use homeport_wire::{MacAddress, TenantId};

use super::InsideHost;
use super::config::Dependence;
use super::plain::Ends;
use super::segment::{Endpoint, Transport};
use crate::table::keyed::{TableKey, WORDS, tenant_address};

/// The bit that says that there is a station.
const HAS_STATION: u64 = 1 << 48;

/// The bits of the transport beside a station.
const TRANSPORT: u64 = 0xff << 56;

/// An inside endpoint, whose it is, and a remote endpoint: what an outbound packet
/// says. Of a mapping, the remote endpoint as far as the mapping depends on it, and
/// zeros for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowKey {
    /// Tenant and inside address.
    inside: u64,
    /// Remote address, inside port, remote port, from the highest bits down.
    ports: u64,
    /// Transport, whether there is a station, station.
    station: u64,
}

#[inline(always)]
fn station_word(station: Option<MacAddress>) -> u64 {
    station.map_or(0, |MacAddress([a, b, c, d, e, f])| {
        HAS_STATION | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    })
}

impl TableKey for FlowKey {
    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        [self.inside, self.ports, self.station]
    }
}

impl FlowKey {
    #[inline(always)]
    pub(super) fn new(
        host: &InsideHost,
        transport: Transport,
        port: u16,
        remote: Endpoint,
    ) -> Self {
        FlowKey {
            inside: tenant_address(host.tenant, host.address),
            ports: u64::from(remote.address.to_bits()) << 32
                | u64::from(port) << 16
                | u64::from(remote.port),
            station: (transport as u64) << 56 | station_word(host.station),
        }
    }

    /// Of a plain packet that goes out.
    #[inline(always)]
    pub(super) fn of_plain(ends: &Ends, tenant: TenantId, station: Option<MacAddress>) -> Self {
        FlowKey {
            inside: tenant_address(tenant, ends.source),
            ports: u64::from(ends.destination.to_bits()) << 32 | u64::from(ends.ports),
            station: (ends.transport as u64) << 56 | station_word(station),
        }
    }

    /// The key of the mapping that this flow has.
    #[inline(always)]
    pub(super) const fn mapping(self, dependence: Dependence) -> FlowKey {
        let kept = match dependence {
            Dependence::EndpointIndependent => 0xffff_0000,
            Dependence::AddressDependent => 0xffff_ffff_ffff_0000,
            Dependence::AddressAndPortDependent => u64::MAX,
        };
        FlowKey { ports: self.ports & kept, ..self }
    }

    /// The same with another inside port.
    pub(super) const fn with_port(self, port: u16) -> FlowKey {
        FlowKey { ports: self.ports & !0xffff_0000 | (port as u64) << 16, ..self }
    }

    /// The same of the port before this one, if the two may be a pair of RTP and RTCP
    /// (RFC 4787 §4.2.3).
    #[inline]
    pub(super) fn before(self) -> Option<FlowKey> {
        let is_second = self.transport() == Transport::Udp && self.port() & 1 == 1;
        is_second.then(|| self.with_port(self.port() - 1))
    }

    /// The same of another station at the same address.
    pub(super) fn with_station(self, station: Option<MacAddress>) -> FlowKey {
        let host = InsideHost { station, ..self.host() };
        FlowKey::new(&host, self.transport(), self.port(), self.remote())
    }

    /// Whose it is.
    #[inline(always)]
    pub(super) fn host(&self) -> InsideHost {
        self.host_key().host()
    }

    /// What its host is found by.
    #[inline(always)]
    pub(super) const fn host_key(&self) -> HostKey {
        HostKey { inside: self.inside, station: self.station & !TRANSPORT }
    }

    #[inline(always)]
    pub(super) const fn transport(&self) -> Transport {
        match self.station >> 56 {
            0 => Transport::Tcp,
            1 => Transport::Udp,
            _ => Transport::IcmpQuery,
        }
    }

    /// The inside port.
    #[inline(always)]
    pub(super) const fn port(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// The inside endpoint.
    #[inline(always)]
    pub(super) const fn inside(&self) -> Endpoint {
        Endpoint { address: Ipv4Addr::from_bits(self.inside as u32), port: self.port() }
    }

    #[inline(always)]
    pub(super) const fn remote(&self) -> Endpoint {
        let address = Ipv4Addr::from_bits((self.ports >> 32) as u32);
        Endpoint { address, port: self.ports as u16 }
    }
}

/// An inside host, in the words that the keys of its flows begin and end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostKey {
    inside: u64,
    station: u64,
}

impl TableKey for HostKey {
    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        [self.inside, 0, self.station]
    }
}

impl HostKey {
    #[inline(always)]
    pub(super) fn host(&self) -> InsideHost {
        let [_, _, a, b, c, d, e, f] = self.station.to_be_bytes();
        let station = MacAddress([a, b, c, d, e, f]);
        InsideHost {
            tenant: TenantId((self.inside >> 32) as u32),
            address: Ipv4Addr::from_bits(self.inside as u32),
            station: (self.station & HAS_STATION != 0).then_some(station),
        }
    }
}

/// An external and a remote endpoint: what an inbound packet says, in the order in
/// which it says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InboundKey {
    /// Remote address, external address.
    addresses: u64,
    /// Remote port, external port, transport, from the highest bits down.
    ports: u64,
}

impl TableKey for InboundKey {
    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        [self.addresses, self.ports, 0]
    }
}

impl InboundKey {
    #[inline(always)]
    pub(super) const fn new(external: Endpoint, remote: Endpoint, transport: Transport) -> Self {
        InboundKey {
            addresses: (remote.address.to_bits() as u64) << 32 | external.address.to_bits() as u64,
            ports: (remote.port as u64) << 48 | (external.port as u64) << 32 | transport as u64,
        }
    }

    /// Of a plain packet that comes in.
    #[inline(always)]
    pub(super) const fn of_plain(ends: &Ends) -> Self {
        let (remote, external) = (ends.source.to_bits() as u64, ends.destination.to_bits() as u64);
        InboundKey {
            addresses: remote << 32 | external,
            ports: (ends.ports as u64) << 32 | ends.transport as u64,
        }
    }
}

/// A remote address that a mapping, which has this hash, has sessions with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerKey {
    pub(super) mapping: u64,
    pub(super) address: Ipv4Addr,
}

impl TableKey for PeerKey {
    #[inline(always)]
    fn words(&self) -> [u64; WORDS] {
        [self.mapping, u64::from(self.address.to_bits()), 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What goes into a key comes out of it, and any other part makes another key.
        #[test]
        fn a_key_is_what_it_was_made_from(
            parts in any::<(u32, u32, Option<[u8; 6]>, u8, u16, u32, u16)>(),
            others in any::<(u32, u32, Option<[u8; 6]>, u8, u16, u32, u16)>(),
            which in 0usize..8,
        ) {
            let transport = |number: u8| match number % 3 {
                0 => Transport::Tcp,
                1 => Transport::Udp,
                _ => Transport::IcmpQuery,
            };
            let key = |(tenant, address, station, kind, port, remote, remote_port): (
                u32, u32, Option<[u8; 6]>, u8, u16, u32, u16
            )| {
                let host = InsideHost {
                    tenant: TenantId(tenant),
                    address: Ipv4Addr::from_bits(address),
                    station: station.map(MacAddress),
                };
                let remote = Endpoint { address: Ipv4Addr::from_bits(remote), port: remote_port };
                (host, transport(kind), port, remote, FlowKey::new(&host, transport(kind), port, remote))
            };
            let mut mixed = parts;
            match which {
                0 => mixed.0 = others.0,
                1 => mixed.1 = others.1,
                2 => mixed.2 = others.2,
                3 => mixed.3 = others.3,
                4 => mixed.4 = others.4,
                5 => mixed.5 = others.5,
                6 => mixed.6 = others.6,
                _ => (),
            }
            let (one, other) = (key(parts), key(mixed));
            let (host, transport, port, remote, packed) = one;
            prop_assert_eq!(
                (packed.host(), packed.transport(), packed.port(), packed.remote()),
                (host, transport, port, remote)
            );
            let same = (one.0, one.1, one.2, one.3) == (other.0, other.1, other.2, other.3);
            prop_assert_eq!(packed == other.4, same);
            prop_assert_eq!(packed.host_key().host(), host);
            let same_host = one.0 == other.0;
            prop_assert_eq!(packed.host_key() == other.4.host_key(), same_host);
            prop_assert_eq!(packed.with_port(7).port(), 7);
            prop_assert_eq!(packed.with_port(7).with_port(port), packed);
            prop_assert_eq!(packed.with_station(None).with_station(host.station), packed);
            let nowhere = Endpoint { address: Ipv4Addr::UNSPECIFIED, port: 0 };
            let mapping = packed.mapping(Dependence::EndpointIndependent);
            prop_assert_eq!(mapping, FlowKey::new(&host, transport, port, nowhere));
            let mapping = packed.mapping(Dependence::AddressDependent);
            let to = Endpoint { port: 0, ..remote };
            prop_assert_eq!(mapping, FlowKey::new(&host, transport, port, to));
            prop_assert_eq!(packed.mapping(Dependence::AddressAndPortDependent), packed);
        }
    }
}
