//! What becomes of a packet: the enum is the counter is the operator's text.

use homeport_wire::{PortId, reasons};

reasons! {
    /// Why a packet was dropped.
    DropReason {
        MalformedEthernet = "malformed-ethernet", "Shorter than an Ethernet header.";
        NotForUs = "not-for-us", "A frame for another station, seen because the port hears everything.";
        MalformedIpv4 = "malformed-ipv4", "An IPv4 length, version or header length is impossible.";
        BadIpv4Checksum = "bad-ipv4-checksum", "The IPv4 header checksum is wrong.";
        MalformedInner = "malformed-inner", "The packet inside a tunnel does not parse.";
        MalformedArp = "malformed-arp", "An ARP packet that is not for IPv4 over Ethernet.";
        MartianSource = "martian-source", "A source that no packet may have: multicast, broadcast, loopback, zero, or our own address.";
        TtlExpired = "ttl-expired", "The TTL ran out; the sender was told.";
        NoRoute = "no-route", "No route to the destination.";
        NoNeighbor = "no-neighbor", "The next hop did not answer ARP in time.";
        NeighborQueueFull = "neighbor-queue-full", "Too many packets wait for a next hop's ARP answer.";
        NotForwarded = "not-forwarded", "A broadcast, multicast or link-local packet that is not routed.";
        TooBig = "too-big", "Longer than the next link's MTU with DF set; the sender was told.";
        NoHeadroom = "no-headroom", "No room for the outer header in front of the packet.";
        NoBuffer = "no-buffer", "All packet buffers are in use.";
        NoBinding = "no-binding", "A tunnelled packet whose inner source has no binding here.";
        OuterSourceMismatch = "outer-source-mismatch", "The outer source is not the care-of address or home agent of the entry (RFC 3024 4.3.2).";
        OuterDestinationMismatch = "outer-destination-mismatch", "A tunnelled packet to an address of ours that is not its tunnel's end.";
        InnerSourceMismatch = "inner-source-mismatch", "The inner source is not the address that the tunnel is for.";
        EncapsulationMismatch = "encapsulation-mismatch", "The encapsulation is not the one that was negotiated.";
        NoVisitor = "no-visitor", "A tunnelled packet for an address that is not visiting.";
        VisitorLinkMismatch = "visitor-link-mismatch", "A visitor's address used by another station or on another link.";
        OverlappingVisitor = "overlapping-visitor", "A visitor's packet for this box itself, where its address may be another's too: the answer could go astray.";
        ReverseTunnelNotGranted = "reverse-tunnel-not-granted", "A reverse-tunnelled packet of a node that registered without one.";
        TunnelLoop = "tunnel-loop", "Encapsulation would loop: the packet comes from the tunnel's own end (RFC 2003 3.2, RFC 5944 4.2.3).";
        NestedTunnel = "nested-tunnel", "Tunnels inside tunnels beyond the limit.";
        MalformedTunnel = "malformed-tunnel", "A tunnel header that does not parse: cut off, of an unknown version, or with bits that a receiver must not ignore (RFC 2784 2.3).";
        BadTunnelChecksum = "bad-tunnel-checksum", "The checksum of a tunnel's UDP, GRE or minimal header is wrong.";
        TunnelNextHeader = "tunnel-next-header", "A tunnel carries something else than the IPv4 packets that were agreed on (RFC 3519 3.3).";
        GreKeyMismatch = "gre-key-mismatch", "A GRE packet without the key that was negotiated, or with another one.";
        TunnelPortMismatch = "tunnel-port-mismatch", "A tunnelled packet from the right address and another UDP port: a NAT changed it and the node has not registered since (RFC 3519 4.3).";
        HalfBoundTunnel = "half-bound-tunnel", "For a node whose UDP port is not known until its first keepalive (RFC 3519 4.11).";
        UnprovenAddress = "unproven-address", "For an address that has not answered yet: it gets at most three times what it sent.";
        FragmentOverlap = "fragment-overlap", "Fragments of a tunnelled packet that overlap: the whole packet is refused.";
        FragmentDuplicate = "fragment-duplicate", "A fragment of a tunnelled packet that was here already, byte for byte.";
        FragmentMalformed = "fragment-malformed", "A fragment that carries nothing, or is not the last and no multiple of eight bytes long.";
        FragmentTiny = "fragment-tiny", "A first fragment that any link would have carried more of.";
        FragmentTooMany = "fragment-too-many", "A tunnelled packet in more fragments than are put together.";
        FragmentTooLong = "fragment-too-long", "Fragments of a packet that is longer than what is put together.";
        FragmentEvicted = "fragment-evicted", "Too many fragments wait, of one source or of all: the oldest packet's were given up.";
        FragmentTimeout = "fragment-timeout", "Fragments of a tunnelled packet whose others did not come in time.";
        TunnelIcmpUnmatched = "tunnel-icmp-unmatched", "An ICMP error about a tunnel that does not exist, or one that cannot be true.";
        TunnelIcmpNoted = "tunnel-icmp-noted", "An ICMP error about a tunnel of ours that is remembered, and not passed on to the sender of the packet inside (RFC 2003 4).";
        TunnelMtuTooSmall = "tunnel-mtu-too-small", "Fragmentation Needed about a tunnel of ours with an MTU below 576, which is not believed.";
        NatNoMapping = "nat-no-mapping", "For a translated address and port that nobody inside uses.";
        NatFiltered = "nat-filtered", "For a translated port, from somebody that the host inside has not sent to (RFC 4787 5).";
        NatHostLimit = "nat-host-limit", "One host inside has all the ports or sessions that one host may have.";
        NatExhausted = "nat-exhausted", "All external ports, or all entries of the translation table, are in use.";
        NatUnsupported = "nat-unsupported", "A protocol or ICMP message that cannot be translated.";
        EcnMismatch = "ecn-mismatch", "Congestion was marked on the tunnel, and the packet inside cannot carry the mark (RFC 6040 4.2).";
        UnknownTunnel = "unknown-tunnel", "A tunnel packet for an address that ends no tunnel.";
        RegistrationRate = "registration-rate", "More registration messages than one network of 256 addresses may send in a second.";
        PuntQueueFull = "punt-queue-full", "The control core is behind; this reason's budget is used up.";
        PortTransmitFull = "port-transmit-full", "The port or its kernel twin took no more packets.";
        NoKernelTwin = "no-kernel-twin", "For the kernel, but this port has no kernel twin.";
        PortDown = "port-down", "The port that it should leave by is down.";
        HandoverFull = "handover-full", "It belongs to another RX core, which is behind.";
        InjectMalformed = "inject-malformed", "The control core handed over something that is no packet.";
    }
}

