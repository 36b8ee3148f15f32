//! The parts of the packet path and of a registration, each by itself. What a whole
//! packet costs is not their sum: see the program `throughput`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "criterion's macros make functions without any; what fails here is no packet's fault"
)]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use homeport_bench::case::{Family, FrameLen, Kind};
use homeport_bench::frames::{Frames, Random, Work, port_mac};
use homeport_bench::{addresses, world};
use homeport_dataplane::encap::{Tunnel, encapsulate};
use homeport_dataplane::napt::{InsideHost, Napt, NaptConfig};
use homeport_dataplane::packet::{Packet, PacketPool};
use homeport_dataplane::table::binding::{BindingEntry, BindingKey, EntryFlags};
use homeport_dataplane::table::hash::{Reader, table};
use homeport_dataplane::table::keyed::KeyedHash;
use homeport_dataplane::table::lpm::routes;
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::{decap, parse};
use homeport_proto::message::{
    AuthenticationKind, Identification, Message, MessageWriter, RegistrationRequest, RequestFlags,
};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, Spi,
};
use homeport_proto::{Lifetime, PortId, TenantId};
use homeport_wire::{EthernetHeader, checksum};

const SEED: [u64; 2] = [1, 2];
const BATCH: usize = 32;
const FAMILY: Family = Family::Bindings(Kind::IpIp);

fn key(node: u64) -> BindingKey {
    BindingKey { tenant: TenantId(0), home_address: addresses::home(node) }
}

fn hash(c: &mut Criterion) {
    let hash = KeyedHash::new(SEED);
    let mut node = 0;
    c.bench_function("keyed hash of a binding's key", |b| {
        b.iter(|| {
            node += 1;
            hash.hash(black_box(&key(node)))
        });
    });
    for len in [20, 64, 1400] {
        let bytes = vec![0xa5; len];
        let mut group = c.benchmark_group("checksum");
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} bytes"), |b| {
            b.iter(|| checksum::checksum(black_box(&bytes)));
        });
    }
}

fn bindings(c: &mut Criterion) {
    for (name, count) in [("1 k", 1000u64), ("1 M", 1_000_000)] {
        let mut writer = table(count as usize, SEED);
        for node in 0..count {
            let (key, entry) = world::binding(FAMILY, node, EntryFlags::default()).unwrap();
            writer.install(key, entry).unwrap();
        }
        let reader: Reader<BindingKey, BindingEntry> = writer.reader();
        let Some(at_hand) = reader.at_hand() else { return };
        let mut random = Random::new(5);
        let mut group = c.benchmark_group("binding look-up");
        group.bench_function(format!("{name}, one by one"), |b| {
            b.iter(|| reader.lookup(&key(random.below(count))).is_some());
        });
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(format!("{name}, {BATCH} in stages"), |b| {
            b.iter(|| {
                let keys: [_; BATCH] = std::array::from_fn(|_| key(random.below(count)));
                let probes = keys.map(|key| at_hand.probe(&key));
                let candidates = probes.map(|probe| at_hand.locate(&probe));
                let found = keys.iter().zip(&candidates).filter(|(key, candidate)| {
                    let entry = candidate.as_ref().and_then(|it| at_hand.confirm(it, key));
                    entry.is_some()
                });
                found.count()
            });
        });
    }
}

fn frame(work: Work) -> Vec<u8> {
    let frames = Frames::new(Family::MixedBindings, FrameLen::Fixed(64), port_mac(0));
    let mut bytes = [0; 2048];
    let len = frames.write(work, &work.ends(9), 9, &mut bytes);
    bytes[EthernetHeader::LEN..len].to_vec()
}

/// The numbers of nodes with tunnels of the four kinds.
const NODES: [(u64, &str); 4] = [(0, "IP in IP"), (1, "UDP"), (2, "GRE"), (3, "minimal")];

