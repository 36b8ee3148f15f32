use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homeport_wire::icmpv4::{ECHO_REPLY, ECHO_REQUEST, Icmpv4Header, TIME_EXCEEDED};
use homeport_wire::tcp::TcpHeader;
use homeport_wire::{IpProtocol, Ipv4Header, PortId, UdpHeader, checksum};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::napt::flows::Flow;
use crate::napt::{Dependence, Endpoint, NaptConfig, NatLogRecord, Outcome};

const EXTERNAL: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 9)];

/// What a packet is made of; every part may be plain or not.
#[derive(Clone, Debug)]
struct Shape {
    transport: Transport,
    flags: u8,
    sequence: u16,
    acknowledgment: u16,
    dont_fragment: bool,
    no_checksum: bool,
    options: bool,
    /// In eights of a byte, with more to come.
    fragment: Option<(u16, bool)>,
    /// An error about a packet that came the other way.
    is_error: bool,
    /// How much of it there is.
    len: usize,
}

fn shape() -> impl Strategy<Value = Shape> {
    let transport =
        prop_oneof![Just(Transport::Udp), Just(Transport::Tcp), Just(Transport::IcmpQuery)];
    let flags = prop_oneof![
        4 => Just(TcpHeader::SYN),
        4 => Just(TcpHeader::SYN | TcpHeader::ACK),
        6 => Just(TcpHeader::ACK),
        3 => Just(TcpHeader::FIN | TcpHeader::ACK),
        2 => Just(TcpHeader::RST),
        1 => any::<u8>(),
    ];
    let rarely = || prop::bool::weighted(0.08);
    let fragment = prop::option::weighted(0.1, (0u16..3, any::<bool>()));
    let len = prop_oneof![9 => Just(usize::MAX), 1 => 20usize..60];
    (
        (transport, flags, 0u16..400, 0u16..400),
        (any::<bool>(), prop::bool::weighted(0.3), rarely(), fragment, rarely(), len),
    )
        .prop_map(|((transport, flags, sequence, acknowledgment), rest)| {
            let (dont_fragment, no_checksum, options, fragment, is_error, len) = rest;
            Shape {
                transport,
                flags,
                sequence,
                acknowledgment,
                dont_fragment,
                no_checksum,
                options,
                fragment,
                is_error,
                len,
            }
        })
}

impl Shape {
    fn plain(transport: Transport) -> Self {
        Shape {
            transport,
            flags: TcpHeader::SYN,
            sequence: 1,
            acknowledgment: 0,
            dont_fragment: false,
            no_checksum: false,
            options: false,
            fragment: None,
            is_error: false,
            len: usize::MAX,
        }
    }

    /// The packet; an ICMP query of the side that asks, or its reply.
    fn between(&self, from: Endpoint, to: Endpoint, asks: bool) -> Vec<u8> {
        if self.is_error {
            let quoted = Shape { is_error: false, ..self.clone() }.between(to, from, !asks);
            let icmp = Icmpv4Header::new(TIME_EXCEEDED, 0, [0; 4], &quoted);
            let message = [icmp.as_bytes(), &quoted].concat();
            return self.headed(from.address, to.address, IpProtocol::ICMP, &message);
        }
        let (protocol, payload) = match self.transport {
            Transport::Udp => {
                let ends = ((from.address, from.port), (to.address, to.port));
                let mut header = UdpHeader::new(ends.0, ends.1, b"data!").unwrap();
                if self.no_checksum {
                    header.set_checksum(0);
                }
                (IpProtocol::UDP, [header.as_bytes(), b"data!"].concat())
            }
            Transport::Tcp => {
                let mut bytes = Vec::new();
                bytes.extend(from.port.to_be_bytes());
                bytes.extend(to.port.to_be_bytes());
                bytes.extend(u32::from(self.sequence).to_be_bytes());
                bytes.extend(u32::from(self.acknowledgment).to_be_bytes());
                // A window scale option.
                bytes.extend([6 << 4, self.flags, 0, 200]);
                bytes.extend([0, 0, 0, 0, 3, 3, 1, 0]);
                let sum = checksum::Sum::new()
                    .add_pseudo_header(from.address, to.address, 6, bytes.len() as u16)
                    .add_bytes(&bytes)
                    .checksum();
                bytes[16..18].copy_from_slice(&sum.to_be_bytes());
                (IpProtocol::TCP, bytes)
            }
            Transport::IcmpQuery => {
                let (kind, identifier) =
                    if asks { (ECHO_REQUEST, from.port) } else { (ECHO_REPLY, to.port) };
                let [high, low] = identifier.to_be_bytes();
                let icmp = Icmpv4Header::new(kind, 0, [high, low, 0, 1], b"ping");
                (IpProtocol::ICMP, [icmp.as_bytes(), b"ping"].concat())
            }
        };
        self.headed(from.address, to.address, protocol, &payload)
    }