reasons! {
    /// Why a packet was handed to the control core.
    PuntReason {
        Registration = "registration", "UDP port 434 at an agent's address.";
        Renewal = "renewal", "A registration message of a node that is bound or visiting here, or the answer to one.";
        Solicitation = "solicitation", "A router or agent solicitation.";
        Advertisement = "advertisement", "A router or agent advertisement of another agent.";
        TunnelIcmp = "tunnel-icmp", "An ICMP error about one of our registrations.";
        TunnelKeepalive = "tunnel-keepalive", "An echo request or reply between a node and its home agent, out of a UDP tunnel whose other end is not known or not proven yet.";
        TunnelRebound = "tunnel-rebound", "Tunnelled data from the right address and another UDP port: a NAT changed it.";
        NatLog = "nat-log", "A block of external ports was given to a host inside, or taken back.";
        ResolveNeighbor = "resolve-neighbor", "A next hop without a neighbour entry: the kernel is asked to resolve it.";
    }
}

/// What becomes of a packet. Each received packet gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It leaves by this port.
    Transmit(PortId),
    /// It goes to the control core.
    Punt(PuntReason),
    /// It goes to the kernel twin of the port that it came in on.
    ToKernel,
    /// It waits, for a bounded time, for its next hop's link-layer address; the
    /// final verdict follows.
    Hold,
    /// It goes on at the worker with this number; the final verdict is given there.
    HandOver(u16),
    /// It is gone.
    Drop(DropReason),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_distinct_kebab_case_and_numbered_in_order() {
        let mut names: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.counter()).collect();
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert!(
                reason
                    .counter()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            );
            assert!(reason.text().ends_with('.'));
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
        assert_eq!(DropReason::from_u8(DropReason::COUNT as u8), None);
    }
}
