//! Registrations from end to end, and under a storm: the whole of `homeportd` but for
//! the kernel's part of its ports.
//!
//! The event loop, the agents, the tables, the worker and the rings between them are
//! those of the daemon, on two threads as there. The port is a generator: it hands
//! requests that were signed before to the worker, a burst at a time, and takes the
//! replies. So what is measured is *punt ring, event loop, agent, table, inject ring*,
//! and not a network driver; the generator's own work is the worker's time.
//!
//! **Not done:** a daemon behind veth pairs. There, two cores carry the sender, the
//! kernel's two ends of each pair, the worker and the control core at once, and the
//! kernel's part is the larger.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use homeport_control::admin::api::{self, AdminSender, Answer, Identity, Query};
use homeport_control::config::Config;
use homeport_control::event_loop::{EventLoop, Parts, Signals};
use homeport_control::install::ClaimKeeper;
use homeport_control::kernel::{Mirror, Resolver, Setup};
use homeport_dataplane::classify::UNDERLAY;
use homeport_dataplane::config::{DataplaneConfig, PollMode, PortSetup};
use homeport_dataplane::launch;
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::verdict::DropReason;
use homeport_proto::message::{
    AuthenticationKind, Identification, MessageWriter, RegistrationRequest, RequestFlags,
};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, Spi,
};
use homeport_proto::{Lifetime, MacAddress, NtpTime, PortId};
use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Header, UdpHeader};
use zerocopy::IntoBytes;

use self::generator::{Data, FRAME_LEN, Frame, Generator, LOST_AFTER, Pace, Plan, Tally};
use crate::measure::{Cores, pin};

mod generator;

const OUR_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const ROUTER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const FIRST_HOME_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// Where the nodes are: each has an address of its own.
const FIRST_CARE_OF_ADDRESS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const SPI: Spi = Spi(0x100);
const KEY: [u8; 16] = *b"sixteen bytes...";

/// The most nodes: as many as there are addresses for.
pub const MAX_NODES: usize = 4_000_000;

/// How often a bound node renews in a storm, and its lifetime: where three renewals
/// in a row are shed, it expires.
const RENEWAL_INTERVAL: Duration = Duration::from_millis(500);
const STORM_LIFETIME: Lifetime = Lifetime(2);

/// Data packets a second beside a storm.
const DATA_PER_SECOND: f64 = 50_000.0;

/// Requests on their way at once where the rate is what the control core can do.
const WINDOW: usize = 1024;

/// What a registration costs from end to end.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Renewals that were accepted in a second.
    pub accepted_per_s: f64,
    /// From the request's being received to the reply's being sent, microseconds, at
    /// that rate with 1,024 requests on their way.
    pub p50_us: u32,
    /// The same, of 99 in 100.
    pub p99_us: u32,
    /// Replies with another code than 0 or 1.
    pub denied: u64,
}

/// What a storm does.
#[derive(Clone, Debug)]
pub struct StormFigures {
    /// Accepted in a second, new ones and renewals, where new ones come only as fast
    /// as they are answered: before or after the storm, whichever was more.
    pub peak_per_s: f64,
    /// Requests that came in a second: no more than the RX core, on which the generator
    /// is too, can take in.
    pub offered_per_s: f64,
    /// Those that were accepted, new ones and renewals.
    pub accepted_per_s: f64,
    /// Renewals sent and accepted.
    pub renewals: (u64, u64),
    /// Microseconds that accepted renewals took: of half of them, of 99 in 100.
    pub renewal_us: (u32, u32),
    /// Bindings that ended without renewal.
    pub expired: u64,
    /// Data packets sent, and those that left by a tunnel.
    pub data: (u64, u64),
    /// Shed: by a full punt ring, by a network's budget, by age.
    pub shed: (u64, u64, u64),
}

