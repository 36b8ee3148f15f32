//! The one renderer: what steps, verdicts and walks are in words, for the command
//! line, for a replay's lines and for a test that fails.

use std::fmt;

use homeport_wire::{IpProtocol, MobileIpPayload, PortId, UdpHeader};

use super::Walk;
use super::filter::ports_of;
use super::step::{Code, Step};
use crate::decap;
use crate::encap::MAX_NESTING;
use crate::launch::PortShared;
use crate::parse::{self, Frame, Ipv4Facts};
use crate::table::binding::Encapsulation;
use crate::verdict::Verdict;

/// Something with the names of the ports beside it, to be written.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a, T: ?Sized> {
    what: &'a T,
    ports: &'a [PortShared],
}

impl Step {
    /// The step as people read it, with these ports' names.
    ///
    /// ```
    /// # use homeport_dataplane::{launch::PortShared, trace::Step};
    /// fn text(step: &Step, ports: &[PortShared]) -> String {
    ///     step.named(ports).to_string()
    /// }
    /// ```
    pub const fn named<'a>(&'a self, ports: &'a [PortShared]) -> Named<'a, Step> {
        Named { what: self, ports }
    }
}

impl Verdict {
    /// The verdict as people read it, with its operator's text and these ports' names.
    pub const fn named<'a>(&'a self, ports: &'a [PortShared]) -> Named<'a, Verdict> {
        Named { what: self, ports }
    }

    /// What it is, in kebab-case: the word of a filter.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Transmit(_) => "transmit",
            Verdict::Punt(_) => "punt",
            Verdict::ToKernel => "to-kernel",
            Verdict::Hold => "hold",
            Verdict::HandOver(_) => "hand-over",
            Verdict::Drop(_) => "drop",
        }
    }

    /// Its reason, if it has one: the name of the counter.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Verdict::Punt(reason) => Some(reason.counter()),
            Verdict::Drop(reason) => Some(reason.counter()),
            Verdict::Transmit(_) | Verdict::ToKernel | Verdict::Hold | Verdict::HandOver(_) => None,
        }
    }
}

impl Walk {
    /// The walk as a block of lines: the packet, each step, the verdict.
    pub const fn named<'a>(&'a self, ports: &'a [PortShared]) -> Named<'a, Walk> {
        Named { what: self, ports }
    }
}

impl fmt::Display for Named<'_, Walk> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Named { what: walk, ports } = *self;
        writeln!(f, "{}: {}", PortName(ports, walk.port), walk.summary())?;
        for step in &walk.steps {
            writeln!(f, "  {}: {}", step.table(), step.named(ports))?;
        }
        if walk.omitted > 0 {
            writeln!(f, "  and {} more steps", walk.omitted)?;
        }
        write!(f, "  verdict: {}", walk.verdict.named(ports))
    }
}

impl fmt::Display for Named<'_, Verdict> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Verdict::Transmit(port) => write!(f, "transmitted by {}", self.port(*port)),
            Verdict::Punt(reason) => {
                write!(f, "punted to the control core ({}): {}", reason.counter(), reason.text())
            }
            Verdict::ToKernel => f.write_str("to the kernel, by the twin of its port"),
            Verdict::Hold => f.write_str("held; the final verdict follows"),
            Verdict::HandOver(worker) => write!(f, "goes on at worker {worker}"),
            Verdict::Drop(reason) => {
                write!(f, "dropped ({}): {}", reason.counter(), reason.text())
            }
        }
    }
}

impl<'a, T: ?Sized> Named<'a, T> {
    const fn port(&self, port: PortId) -> PortName<'a> {
        PortName(self.ports, port)
    }
}

/// A port's name, or its number where nobody knows its name.
struct PortName<'a>(&'a [PortShared], PortId);

impl fmt::Display for PortName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(usize::from(self.1.0)) {
            Some(port) => f.write_str(&port.name),
            None => write!(f, "port {}", self.1),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.named(&[]).fmt(f)
    }
}