    fn headed(&self, from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, rest: &[u8]) -> Vec<u8> {
        let options: &[u8] = if self.options { &[1, 1, 1, 0] } else { &[] };
        let len = (Ipv4Header::LEN + options.len() + rest.len()) as u16;
        let mut header = Ipv4Header::unsummed(from, to, protocol, 64, len);
        header.set_header_len(Ipv4Header::LEN + options.len());
        header.set_identification(self.sequence);
        header.set_dont_fragment(self.dont_fragment);
        if let Some((offset, more)) = self.fragment {
            header.set_fragment(8 * offset, more);
        }
        let sum = checksum::checksum(&[header.as_bytes(), options].concat());
        header.set_checksum(sum);
        let mut bytes = [header.as_bytes(), options, rest].concat();
        bytes.truncate(self.len.max(Ipv4Header::LEN + options.len()));
        bytes
    }
}

/// One packet or a pause.
#[derive(Clone, Debug)]
enum Step {
    /// Of a host, from a port, to a remote endpoint.
    Out(u8, u16, u8, Shape),
    /// From a remote endpoint to the external endpoint of a packet that went out.
    In(usize, u8, Shape),
    /// Tenths of a second, and whether the sweep sees them.
    Pass(u32, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..5, 0u16..3, 0u8..3, shape()).prop_map(|(h, p, r, s)| Step::Out(h, p, r, s)),
        6 => (any::<usize>(), 0u8..3, shape()).prop_map(|(n, r, s)| Step::In(n, r, s)),
        1 => (prop_oneof![0u32..30, 500u32..80_000], any::<bool>())
            .prop_map(|(ticks, sweeps)| Step::Pass(ticks, sweeps)),
    ]
}

fn host(number: u8) -> InsideHost {
    let address = Ipv4Addr::new(10, 1, 0, 10 + number / 2);
    let station = (number < 3).then_some(MacAddress([2, 0, 0, 0, 0, number]));
    InsideHost { tenant: TenantId(u32::from(number / 3)), address, station }
}

fn source(ends: &plain::Ends) -> Endpoint {
    Endpoint { address: ends.source, port: (ends.ports >> 16) as u16 }
}

fn destination(ends: &plain::Ends) -> Endpoint {
    Endpoint { address: ends.destination, port: ends.ports as u16 }
}

fn remote(number: u8, transport: Transport, asks: bool) -> Endpoint {
    let port = if transport == Transport::IcmpQuery && asks { 0 } else { 50 + u16::from(number) };
    Endpoint { address: Ipv4Addr::new(198, 51, 100, 7 + number / 2), port }
}

/// All that is known of what is there.
#[derive(Debug, PartialEq)]
struct State {
    flows: Vec<Option<Flow>>,
    counters: Vec<(&'static str, u64)>,
    identifications: Box<[u16]>,
}

fn state(napt: &Napt) -> State {
    let flows = &napt.flows.flows;
    State {
        flows: (0..flows.capacity() as u32).map(|id| flows.get(id).copied()).collect(),
        counters: napt.counters.all().collect(),
        identifications: napt.identifications.clone(),
    }
}

fn log(napt: &mut Napt) -> Vec<NatLogRecord> {
    let mut records = Vec::new();
    napt.drain_log(|record| {
        records.push(*record);
        true
    });
    records
}

/// A packet on its way through, and which way.
struct Travel {
    bytes: Vec<u8>,
    sender: Option<InsideHost>,
}

impl Travel {
    fn slowly(&mut self, napt: &mut Napt, now: Instant) -> Outcome<InsideHost> {
        match &self.sender {
            Some(host) => match napt.outbound(&mut self.bytes, host, now) {
                Outcome::Translated(()) => Outcome::Translated(*host),
                Outcome::Unclaimed => Outcome::Unclaimed,
                Outcome::Early(key) => Outcome::Early(key),
                Outcome::Refused(reason) => Outcome::Refused(reason),
            },
            None => napt.inbound(&mut self.bytes, now),
        }
    }