/// How many renewals of `nodes` nodes (at most [`MAX_NODES`]) a daemon accepts in a
/// second, over so many seconds or until a million were sent.
///
/// # Errors
/// When the parts of a daemon cannot be made; as root or in a user's own network
/// namespace they can.
pub fn end_to_end(nodes: usize, seconds: f64, cores: Cores) -> Result<Figures> {
    let nodes = nodes.clamp(1, MAX_NODES);
    let rounds = 1_000_000usize.div_ceil(nodes);
    let plan = Plan {
        first: FIRST_HOME_ADDRESS,
        bind: sign(0..nodes, 0..1, Lifetime(600)),
        requests: sign(0..nodes, 1..1 + rounds, Lifetime(600)),
        pace: Pace::Window(WINDOW),
        retry: false,
        renewals: Vec::new(),
        renewals_per_second: 0.0,
        data: data(),
        data_per_second: 0.0,
        time: Duration::from_secs_f64(seconds),
    };
    let (mut tally, _) = run(plan, nodes, cores)?;
    let (p50_us, p99_us) = percentiles(&mut tally.took);
    let accepted_per_s = tally.accepted as f64 / tally.seconds;
    Ok(Figures { accepted_per_s, p50_us, p99_us, denied: tally.denied })
}

/// A storm of new nodes, `factor` times what is accepted at the peak, while `nodes`
/// bound nodes renew twice a second and 50,000 data packets a second go to them. A
/// new node asks again and again until it is accepted.
///
/// # Errors
/// As [`end_to_end`].
pub fn storm(nodes: usize, factor: f64, seconds: f64, cores: Cores) -> Result<StormFigures> {
    let nodes = nodes.clamp(1, MAX_NODES / 2);
    // If that is not enough, a peak ends when all are registered.
    let new = ((seconds * 500_000.0) as usize).min(MAX_NODES - nodes);
    let rate = |tally: &Tally| (tally.accepted + tally.renewals_accepted) as f64 / tally.seconds;
    let peak = || {
        let (tally, _) = storm_run(nodes, new, Pace::Window(WINDOW), seconds, cores)?;
        anyhow::Ok((rate(&tally), tally.renewals_sent as f64 / tally.seconds))
    };
    let (before, renewals) = peak()?;
    let pace = Pace::Rate((factor * before - renewals).max(0.0));
    // And all that wait for an answer, or for their next request.
    let waiting = factor * LOST_AFTER.as_secs_f64();
    let storm_new = (((seconds * 2.0 + waiting) * before) as usize).min(MAX_NODES - nodes);
    let (mut tally, counters) = storm_run(nodes, storm_new, pace, seconds, cores)?;
    if tally.exhausted {
        bail!("all {storm_new} new nodes were registered before the storm was over");
    }
    // What else this machine has to do changes from one second to the next.
    let (after, _) = peak()?;
    let peak_per_s = before.max(after);
    Ok(StormFigures {
        peak_per_s,
        offered_per_s: (tally.sent + tally.renewals_sent) as f64 / tally.seconds,
        accepted_per_s: rate(&tally),
        renewals: (tally.renewals_sent, tally.renewals_accepted),
        renewal_us: percentiles(&mut tally.renewals_took),
        expired: counters.expired,
        data: (tally.data_sent, tally.data_forwarded),
        shed: (counters.full, counters.rate, counters.old),
    })
}

fn storm_run(
    nodes: usize,
    new: usize,
    pace: Pace,
    seconds: f64,
    cores: Cores,
) -> Result<(Tally, Counters)> {
    let rounds = (seconds / RENEWAL_INTERVAL.as_secs_f64()).ceil() as usize;
    let plan = Plan {
        first: FIRST_HOME_ADDRESS,
        bind: sign(0..nodes, 0..1, STORM_LIFETIME),
        renewals: sign(0..nodes, 1..1 + rounds, STORM_LIFETIME),
        renewals_per_second: nodes as f64 / RENEWAL_INTERVAL.as_secs_f64(),
        requests: sign(nodes..nodes + new, 0..1, Lifetime(600)),
        pace,
        retry: true,
        data: data(),
        data_per_second: DATA_PER_SECOND,
        time: Duration::from_secs_f64(seconds),
    };
    run(plan, nodes + new, cores)
}

/// What the daemon counted.
#[derive(Debug, Default)]
struct Counters {
    expired: u64,
    full: u64,
    rate: u64,
    old: u64,
}