impl fmt::Display for Named<'_, Step> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.what;
        let (a, b, c, small) = (step.first(), step.second(), step.c, step.small);
        let port = self.port(PortId(step.port));
        let how = || how(step.encapsulation());
        match step.code() {
            Code::Unknown => f.write_str("a step of another version"),
            Code::FromKernel => f.write_str("sent by the kernel, by the twin of its port"),
            Code::Injected => f.write_str("sent by the control core"),
            Code::TakenOver => f.write_str("handed over by another worker"),
            Code::Waited => f.write_str("it waited here until now"),
            Code::Copied => f.write_str("a copy, for one more tunnel"),
            Code::Cut => write!(f, "a fragment, cut here to fit {c} bytes"),
            Code::MadeError => f.write_str("an ICMP error, made here"),
            Code::Station => {
                write!(f, "the frame is for {}, and {port} has another address", step.station())
            }
            Code::ArpAnswered => write!(f, "{a} is away, and its home link is {port}: answered"),
            Code::ArpToKernel => f.write_str("no question for a node that is away from this link"),
            Code::NotIpv4 => f.write_str("neither IPv4 nor ARP"),
            Code::Local => {
                write!(f, "destination {a} is an address of this box")?;
                for (bit, role) in [(1, "home agent"), (2, "care-of address"), (4, "agent")] {
                    if small & bit != 0 {
                        write!(f, ", {role}")?;
                    }
                }
                if c == 0 { Ok(()) } else { write!(f, ", tenant {c}") }
            }
            Code::Group => write!(f, "destination {a} is a group or a broadcast address"),
            Code::Plain => write!(f, "{a} is no address of this box, no visitor's, not bound"),
            Code::Refused => {
                let text = step.drop_reason().map_or("a reason of another version", |at| at.text());
                write!(f, "source or destination {a} refused: {text}")
            }
            Code::ForControl => {
                let text = step.punt_reason().map_or("a reason of another version", |at| at.text());
                write!(f, "destination {a}: {text}")
            }
            Code::Bound => write!(f, "destination {a} has a binding"),
            Code::Binding => write!(f, "{a} is bound: care-of address {b}, {}", how()),
            Code::FromBinding => {
                write!(f, "{a} is bound: the tunnel from {b}, {}, is its own", how())
            }
            Code::FromTunnel => write!(f, "a bound node's, from {a}"),
            Code::FromVisitor => {
                write!(f, "from a visitor: {} on {port}, home agent {a}", VisitorMac(step))
            }
            Code::ToVisitor => {
                write!(f, "for a visitor: {} on {port}, home agent {a}", VisitorMac(step))
            }
            Code::Route => {
                write!(f, "{} via {port}", Prefix(step))?;
                if b.is_unspecified() {
                    f.write_str(", on the link")
                } else {
                    write!(f, ", gateway {b}")
                }
            }
            Code::MobileRouter => write!(f, "{} is behind the mobile router {b}", Prefix(step)),
            Code::NoRoute if c == 1 => write!(f, "{} is unreachable", Prefix(step)),
            Code::NoRoute => write!(f, "no route to {a}"),
            Code::Neighbor => write!(f, "{a} on {port} is {}", step.station()),
            Code::NoNeighbor => write!(f, "{a} on {port} is not known"),
            Code::Encapsulated => {
                write!(f, "outer {a} -> {b}, {}", how())?;
                if step.port == 0 { Ok(()) } else { write!(f, ", ttl {}", step.port) }
            }
            Code::Decapsulated => write!(f, "outer {a} -> {b}, {}, taken off", how()),
            Code::TunnelMtu => write!(f, "to {a} packets of {c} bytes get through"),
            Code::MssClamped => write!(f, "the connection's segments are clamped to fit {c} bytes"),
            Code::Hop if c == 0 => write!(f, "{small}: it ends here"),
            Code::Hop => write!(f, "{small} -> {}", small.saturating_sub(1)),
            Code::TooLong => {
                let cut = if small == 0 { "and it must not be cut" } else { "it is cut" };
                write!(f, "{} bytes where {} fit: {cut}", step.a, step.b)
            }
            Code::Told => {
                let what = match small {
                    0 => "time exceeded",
                    1 => "reassembly time exceeded",
                    2 => "host unreachable",
                    3 => "network unreachable",
                    _ => "fragmentation needed",
                };
                match (a.is_unspecified(), c) {
                    (true, _) => write!(f, "{what}, but nobody may be told"),
                    (false, 0) => write!(f, "{what}, to its sender, from {a}"),
                    (false, mtu) => write!(f, "{what}, MTU {mtu}, to its sender, from {a}"),
                }
            }
            Code::Keepalive => f.write_str("an echo request to the home agent: answered"),
            Code::TunnelError if c == 0 => write!(f, "about the tunnel to {a}"),
            Code::TunnelError => write!(f, "about the tunnel to {a}, MTU {c}"),
            Code::WaitsForFragments => f.write_str("a fragment: waits for the others"),
            Code::Whole => write!(f, "the last fragment: {c} bytes are put together"),
            Code::NaptSource => write!(f, "{}: source {}", NaptName(step), Endpoints(step)),
            Code::NaptDestination => {
                write!(f, "{}: destination {}", NaptName(step), Endpoints(step))
            }
            Code::NaptOpens => write!(f, "{} would open a session for it", NaptName(step)),
            Code::NaptWaits => {
                write!(f, "{}: a fragment: waits for the first one", NaptName(step))
            }
            Code::HandedOver => write!(f, "worker {c} has what it needs"),
            Code::Held => write!(f, "held for its next hop {a} on {port}"),
        }
    }
}

/// An encapsulation in words.
fn how(encapsulation: Encapsulation) -> String {
    match encapsulation {
        Encapsulation::IpInIp => "IP in IP".into(),
        Encapsulation::Minimal => "minimal encapsulation".into(),
        Encapsulation::Gre { key: None } => "GRE".into(),
        Encapsulation::Gre { key: Some(key) } => format!("GRE with key {key}"),
        Encapsulation::Udp { peer_port: 0 } => "UDP, half-bound".into(),
        Encapsulation::Udp { peer_port } => format!("UDP, port {peer_port}"),
        Encapsulation::PlainUdp { peer_port } => format!("plain UDP, port {peer_port}"),
    }
}