fn tunnels(c: &mut Criterion) {
    let mut pool = PacketPool::new(1);
    let mut packet = pool.take().unwrap();
    for (node, name) in NODES {
        let plain = frame(Work::Encap(node));
        let tunnel = Tunnel {
            source: addresses::HOME_AGENT,
            destination: addresses::care_of(node),
            encapsulation: Family::MixedBindings.kind(node).encapsulation(node),
            set_dont_fragment: false,
        };
        let mut identification = 0;
        c.bench_function(&format!("copy and encapsulate 64 bytes, {name}"), |b| {
            b.iter(|| {
                assert!(packet.set_bytes(&plain));
                encapsulate(&mut packet, black_box(&tunnel), &mut identification).unwrap();
            });
        });
        let tunnelled = frame(Work::Decap(node));
        let leave = |packet: &mut Packet| {
            assert!(packet.set_bytes(&tunnelled));
            let facts = parse::ipv4(packet.bytes()).unwrap();
            let payload = &packet.bytes()[usize::from(facts.header_len)..];
            let (opened, _) = decap::open(&facts, payload).unwrap();
            decap::decapsulate(packet, &facts, &opened).unwrap();
        };
        c.bench_function(&format!("copy, parse and decapsulate 64 bytes, {name}"), |b| {
            b.iter(|| leave(&mut packet));
        });
    }
}

fn napt(c: &mut Criterion) {
    const FLOWS: u64 = 100_000;
    let config = NaptConfig {
        max_sessions: 2 * FLOWS as usize,
        ports: 1024..=65_535,
        sessions_per_second_per_host: 1_000_000,
        ..NaptConfig::new(
            "bench",
            vec![PortId(0)],
            PortId(1),
            (0..8).map(addresses::external).collect(),
        )
    };
    let mut napt = Napt::new(config, 0, SEED, (0, 1));
    let frames = Frames::new(Family::Flows, FrameLen::Fixed(64), port_mac(0));
    let now = Instant::now();
    let mut bytes = [0; 2048];
    let mut translate = |flow: u64| {
        let work = Work::Out(flow);
        let len = frames.write(work, &work.ends(0), 0, &mut bytes);
        let host =
            InsideHost { tenant: TenantId(0), address: addresses::inside(flow).0, station: None };
        napt.outbound(&mut bytes[EthernetHeader::LEN..len], &host, now)
    };
    for flow in 0..FLOWS {
        translate(flow);
    }
    let mut random = Random::new(5);
    c.bench_function("NAPT, established flow of 100 k, frame written", |b| {
        b.iter(|| translate(random.below(FLOWS)));
    });
}

fn lpm(c: &mut Criterion) {
    let mut writer = routes(100_000);
    let via = RouteEntry::Via { port: PortId(1), gateway: Some(addresses::GATEWAY) };
    writer.install(TenantId(0), Ipv4Addr::UNSPECIFIED, 0, via).unwrap();
    for n in 0..50_000u32 {
        let prefix = Ipv4Addr::from_bits(60 << 24 | n << 8);
        writer.install(TenantId(0), prefix, 24, via).unwrap();
    }
    let reader = writer.reader();
    let mut random = Random::new(5);
    c.bench_function("route look-up, a /24 of 50 k", |b| {
        b.iter(|| {
            let address = Ipv4Addr::from_bits(60 << 24 | random.below(50_000 << 8) as u32);
            reader.lookup(TenantId(0), address)
        });
    });
    c.bench_function("route look-up, the default route beside them", |b| {
        b.iter(|| reader.lookup(TenantId(0), addresses::care_of(random.below(1 << 24))));
    });
}

fn registration(c: &mut Criterion) {
    let association = MobilitySecurityAssociation {
        spi: Spi(256),
        algorithm: Algorithm::HmacMd5,
        key: Key::new(vec![7; 16]),
        replay: ReplayProtection::default(),
    };
    let request = RegistrationRequest {
        flags: RequestFlags::REVERSE_TUNNEL,
        lifetime: Lifetime(1800),
        home_address: addresses::home(1),
        home_agent: addresses::HOME_AGENT,
        care_of_address: addresses::care_of(1),
        identification: Identification(1 << 40),
    };
    let sign = || {
        let mut writer = MessageWriter::request(&request);
        writer.authenticate(AuthenticationKind::MobileHome, &association);
        writer.finish().to_vec()
    };
    let bytes = sign();
    c.bench_function("registration request, written and signed", |b| {
        b.iter_batched(|| (), |()| sign(), BatchSize::SmallInput);
    });
    c.bench_function("registration request, parsed and verified", |b| {
        b.iter(|| {
            let Ok(Message::Request(received)) = Message::parse(black_box(&bytes)) else {
                return false;
            };
            let found = received.mobile_home_authentication();
            found.is_some_and(|found| received.verify(found, &association))
        });
    });
}

criterion_group! {
    name = parts;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1))
        .sample_size(30);
    targets = hash, bindings, tunnels, napt, lpm, registration
}
criterion_main!(parts);