/// Runs a daemon's parts until the generator is done.
fn run(plan: Plan, nodes: usize, cores: Cores) -> Result<(Tally, Counters)> {
    let config = config(nodes)?;
    let (generator, result) = Generator::new(plan, nodes);
    let dataplane = DataplaneConfig {
        poll: PollMode::Busy,
        bindings: nodes,
        hash_seed: [0x5eed, 0x1234_5678],
        registrations: config.dataplane.registrations,
        ..DataplaneConfig::default()
    };
    let port = PortSetup {
        name: "wire".into(),
        tenant: UNDERLAY,
        queues: vec![Box::new(generator)],
        twin: None,
    };
    let (mut control, workers) = launch::build(&dataplane, vec![port])?;
    let everywhere = RouteEntry::Via { port: PortId(0), gateway: Some(ROUTER) };
    control.routes.install(UNDERLAY, Ipv4Addr::UNSPECIFIED, 0, everywhere)?;
    let router = NeighborKey { port: PortId(0), address: ROUTER };
    control.neighbors.install(router, NeighborEntry { mac: ROUTER_MAC })?;
    let ports = Arc::clone(&control.ports);

    let (stop, mut stopping) = UnixStream::pair()?;
    let (reload, _reloading) = UnixStream::pair()?;
    let (worker_ended, _running) = UnixStream::pair()?;
    let (sender, admin) = api::channel()?;
    let mut event_loop = EventLoop::new(Parts {
        control,
        config: Arc::new(config),
        seed: [7; 32],
        recorder: None,
        sessions: None,
        mirror: Mirror::new([])?,
        resolver: Resolver::new()?,
        setup: Setup::new()?,
        claims: ClaimKeeper::default(),
        admin,
        signals: Signals { stop, reload, worker: worker_ended, begin_reload: Box::new(|| {}) },
    });
    let stop_worker = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        for worker in workers {
            let stop = Arc::clone(&stop_worker);
            scope.spawn(move || {
                pin(cores.worker);
                worker.run(&stop);
            });
        }
        let director = scope.spawn(move || {
            let tally = loop {
                if let Some(tally) = result.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    break tally;
                }
                thread::sleep(Duration::from_millis(5));
            };
            let counters = counters(&sender);
            stopping.write_all(b"x")?;
            counters.map(|counters| (tally, counters))
        });
        // On a thread of its own: this one and all that it makes later stay free.
        let running = scope.spawn(|| {
            pin(cores.control);
            event_loop.run()
        });
        let ended = running.join().map_err(|_| anyhow::anyhow!("the event loop panicked"));
        stop_worker.store(true, Ordering::Relaxed);
        let (tally, mut counters) =
            director.join().map_err(|_| anyhow::anyhow!("the director panicked"))??;
        ended??;
        let dropped =
            |reason| ports.iter().map(|port| port.sum(|stats| stats.dropped(reason).get())).sum();
        counters.full = dropped(DropReason::PuntQueueFull);
        counters.rate = dropped(DropReason::RegistrationRate);
        Ok((tally, counters))
    })
}

fn counters(sender: &AdminSender) -> Result<Counters> {
    let answer = sender
        .submit(Query::Counters, Identity::Operator)
        .and_then(api::PendingAnswer::wait_blocking)
        .map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let Answer::Counters { counters } = answer else { bail!("another answer than was asked for") };
    let sum = |name: &str| {
        counters.iter().filter(|counter| counter.name == name).map(|counter| counter.value).sum()
    };
    let (expired, old) = (sum("bindings_expired"), sum("punts_too_old"));
    Ok(Counters { expired, old, ..Counters::default() })
}

fn config(nodes: usize) -> Result<Config> {
    let text = format!(
        "[daemon]\nadmin_socket = \"/run/homeport/storm.sock\"\n\
         [[port]]\nname = \"wire\"\nbackend = \"af_packet\"\ninterface = \"wire\"\n\
         addresses = [\"{HOME_AGENT}/24\"]\n\
         [[home_agent]]\nname = \"ha\"\naddress = \"{HOME_AGENT}\"\nmax_bindings = {nodes}\n\
         [[home_agent.home_network]]\nprefix = \"10.64.0.0/10\"\n"
    );
    let mut config = Config::parse(&text, Path::new("storm.toml"))?;
    let agent = config.home_agents.first_mut().context("the config has a home agent")?;
    for node in 0..nodes {
        agent.config.security.insert_mobile_node(numbered(FIRST_HOME_ADDRESS, node), association());
    }
    Ok(config)
}

