//! One step of a walk: which table or rule was consulted, and what it said. Plain
//! data, sixteen bytes long; its text is in [`text`](super::text).

use std::net::Ipv4Addr;

use homeport_wire::{MacAddress, PortId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::classify::{Bound, Class};
use crate::icmp_error::IcmpError;
use crate::napt::Endpoint;
use crate::table::binding::{Encapsulation, TunnelEnd};
use crate::table::local::LocalEntry;
use crate::table::route::RouteEntry;
use crate::table::visitor::VisitorEntry;
use crate::verdict::{DropReason, PuntReason};

/// Declares what steps there are, and the table or rule that each is of.
macro_rules! codes {
    ($($(#[doc = $text:literal])* $variant:ident = $table:literal,)*) => {
        /// What a step is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Code { $($(#[doc = $text])* $variant,)* }

        impl Code {
            const ALL: &[Code] = &[$(Code::$variant,)*];

            /// The table or rule that it is of, in kebab-case.
            pub const fn table(self) -> &'static str {
                match self { $(Code::$variant => $table,)* }
            }
        }
    };
}

codes! {
    /// A code that this version does not know.
    Unknown = "unknown",
    /// It came from the kernel twin of a port.
    FromKernel = "came",
    /// The control core injected it.
    Injected = "came",
    /// Another worker handed it over.
    TakenOver = "came",
    /// It waited here, and goes on.
    Waited = "came",
    /// It was made here: a copy for one more tunnel.
    Copied = "came",
    /// It was made here: a fragment.
    Cut = "came",
    /// It was made here: an ICMP error, or one from inside a tunnel, relayed.
    MadeError = "came",
    /// The frame is for another station.
    Station = "link",
    /// An ARP question for a node that is away.
    ArpAnswered = "arp",
    /// ARP that is the kernel's business.
    ArpToKernel = "arp",
    /// No IPv4 and no ARP.
    NotIpv4 = "link",
    /// Its destination is an address of this box.
    Local = "local",
    /// It is for a group, or for every station of its link.
    Group = "classify",
    /// Nothing that is known here is its source or destination.
    Plain = "classify",
    /// Classification refuses it.
    Refused = "classify",
    /// It is for the protocol machines.
    ForControl = "classify",
    /// Its destination has a binding.
    Bound = "classify",
    /// The binding that it is sent by.
    Binding = "binding",
    /// The binding that its tunnel was checked against.
    FromBinding = "binding",
    /// A tunnel of a binding, in part: another tunnel's inside, or its port is not right.
    FromTunnel = "binding",
    /// The visitor that sent it.
    FromVisitor = "visitor",
    /// The visitor that it is for.
    ToVisitor = "visitor",
    /// A route.
    Route = "route",
    /// A route that leads to a mobile router.
    MobileRouter = "route",
    /// No route, or one that says so.
    NoRoute = "route",
    /// A next hop's link-layer address.
    Neighbor = "neighbor",
    /// A next hop whose address is not known.
    NoNeighbor = "neighbor",
    /// It was put into a tunnel.
    Encapsulated = "encap",
    /// It was taken out of a tunnel.
    Decapsulated = "decap",
    /// The longest packet that a tunnel takes.
    TunnelMtu = "tunnel-mtu",
    /// What a TCP connection may send was clamped.
    MssClamped = "mss",
    /// It was forwarded for one of its TTL.
    Hop = "ttl",
    /// It is longer than what lies before it.
    TooLong = "mtu",
    /// Its sender is told.
    Told = "icmp",
    /// A keepalive that is answered.
    Keepalive = "keepalive",
    /// An ICMP error from inside a tunnel of ours.
    TunnelError = "tunnel-icmp",
    /// A fragment that waits for the others.
    WaitsForFragments = "reassembly",
    /// The last fragment: the packet is whole.
    Whole = "reassembly",
    /// A NAPT gave it another source.
    NaptSource = "napt",
    /// A NAPT gave it another destination.
    NaptDestination = "napt",
    /// A NAPT would open a session for it.
    NaptOpens = "napt",
    /// A fragment that came before the first one.
    NaptWaits = "napt",
    /// It belongs to another worker.
    HandedOver = "worker",
    /// It waits for its next hop's address.
    Held = "hold",
}

impl Code {
    fn from_u8(number: u8) -> Self {
        Code::ALL.get(usize::from(number)).copied().unwrap_or(Code::Unknown)
    }
}

/// A step of a walk. Native byte order: it never leaves the machine.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Step {
    code: u8,
    /// A length, a TTL, a kind: the code says what.
    pub(super) small: u8,
    pub(super) port: u16,
    pub(super) a: u32,
    pub(super) b: u32,
    pub(super) c: u32,
}

impl Step {
    /// What it is.
    pub fn code(&self) -> Code {
        Code::from_u8(self.code)
    }

    /// The table or rule that it is of.
    pub fn table(&self) -> &'static str {
        self.code().table()
    }

    pub(crate) const fn of(code: Code) -> Self {
        Step { code: code as u8, small: 0, port: 0, a: 0, b: 0, c: 0 }
    }

    const fn at(self, port: PortId) -> Self {
        Step { port: port.0, ..self }
    }

    const fn between(self, a: Ipv4Addr, b: Ipv4Addr) -> Self {
        Step { a: a.to_bits(), b: b.to_bits(), ..self }
    }

    pub(crate) const fn number(code: Code, number: u32) -> Self {
        Step { c: number, ..Step::of(code) }
    }

    pub(crate) const fn address(code: Code, address: Ipv4Addr) -> Self {
        Step { a: address.to_bits(), ..Step::of(code) }
    }

    const fn how(self, encapsulation: Encapsulation) -> Self {
        let (small, c) = match encapsulation {
            Encapsulation::IpInIp => (0, 0),
            Encapsulation::Minimal => (1, 0),
            Encapsulation::Gre { key: None } => (2, 0),
            Encapsulation::Gre { key: Some(key) } => (3, key),
            Encapsulation::Udp { peer_port } => (4, peer_port as u32),
            Encapsulation::PlainUdp { peer_port } => (5, peer_port as u32),
        };
        Step { small, c, ..self }
    }

    /// The encapsulation of [`Step::how`].
    pub(super) const fn encapsulation(&self) -> Encapsulation {
        // A port has 16 bits.
        let peer_port = self.c as u16;
        match self.small {
            0 => Encapsulation::IpInIp,
            1 => Encapsulation::Minimal,
            2 => Encapsulation::Gre { key: None },
            3 => Encapsulation::Gre { key: Some(self.c) },
            4 => Encapsulation::Udp { peer_port },
            _ => Encapsulation::PlainUdp { peer_port },
        }
    }

    const fn mac(self, MacAddress([a, b, c, d, e, f]): MacAddress) -> Self {
        Step { b: u32::from_be_bytes([a, b, c, d]), c: u32::from_be_bytes([0, 0, e, f]), ..self }
    }

    /// The address of [`Step::mac`].
    pub(super) const fn station(&self) -> MacAddress {
        let ([a, b, c, d], [_, _, e, f]) = (self.b.to_be_bytes(), self.c.to_be_bytes());
        MacAddress([a, b, c, d, e, f])
    }

    pub(crate) const fn for_station(to: MacAddress, port: PortId) -> Self {
        Step::of(Code::Station).mac(to).at(port)
    }

    /// What classification said of a packet to `destination`.
    pub(crate) fn class(class: &Class<'_>, destination: Ipv4Addr) -> Self {
        match class {
            Class::Drop(reason) => {
                Step { small: *reason as u8, ..Step::address(Code::Refused, destination) }
            }
            Class::Punt(reason, tenant) => Step {
                small: *reason as u8,
                c: tenant.0,
                ..Step::address(Code::ForControl, destination)
            },
            Class::ToKernel => Step::local(destination, &LocalEntry::default()),
            Class::Broadcast => Step::address(Code::Group, destination),
            Class::Decapsulate(local) | Class::Reassemble(local) | Class::TunnelError(local) => {
                Step::local(destination, local)
            }
            Class::ReverseTunnel(visitor) | Class::Translate(visitor, _) => {
                Step::visitor(Code::FromVisitor, visitor)
            }
            Class::Deliver(visitor) => Step::visitor(Code::ToVisitor, visitor),
            Class::Tunnel(bound) => Step::address(Code::Bound, bound.home_address),
            Class::Forward => Step::address(Code::Plain, destination),
        }
    }

    fn local(address: Ipv4Addr, entry: &LocalEntry) -> Self {
        let small = u8::from(entry.home_agent)
            | u8::from(entry.care_of_address) << 1
            | u8::from(entry.agent) << 2;
        Step { small, c: entry.tenant.0, ..Step::address(Code::Local, address) }
    }

    /// A binding, and the tunnel of it that is meant.
    pub(crate) const fn bound(code: Code, bound: &Bound<'_>, end: &TunnelEnd) -> Self {
        let addresses = (bound.home_address, end.care_of_address());
        Step::of(code).between(addresses.0, addresses.1).how(end.encapsulation())
    }

    pub(crate) fn visitor(code: Code, visitor: &VisitorEntry) -> Self {
        Step { a: visitor.home_agent.to_bits(), ..Step::of(code).mac(visitor.mac) }.at(visitor.port)
    }

    /// What the routes say of an address, and how long the prefix is.
    pub(crate) const fn route(to: Ipv4Addr, len: Option<u8>, route: Option<RouteEntry>) -> Self {
        let step = Step {
            a: to.to_bits(),
            small: if let Some(len) = len { len } else { 0 },
            ..Step::of(Code::NoRoute)
        };
        match route {
            Some(RouteEntry::Via { port, gateway }) => {
                let gateway =
                    if let Some(gateway) = gateway { gateway } else { Ipv4Addr::UNSPECIFIED };
                Step { code: Code::Route as u8, b: gateway.to_bits(), ..step }.at(port)
            }
            Some(RouteEntry::MobileRouter { home_address }) => {
                Step { code: Code::MobileRouter as u8, b: home_address.to_bits(), ..step }
            }
            Some(RouteEntry::Unreachable) => Step { c: 1, ..step },
            None => step,
        }
    }

    pub(crate) const fn neighbor(address: Ipv4Addr, port: PortId, mac: MacAddress) -> Self {
        Step { a: address.to_bits(), ..Step::of(Code::Neighbor).mac(mac) }.at(port)
    }

    pub(crate) const fn next_hop(code: Code, address: Ipv4Addr, port: PortId) -> Self {
        Step::address(code, address).at(port)
    }

    /// Into or out of a tunnel from `source` to `destination`.
    pub(crate) const fn tunnel(
        code: Code,
        (source, destination): (Ipv4Addr, Ipv4Addr),
        encapsulation: Encapsulation,
        ttl: u8,
    ) -> Self {
        Step { port: ttl as u16, ..Step::of(code).between(source, destination).how(encapsulation) }
    }

    pub(crate) const fn tunnel_mtu(remote: Ipv4Addr, mtu: u16) -> Self {
        Step { c: mtu as u32, ..Step::address(Code::TunnelMtu, remote) }
    }

    /// What forwarding does to a TTL.
    pub(crate) const fn hop(ttl: u8, is_alive: bool) -> Self {
        Step { small: ttl, ..Step::number(Code::Hop, is_alive as u32) }
    }

    /// An ICMP error about the tunnel to `remote`.
    pub(crate) fn tunnel_error(remote: Ipv4Addr, mtu: Option<u16>) -> Self {
        let c = mtu.map_or(0, u32::from);
        Step { c, ..Step::address(Code::TunnelError, remote) }
    }

    /// A packet of `len` bytes where `mtu` fit; whether it may be cut.
    pub(crate) const fn too_long(len: u16, mtu: u16, may_be_cut: bool) -> Self {
        Step { small: may_be_cut as u8, a: len as u32, b: mtu as u32, ..Step::of(Code::TooLong) }
    }

    /// The sender is told, or (`None`) may not be.
    pub(crate) const fn told(error: IcmpError, from: Option<Ipv4Addr>) -> Self {
        let (small, c) = match error {
            IcmpError::TimeExceeded => (0, 0),
            IcmpError::ReassemblyTimeExceeded => (1, 0),
            IcmpError::HostUnreachable => (2, 0),
            IcmpError::NetUnreachable => (3, 0),
            IcmpError::FragmentationNeeded { mtu } => (4, mtu as u32),
        };
        let from = if let Some(from) = from { from } else { Ipv4Addr::UNSPECIFIED };
        Step { small, c, ..Step::address(Code::Told, from) }
    }

    /// What a NAPT made of an endpoint.
    pub(crate) const fn napt(code: Code, number: usize, before: Endpoint, after: Endpoint) -> Self {
        let c = (before.port as u32) << 16 | after.port as u32;
        // NAPTs are numbered with 16 bits.
        Step { port: number as u16, c, ..Step::of(code).between(before.address, after.address) }
    }

    pub(crate) const fn of_napt(code: Code, number: usize) -> Self {
        Step { port: number as u16, ..Step::of(code) }
    }

    /// The drop reason of [`Step::class`].
    pub(super) fn drop_reason(&self) -> Option<DropReason> {
        DropReason::from_u8(self.small)
    }

    /// The punt reason of [`Step::class`].
    pub(super) fn punt_reason(&self) -> Option<PuntReason> {
        PuntReason::from_u8(self.small)
    }

    pub(super) const fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.a)
    }

    pub(super) const fn second(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_numbered_in_order_and_their_tables_are_kebab_case() {
        for (number, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, number);
            assert_eq!(Code::from_u8(number as u8), *code);
            assert!(code.table().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        }
        assert_eq!(Code::from_u8(200), Code::Unknown);
    }

    #[test]
    fn operands_come_back_as_they_were_put_in() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3));
        for how in [
            Encapsulation::IpInIp,
            Encapsulation::Minimal,
            Encapsulation::Gre { key: None },
            Encapsulation::Gre { key: Some(0xdead_beef) },
            Encapsulation::Udp { peer_port: 65_535 },
            Encapsulation::PlainUdp { peer_port: 1 },
        ] {
            let step = Step::tunnel(Code::Encapsulated, (a, b), how, 64);
            assert_eq!((step.first(), step.second(), step.encapsulation()), (a, b, how));
        }
        let mac = MacAddress([2, 3, 4, 5, 6, 7]);
        let step = Step::neighbor(a, PortId(9), mac);
        assert_eq!((step.first(), step.station(), step.port), (a, mac, 9));
    }
}