    fn probe(&self, napt: &Napt) -> Option<Probe> {
        match &self.sender {
            Some(host) => napt.probe_outbound(&self.bytes, host.tenant, host.station),
            None => napt.probe_inbound(&self.bytes),
        }
    }
}

fn config(mapping: Dependence, filtering: Dependence) -> NaptConfig {
    let mut config = NaptConfig::new("test", vec![PortId(1)], PortId(0), EXTERNAL.to_vec());
    config.max_sessions = 24;
    config.block_size = 8;
    config.ports = 4096..=4200;
    config.max_blocks_per_host = 2;
    (config.mapping, config.filtering) = (mapping, filtering);
    config.untranslated = vec![(Ipv4Addr::new(198, 51, 100, 250), 32)];
    config
}

fn dependence() -> impl Strategy<Value = Dependence> {
    prop::sample::select(Dependence::NAMES.map(|(_, dependence)| dependence).to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    /// Whatever comes, in bursts of whatever length: in stages or not, packets,
    /// outcomes, sessions with their timers, counters and records are the same.
    #[test]
    fn stages_do_what_the_general_way_does(
        bursts in proptest::collection::vec(proptest::collection::vec(step(), 1..12), 1..24),
        mapping in dependence(),
        filtering in dependence(),
        inbound_refresh in any::<bool>(),
    ) {
        let mut config = config(mapping, filtering);
        config.inbound_refresh = inbound_refresh;
        let mut plain = Napt::new(config.clone(), 0, [3, 4], (0, 1));
        let mut staged = Napt::new(config, 0, [3, 4], (0, 1));
        let mut now = Instant::now();
        // Their clocks start when they first see the time, and count from there.
        prop_assert_eq!(plain.tick(now), staged.tick(now));
        let mut seen: Vec<(Endpoint, Transport)> =
            vec![(Endpoint { address: EXTERNAL[0], port: 4100 }, Transport::Udp)];
        for burst in bursts {
            let mut travels = Vec::new();
            for step in burst {
                match step {
                    Step::Out(number, port, to, shape) => {
                        let host = host(number);
                        let from = Endpoint { address: host.address, port: 4000 + port };
                        let to = remote(to, shape.transport, true);
                        let bytes = shape.between(from, to, true);
                        travels.push(Travel { bytes, sender: Some(host) });
                    }
                    Step::In(which, from, mut shape) => {
                        let (external, transport) = seen[which % seen.len()];
                        shape.transport = transport;
                        let from = remote(from, transport, true);
                        let bytes = shape.between(from, external, false);
                        travels.push(Travel { bytes, sender: None });
                    }
                    Step::Pass(ticks, sweeps) => {
                        now += Duration::from_millis(100) * ticks;
                        if sweeps {
                            plain.sweep(now);
                            staged.sweep(now);
                        }
                    }
                }
            }
            let tick = staged.tick(now);
            let mut probes: Vec<_> = travels.iter().map(|travel| travel.probe(&staged)).collect();
            for probe in probes.iter_mut().flatten() {
                staged.locate(probe);
            }
            for (travel, probe) in travels.iter_mut().zip(&probes) {
                let mut slow = Travel { bytes: travel.bytes.clone(), sender: travel.sender };
                let expected = slow.slowly(&mut plain, now);
                let before = travel.bytes.clone();
                let located = probe.as_ref();
                let located = located.and_then(|probe| {
                    staged.translate_located(&mut travel.bytes, probe, tick)
                });
                let outcome = match located {
                    Some((host, checksum)) => {
                        let stored = travel.bytes[10..12].first_chunk().copied();
                        prop_assert_eq!(stored, Some(checksum.to_le_bytes()));
                        Outcome::Translated(host)
                    }
                    None => {
                        prop_assert_eq!(&travel.bytes, &before);
                        travel.slowly(&mut staged, now)
                    }
                };
                prop_assert_eq!(outcome, expected);
                prop_assert_eq!(&travel.bytes, &slow.bytes);
                prop_assert_eq!(state(&staged), state(&plain));
                if travel.sender.is_some()
                    && let Outcome::Translated(_) = outcome
                    && let Some(ends) = plain::read(&travel.bytes, Side::Source)
                {
                    seen.push((source(&ends), ends.transport));
                }
            }
            prop_assert_eq!(log(&mut staged), log(&mut plain));
        }
    }
}

/// The stages are for what there is most of: the packets of a session that has been
/// opened, both ways. What is not plain takes the general way.
#[test]
fn sessions_are_translated_in_stages_once_they_are_open() {
    let both = Dependence::EndpointIndependent;
    for transport in [Transport::Udp, Transport::Tcp, Transport::IcmpQuery] {
        let mut napt = Napt::new(config(both, both), 0, [3, 4], (0, 1));
        let now = Instant::now();
        let owner = host(0);
        let from = Endpoint { address: owner.address, port: 4000 };
        let to = remote(0, transport, true);
        let shape = Shape::plain(transport);
        let passes = |napt: &mut Napt, shape: &Shape, sender, (from, to), asks| {
            let tick = napt.tick(now);
            let mut travel = Travel { bytes: shape.between(from, to, asks), sender };
            let mut probe = travel.probe(napt)?;
            napt.locate(&mut probe);
            napt.translate_located(&mut travel.bytes, &probe, tick).map(|_| travel.bytes)
        };
        assert_eq!(passes(&mut napt, &shape, Some(owner), (from, to), true), None);
        let mut first = shape.between(from, to, true);
        assert_eq!(napt.outbound(&mut first, &owner, now), Outcome::Translated(()));
        let again = passes(&mut napt, &shape, Some(owner), (from, to), true).unwrap();
        let external = source(&plain::read(&again, Side::Source).unwrap());
        let back = passes(&mut napt, &shape, None, (to, external), false).unwrap();
        assert_eq!(destination(&plain::read(&back, Side::Destination).unwrap()), from);
        // Nobody else's.
        let other = InsideHost { station: None, ..owner };
        assert_eq!(passes(&mut napt, &shape, Some(other), (from, to), true), None);
        for unusual in [
            Shape { options: true, ..shape.clone() },
            Shape { fragment: Some((0, true)), ..shape.clone() },
            Shape { fragment: Some((1, false)), ..shape.clone() },
            Shape { is_error: true, ..shape.clone() },
            Shape { len: 26, ..shape.clone() },
        ] {
            assert_eq!(passes(&mut napt, &unusual, Some(owner), (from, to), true), None);
            assert_eq!(passes(&mut napt, &unusual, None, (to, external), false), None);
        }
    }
}

/// What was found before a session ended, or another took its place, translates
/// nothing.
#[test]
fn a_number_that_has_passed_to_another_session_is_nobodys() {
    let both = Dependence::EndpointIndependent;
    let mut napt = Napt::new(config(both, both), 0, [3, 4], (0, 1));
    let mut now = Instant::now();
    let owner = host(0);
    let shape = Shape::plain(Transport::Udp);
    let packet = |port| {
        let from = Endpoint { address: owner.address, port };
        shape.between(from, remote(0, Transport::Udp, true), true)
    };
    assert_eq!(napt.outbound(&mut packet(4000), &owner, now), Outcome::Translated(()));
    let mut probe = napt.probe_outbound(&packet(4000), owner.tenant, owner.station).unwrap();
    napt.locate(&mut probe);
    let tick = napt.tick(now);
    assert!(napt.translate_located(&mut packet(4000), &probe, tick).is_some());
    for _ in 0..600 {
        now += Duration::from_secs(1);
        napt.sweep(now);
    }
    let tick = napt.tick(now);
    assert_eq!(napt.translate_located(&mut packet(4000), &probe, tick), None);
    assert_eq!(napt.outbound(&mut packet(4002), &owner, now), Outcome::Translated(()));
    assert_eq!(napt.flows.flows.get(probe.flow).map(|flow| flow.key.port()), Some(4002));
    assert_eq!(napt.translate_located(&mut packet(4000), &probe, tick), None);
}

/// A NAPT that has known a host since it opened a session from port 4000, and the time.
fn with_a_known_host(config: NaptConfig, cores: (u32, u32)) -> (Napt, Instant) {
    let mut napt = Napt::new(config, 0, [3, 4], cores);
    let now = Instant::now();
    let mut first = from_port(4000, &Shape::plain(Transport::Udp));
    assert_eq!(napt.outbound(&mut first, &host(0), now), Outcome::Translated(()));
    (napt, now)
}

/// A packet of the known host.
fn from_port(port: u16, shape: &Shape) -> Vec<u8> {
    let from = Endpoint { address: host(0).address, port };
    shape.between(from, remote(0, shape.transport, true), true)
}

/// Sends a burst in stages: who of it got through.
fn burst(napt: &mut Napt, packets: &mut [Vec<u8>], now: Instant) -> Vec<bool> {
    let InsideHost { tenant, station, .. } = host(0);
    let tick = napt.tick(now);
    let probe = |napt: &Napt, packet: &Vec<u8>| {
        let mut probe = napt.probe_outbound(packet, tenant, station).unwrap();
        napt.locate(&mut probe);
        probe
    };
    let probes: Vec<_> = packets.iter().map(|packet| probe(napt, packet)).collect();
    let all = packets.iter_mut().zip(&probes);
    all.map(|(packet, probe)| napt.translate_located(packet, probe, tick).is_some()).collect()
}

/// A host that is known opens its further sessions in stages; packets of one that come
/// in one burst share it.
#[test]
fn a_known_host_opens_sessions_in_stages_and_each_once() {
    let both = Dependence::EndpointIndependent;
    for transport in [Transport::Udp, Transport::Tcp, Transport::IcmpQuery] {
        let (mut napt, now) = with_a_known_host(config(both, both), (0, 1));
        let shape = Shape::plain(transport);
        let mut packets = [4001, 4002, 4001].map(|port| from_port(port, &shape));
        assert_eq!(burst(&mut napt, &mut packets, now), [true; 3], "{transport:?}");
        let [first, other, again] =
            packets.map(|packet| source(&plain::read(&packet, Side::Source).unwrap()));
        assert_eq!((first, first == other), (again, false), "{transport:?}");
        assert_eq!((napt.counters.opened.get(), napt.flows.flows.len()), (3, 3));
    }
}

/// What no session may come of opens none here and leaves no trace, whatever the
/// reason: its refusal is the general way's.
#[test]
fn who_may_open_no_session_changes_nothing_in_stages() {
    let both = Dependence::EndpointIndependent;
    let nothing_comes_of = |what: &str, config: NaptConfig, shape: &Shape, cores| {
        let (mut napt, now) = with_a_known_host(config, cores);
        let before = (state(&napt), napt.flows.mappings.len());
        let openings = napt.flows.hosts.get(0).unwrap().openings;
        let packet = from_port(4001, shape);
        let mut packets = [packet.clone()];
        assert_eq!(burst(&mut napt, &mut packets, now), [false], "{what}");
        assert_eq!((state(&napt), napt.flows.mappings.len()), before, "{what}");
        assert_eq!(napt.flows.hosts.get(0).unwrap().openings, openings, "{what}");
        assert_eq!(packets, [packet], "{what}");
    };
    let (config, udp) = (|| config(both, both), Shape::plain(Transport::Udp));
    let late = Shape { flags: TcpHeader::ACK, ..Shape::plain(Transport::Tcp) };
    nothing_comes_of("no first segment", config(), &late, (0, 1));
    nothing_comes_of("perhaps another core's", config(), &udp, (0, 2));
    let limited = NaptConfig { max_sessions_per_host: 1, ..config() };
    nothing_comes_of("as many sessions as it may have", limited, &udp, (0, 1));
    let slow = NaptConfig { sessions_per_second_per_host: 1, ..config() };
    nothing_comes_of("too many in a second", slow, &udp, (0, 1));
    let full = NaptConfig { max_sessions: 1, ..config() };
    nothing_comes_of("no room", full, &udp, (0, 1));
    // Of two ports the one of 4000 is taken, and 4001 had the other.
    let small = NaptConfig { block_size: 2, ..config() };
    let (mut napt, now) = with_a_known_host(small, (0, 1));
    let mut packets = [4001, 4002].map(|port| from_port(port, &udp));
    assert_eq!(burst(&mut napt, &mut packets, now), [true, false], "a block is not given here");
    assert_eq!((napt.counters.given.get(), napt.flows.mappings.len()), (1, 2));
}

/// Where cores share a NAPT, a host's sessions are opened in stages by the core that has
/// its state, and by no other.
#[test]
fn a_core_opens_sessions_in_stages_for_its_own_hosts_only() {
    let both = Dependence::EndpointIndependent;
    for is_here in [true, false] {
        let (napt, now) = with_a_known_host(config(both, both), (1, 2));
        let mut napt = napt.of_hosts(move |address| is_here && address == host(0).address);
        let mut packets = [from_port(4001, &Shape::plain(Transport::Udp))];
        assert_eq!(burst(&mut napt, &mut packets, now), [is_here]);
    }
}