/// Requests are signed before the daemon starts, for a time when it runs.
fn association() -> MobilitySecurityAssociation {
    MobilitySecurityAssociation {
        spi: SPI,
        algorithm: Algorithm::HmacMd5,
        key: Key::new(KEY.to_vec()),
        replay: ReplayProtection::Timestamps { tolerance: Duration::from_secs(600) },
    }
}

fn numbered(first: Ipv4Addr, number: usize) -> Ipv4Addr {
    // At most MAX_NODES.
    Ipv4Addr::from_bits(first.to_bits() + number as u32)
}

/// The requests of these nodes, round by round: of each node's, every one is newer
/// than the one before.
fn sign(
    nodes: std::ops::Range<usize>,
    rounds: std::ops::Range<usize>,
    lifetime: Lifetime,
) -> Vec<Frame> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = NtpTime::from_unix(since_epoch + Duration::from_secs(120)).0;
    let association = association().ready();
    rounds
        .flat_map(|round| nodes.clone().map(move |node| (round, node)))
        // A millisecond is 2³² / 1,000 of a timestamp's units.
        .map(|(round, node)| {
            let identification = Identification(start + round as u64 * 4_294_967);
            request(node, identification, lifetime, &association)
        })
        .collect()
}

fn request(
    node: usize,
    identification: Identification,
    lifetime: Lifetime,
    association: &MobilitySecurityAssociation,
) -> Frame {
    let care_of_address = numbered(FIRST_CARE_OF_ADDRESS, node);
    let mut writer = MessageWriter::request(&RegistrationRequest {
        flags: RequestFlags::CO_LOCATED,
        lifetime,
        home_address: numbered(FIRST_HOME_ADDRESS, node),
        home_agent: HOME_AGENT,
        care_of_address,
        identification,
    });
    writer.authenticate(AuthenticationKind::MobileHome, association);
    let message = writer.finish();
    UdpHeader::new((care_of_address, 1434), (HOME_AGENT, 434), &message)
        .map(|udp| [udp.as_bytes(), &message].concat())
        .map(|payload| ethernet(care_of_address, HOME_AGENT, IpProtocol::UDP, &payload))
        .unwrap_or([0; FRAME_LEN])
}

/// A packet of 64 bytes for the first node.
fn data() -> Data {
    ethernet(Ipv4Addr::new(192, 0, 2, 7), FIRST_HOME_ADDRESS, IpProtocol::TCP, &[0; 30])
}

/// A frame of this packet, which is as long as the frame has room for.
fn ethernet<const LEN: usize>(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: IpProtocol,
    payload: &[u8],
) -> [u8; LEN] {
    let ethernet = EthernetHeader::new(OUR_MAC, ROUTER_MAC, EtherType::IPV4);
    let mut ip = Ipv4Header::new(from, to, protocol, 64, (Ipv4Header::LEN + payload.len()) as u16);
    ip.fill_checksum();
    let mut frame = [0; LEN];
    let bytes = [ethernet.as_bytes(), ip.as_bytes(), payload].concat();
    frame.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    frame
}

/// Half took no longer, and 99 in 100; zero without any.
fn percentiles(took: &mut [u32]) -> (u32, u32) {
    took.sort_unstable();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or(0);
    (at(0.5), at(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYWHERE: Cores = Cores { worker: None, control: None };

    /// Reliability, figure 8, as behaviour: the times are the program's to measure.
    #[test]
    fn a_storm_costs_no_renewal_no_binding_and_no_packet() {
        let storm = storm(200, 20.0, 1.0, ANYWHERE).unwrap();
        assert_eq!(storm.renewals.0, storm.renewals.1, "{storm:?}");
        assert_eq!(storm.expired, 0, "{storm:?}");
        assert_eq!(storm.data.0, storm.data.1, "{storm:?}");
        assert!(storm.shed.0 > 0, "there was no storm: {storm:?}");
    }

    #[test]
    fn requests_are_accepted_from_end_to_end() {
        let figures = end_to_end(100, 0.2, ANYWHERE).unwrap();
        // Of a node's first request and its renewal on its heels, the renewal goes first:
        // then the first is stale.
        let accepted = figures.accepted_per_s * 0.2;
        assert!(accepted > 0.0 && figures.denied as f64 <= accepted / 4.0, "{figures:?}");
    }
}