struct VisitorMac<'a>(&'a Step);

impl fmt::Display for VisitorMac<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.station().fmt(f)
    }
}

/// The prefix of a route, of which the address that was looked up is known.
struct Prefix<'a>(&'a Step);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.0.small.min(32);
        let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
        write!(f, "{}/{len}", std::net::Ipv4Addr::from_bits(self.0.a & mask))
    }
}

struct NaptName<'a>(&'a Step);

impl fmt::Display for NaptName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NAPT {}", self.0.port)
    }
}

/// What a NAPT made of an endpoint.
struct Endpoints<'a>(&'a Step);

impl fmt::Display for Endpoints<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.0;
        let (before, after) = (step.c >> 16, step.c & 0xffff);
        write!(f, "{}:{before} becomes {}:{after}", step.first(), step.second())
    }
}

impl Walk {
    /// The packet as it came in, in a line.
    pub fn summary(&self) -> Summary<'_> {
        Summary(self)
    }
}

/// A packet in a line: its addresses, its protocol, and those inside its tunnels.
#[derive(Debug)]
pub struct Summary<'a>(&'a Walk);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let walk = self.0;
        let facts = if walk.has_link_header {
            match parse::frame(&walk.frame) {
                Ok((_, Frame::Arp(arp))) => {
                    let (sender, target) = (arp.sender_address(), arp.target_address());
                    return write!(f, "ARP {sender} -> {target}");
                }
                Ok((_, Frame::Ipv4(facts))) => Some(facts),
                Ok((ethernet, Frame::Other)) => {
                    let (kind, len) = (ethernet.ether_type().0, walk.frame_len);
                    return write!(f, "ethertype {kind:#06x}, {len} bytes");
                }
                Err(_) => super::filter::cut_facts(&walk.frame, true),
            }
        } else {
            super::filter::cut_facts(&walk.frame, false)
        };
        let Some(mut facts) = facts else {
            return write!(f, "{} bytes that are no packet", walk.frame_len);
        };
        let start = if walk.has_link_header { homeport_wire::EthernetHeader::LEN } else { 0 };
        let packet = walk.frame.get(start..).unwrap_or_default();
        let mut payload = packet.get(usize::from(facts.header_len)..).unwrap_or_default();
        write!(f, "{}, {} bytes", Ends(&facts, payload), facts.total_len)?;
        if let Some(ttl) = packet.get(8) {
            write!(f, ", ttl {ttl}")?;
        }
        for _ in 0..=MAX_NESTING {
            if !facts.may_be_tunnelled() {
                break;
            }
            let Some((inner, inside)) = inside(&facts, payload) else { break };
            (facts, payload) = (inner, inside);
            write!(f, "; in it {}", Ends(&facts, payload))?;
        }
        Ok(())
    }
}

/// The packet in a tunnelled one, also where its end is cut off.
fn inside<'a>(facts: &Ipv4Facts, payload: &'a [u8]) -> Option<(Ipv4Facts, &'a [u8])> {
    if let Ok((opened, inside)) = decap::open(facts, payload) {
        return Some((opened.inner, inside));
    }
    let start = match (facts.protocol, facts.mobile_ip, payload.first()) {
        (IpProtocol::IP_IN_IP, _, _) => 0,
        (IpProtocol::GRE, _, Some(flags)) => {
            if flags & 0x20 == 0 {
                4
            } else {
                8
            }
        }
        (_, Some(MobileIpPayload::TunnelData), _) => UdpHeader::LEN + 4,
        (_, Some(MobileIpPayload::PlainTunnelData), _) => UdpHeader::LEN,
        _ => return None,
    };
    let inner = payload.get(start..)?;
    let facts = super::filter::cut_facts(inner, false)?;
    Some((facts, inner.get(usize::from(facts.header_len)..)?))
}

/// From where to where, and by what.
struct Ends<'a>(&'a Ipv4Facts, &'a [u8]);

impl fmt::Display for Ends<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ends(facts, payload) = self;
        let (source, destination) = (facts.source, facts.destination);
        match ports_of(facts, payload) {
            Some((from, to)) => write!(f, "{source}:{from} -> {destination}:{to}")?,
            None => write!(f, "{source} -> {destination}")?,
        }
        match facts.protocol {
            IpProtocol::TCP => f.write_str(" TCP"),
            IpProtocol::UDP => f.write_str(" UDP"),
            IpProtocol::ICMP => match facts.icmp_type {
                Some(kind) => write!(f, " ICMP type {kind}"),
                None => f.write_str(" ICMP"),
            },
            IpProtocol::IP_IN_IP => f.write_str(" IP in IP"),
            IpProtocol::GRE => f.write_str(" GRE"),
            IpProtocol::MINIMAL => f.write_str(" minimal"),
            IpProtocol(number) => write!(f, " protocol {number}"),
        }?;
        if facts.fragment { f.write_str(", a fragment") } else { Ok(()) }
    }
}
