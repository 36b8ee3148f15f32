//! Registrations of a control core, in process: how many a second, and what each
//! binding costs in memory.
//!
//! One thread does what the control core does between the punt ring and the inject
//! ring: a Registration Request goes into the agents; whatever they ask for is done
//! in order, that is, the binding goes into the real binding table by the real
//! installer, and the reply becomes an IPv4 packet with its checksums. The requests
//! are signed before (by batches, outside of the measured time), come in random
//! order from foreign agents all over, and carry timestamps that are right at the
//! moment at which they are handed over. Time is virtual: reading the clock is not
//! part of a registration, since the event loop reads it once for many.

use std::net::Ipv4Addr;
use std::time::Instant as WallClock;

use homeport_control::inject;
use homeport_control::install::{ClaimKeeper, Installer, Tables};
use homeport_dataplane::broadcast::ListenerWriter;
use homeport_dataplane::table::{hash, lpm, source_route, visitor};
use homeport_proto::agent::{Agent, Datagram, TOGETHER};
use homeport_proto::config::{
    AddressPool, AddressRange, AgentConfig, HomeAgentAssignment, HomeAgentConfig, HomeNetwork,
    NatPolicy, Prefix, Profile, SessionPolicy, TunnelPolicy,
};
use homeport_proto::message::{
    AuthenticationKind, Extension, Identification, MessageWriter, RegistrationRequest, RequestFlags,
};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, SecurityAssociations, Spi,
};
use homeport_proto::{Action, Instant, Lifetime, MacAddress, Now, NtpTime, PortId, TenantId};
use rustix::time::{ClockId, clock_gettime};

use crate::order::{Order, mixed};

/// The most nodes: what a home network of eight bits holds.
pub const MAX_NODES: usize = 1 << 24;

/// Addresses of a network that no node has: its own and that of its broadcasts.
pub const UNUSABLE: usize = 2;

const TENANT: TenantId = TenantId(0);
const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HOME_NETWORK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// Foreign agents are in here: 16,384 prefixes of 24 bits, each of which may send
/// 2,000 messages a second.
const FOREIGN_NETWORK: u32 = Ipv4Addr::new(100, 64, 0, 0).to_bits();
const FOREIGN_BITS: u32 = 22;
const LIFETIME: Lifetime = Lifetime(65_534);
const SPI: Spi = Spi(256);
const SEED: [u64; 2] = [0x5eed, 0x5eed];
/// Requests signed at a time.
const BATCH: usize = 1 << 15;
/// Virtual time between two requests: half a million in a second.
const PACE_NANOS: u64 = 2_000;

/// Who registers.
#[derive(Clone, Copy, Debug)]
pub struct Population {
    /// How many.
    pub nodes: usize,
    /// How many of them are sessions of one NAI; `None`: each is known by its home
    /// address.
    pub per_nai: Option<usize>,
}

impl Population {
    /// So many nodes that are known by their home addresses.
    pub const fn plain(nodes: usize) -> Self {
        Population { nodes, per_nai: None }
    }

    fn clamped(self) -> Self {
        Population {
            nodes: self.nodes.clamp(1, MAX_NODES - UNUSABLE),
            per_nai: self.per_nai.map(|per_nai| per_nai.max(1)),
        }
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Nodes that registered.
    pub nodes: usize,
    /// Registrations a second, of all that were measured.
    pub per_second: f64,
    /// The same for first registrations: a binding is made.
    pub new_per_second: f64,
    /// The same for renewals.
    pub renewals_per_second: f64,
    /// Registrations a second in the slowest batch of 32,768.
    pub slowest_batch_per_second: f64,
    /// Registrations in a second of the core's own time: what else the machine did
    /// meanwhile is not in it.
    pub per_cpu_second: f64,
    /// How many registrations were measured.
    pub registrations: u64,
}

/// What memory was measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Bindings held.
    pub bindings: usize,
    /// Resident bytes of the control plane with them: associations, bindings,
    /// identifications, timers, and what the installer keeps of them.
    pub control_bytes: usize,
    /// Of these, what the associations took before any node was bound.
    pub association_bytes: usize,
    /// Resident bytes of the dataplane's tables.
    pub table_bytes: usize,
}

/// Registers everybody once, then renews them in random order until
/// `seconds` of registering have gone by in all.
///
/// # Errors
/// When a request is not answered as it must be: then the figures would be none.
pub fn in_process(population: Population, seconds: f64) -> anyhow::Result<Figures> {
    let population = population.clamped();
    let nodes = population.nodes;
    let mut bench = Bench::new(population);
    let mut figures = Figures { nodes, slowest_batch_per_second: f64::MAX, ..Figures::default() };
    let (mut new_seconds, mut renewal_seconds, mut renewals) = (0.0, 0.0, 0);
    bench.each_batch(nodes, |count, elapsed| {
        new_seconds += elapsed;
        figures.slowest_batch_per_second =
            figures.slowest_batch_per_second.min(count as f64 / elapsed);
        true
    })?;
    bench.check_bound(nodes)?;
    let left = seconds - new_seconds;
    while renewal_seconds < left {
        bench.each_batch(nodes, |count, elapsed| {
            renewal_seconds += elapsed;
            renewals += count;
            figures.slowest_batch_per_second =
                figures.slowest_batch_per_second.min(count as f64 / elapsed);
            renewal_seconds < left
        })?;
    }
    bench.check_bound(nodes)?;
    figures.registrations = (nodes + renewals) as u64;
    figures.per_second = figures.registrations as f64 / (new_seconds + renewal_seconds);
    figures.new_per_second = nodes as f64 / new_seconds;
    figures.per_cpu_second = figures.registrations as f64 / bench.cpu_seconds;
    figures.renewals_per_second =
        if renewals == 0 { 0.0 } else { renewals as f64 / renewal_seconds };
    Ok(figures)
}

/// Registrations in a second of the core's own time, of two populations in one run: a
/// batch of one, a batch of the other, and so on, so that whatever the machine does
/// meanwhile slows both down alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// First registrations of each.
    pub new: [f64; 2],
    /// Renewals of each.
    pub renewals: [f64; 2],
    /// All registrations of each.
    pub all: [f64; 2],
}

/// Registers everybody of both once, and `rounds` times more.
///
/// # Errors
/// As [`in_process`].
pub fn compared(populations: [Population; 2], rounds: usize) -> anyhow::Result<Compared> {
    let mut both = populations.map(|population| (Bench::new(population.clamped()), 0.0));
    for round in 0..=rounds {
        let mut orders =
            both.each_ref().map(|(bench, _)| Order::new(bench.population.nodes, round as u64));
        loop {
            let mut registered = 0;
            for ((bench, _), order) in both.iter_mut().zip(&mut orders) {
                registered += bench.one_batch(order)?.0;
            }
            if registered == 0 {
                break;
            }
        }
        if round == 0 {
            both.iter_mut().for_each(|(bench, new)| *new = bench.cpu_seconds);
        }
    }
    for (bench, _) in &both {
        bench.check_bound(bench.population.nodes)?;
    }
    let rounds = rounds as f64;
    let nodes = |bench: &Bench| bench.population.nodes as f64;
    Ok(Compared {
        new: both.each_ref().map(|(bench, new)| nodes(bench) / new),
        renewals: both
            .each_ref()
            .map(|(bench, new)| nodes(bench) * rounds / (bench.cpu_seconds - new)),
        all: both.each_ref().map(|(bench, _)| nodes(bench) * (rounds + 1.0) / bench.cpu_seconds),
    })
}

/// Registers everybody once, and so many times more, whatever time that
/// takes: for counting instructions.
///
/// # Errors
/// As [`in_process`].
pub fn rounds(population: Population, renewals: usize) -> anyhow::Result<()> {
    let population = population.clamped();
    let nodes = population.nodes;
    let mut bench = Bench::new(population);
    for _ in 0..=renewals {
        bench.each_batch(nodes, |_, _| true)?;
    }
    bench.check_bound(nodes)
}

/// Registers everybody once, and `renewals` times more, and says what
/// memory that takes. To be called in a process that has done nothing else, as it
/// reads the resident set.
///
/// # Errors
/// As [`in_process`], and when /proc cannot be read.
pub fn memory(population: Population, renewals: usize) -> anyhow::Result<Memory> {
    let population = population.clamped();
    let bindings = population.nodes;
    let start = resident()?;
    let installer = filled_once(bindings)?;
    let with_tables = resident()?;
    let mut bench = Bench::with(installer, population);
    // The buffers of a batch are no part of the control plane.
    bench.requests.reserve_exact(BATCH);
    let with_associations = resident()?;
    for _ in 0..=renewals {
        bench.each_batch(bindings, |_, _| true)?;
    }
    bench.check_bound(bindings)?;
    bench.requests = Vec::new();
    let end = resident()?;
    Ok(Memory {
        bindings,
        control_bytes: end.saturating_sub(with_tables),
        association_bytes: with_associations.saturating_sub(with_tables),
        table_bytes: with_tables.saturating_sub(start),
    })
}

/// Resident bytes of this process.
fn resident() -> anyhow::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes = kilobytes.ok_or_else(|| anyhow::anyhow!("/proc/self/status has no VmRSS"))?;
    Ok(kilobytes.trim().parse::<usize>()? * 1024)
}

fn installer(capacity: usize) -> Installer {
    Installer::new(
        Tables {
            bindings: hash::table(capacity, SEED),
            listeners: ListenerWriter::new(1, SEED),
            visitors: visitor::visitors(1, SEED),
            locals: hash::table(16, SEED),
            routes: lpm::routes(16),
            source_routes: source_route::source_routes(16),
            neighbors: hash::table(16, SEED),
        },
        vec![TENANT],
        ClaimKeeper::default(),
    )
}

/// An installer whose binding table has been full once, so that all its memory is
/// resident.
fn filled_once(capacity: usize) -> anyhow::Result<Installer> {
    use homeport_proto::action::{BindingState, CareOf};
    let mut installer = installer(capacity);
    for number in 0..capacity {
        let care_of = CareOf {
            address: care_of_address(number),
            registered: care_of_address(number),
            encapsulation: homeport_proto::Encapsulation::IpInIp,
            reverse_tunnel: true,
            co_located: false,
            broadcast: false,
            unproven: false,
            lifetime: LIFETIME,
        };
        installer.apply(&Action::InstallBinding(BindingState {
            tenant: TENANT,
            home_address: home_address(number),
            home_agent: HOME_AGENT,
            care_of_addresses: std::iter::once(care_of).collect(),
            home_link: None,
            mobile_networks: Vec::new(),
            set_df: false,
            clamp_mss: false,
        }));
    }
    for number in 0..capacity {
        let home_address = home_address(number);
        installer.apply(&Action::RemoveBinding { tenant: TENANT, home_address });
    }
    anyhow::ensure!(!installer.is_late(), "the binding table has less room than it says");
    Ok(installer)
}

/// The NAI of a subscriber.
fn nai(number: usize) -> String {
    format!("node{number:06}@bench.example")
}

fn home_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(HOME_NETWORK.to_bits() + number as u32)
}

fn care_of_address(number: usize) -> Ipv4Addr {
    let bits = mixed(number as u64) as u32 & ((1 << FOREIGN_BITS) - 1);
    Ipv4Addr::from_bits(FOREIGN_NETWORK | bits)
}

fn association(number: usize) -> MobilitySecurityAssociation {
    let number = number as u64;
    let key = [mixed(number), mixed(!number)].map(u64::to_be_bytes).concat();
    MobilitySecurityAssociation {
        spi: SPI,
        algorithm: Algorithm::HmacMd5,
        key: Key::new(key),
        replay: ReplayProtection::default(),
    }
}

/// A request as it comes in: who it is from, and its bytes.
struct Signed {
    number: u32,
    len: u8,
    bytes: [u8; 128],
}

impl Signed {
    fn datagram(&self) -> Datagram<'_> {
        Datagram {
            tenant: TENANT,
            port: PortId(0),
            source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            source: care_of_address(self.number as usize),
            destination: HOME_AGENT,
            source_port: 434,
            destination_port: 434,
            ttl: 64,
            payload: self.bytes.get(..usize::from(self.len)).unwrap_or_default(),
        }
    }
}

struct Bench {
    population: Population,
    agent: Agent,
    installer: Installer,
    requests: Vec<Signed>,
    /// Requests so far: virtual time goes by them.
    sequence: u64,
    rounds: u64,
    /// Bytes of replies: what cannot be left out by a clever compiler.
    reply_bytes: u64,
    replies: u64,
    /// The thread's own time in what is measured.
    cpu_seconds: f64,
}

impl Bench {
    fn new(population: Population) -> Self {
        Bench::with(installer(population.nodes), population)
    }

    fn with(installer: Installer, population: Population) -> Self {
        let Population { nodes, per_nai } = population;
        let max_bindings = nodes;
        let mut security = SecurityAssociations::default();
        match per_nai {
            None => {
                for number in 0..nodes {
                    security.insert_mobile_node(home_address(number), association(number));
                }
            }
            Some(per_nai) => {
                for number in 0..nodes.div_ceil(per_nai) {
                    let (nai, association) = (nai(number), association(number));
                    security.insert_nai(nai.as_bytes(), None, association, Lifetime::INFINITE);
                }
            }
        }
        let pool = per_nai.map(|_| AddressPool {
            name: "all".into(),
            realm: None,
            ranges: vec![AddressRange { first: home_address(1), last: home_address(nodes) }],
            exclusions: Vec::new(),
        });
        let sessions = SessionPolicy {
            pools: pool.into_iter().collect(),
            max_sessions_per_nai: u32::MAX / 2,
            ..SessionPolicy::default()
        };
        let home_agent = HomeAgentConfig {
            tenant: TENANT,
            address: HOME_AGENT,
            home_networks: Prefix::new(HOME_NETWORK, 8)
                .map(|prefix| HomeNetwork { prefix, link: None })
                .into_iter()
                .collect(),
            profile: Profile::Rfc5944,
            max_lifetime: LIFETIME,
            max_bindings,
            max_simultaneous: 1,
            reverse_tunnel: true,
            require_reverse_tunnel: false,
            administratively_prohibited: false,
            security,
            require_foreign_home_authentication: false,
            tunnels: TunnelPolicy::default(),
            nat: NatPolicy::default(),
            mobile_networks: Vec::new(),
            message_strings: false,
            revocation: false,
            assignment: HomeAgentAssignment::default(),
            sessions,
        };
        let config = AgentConfig { home_agents: vec![home_agent], ..AgentConfig::default() };
        Bench {
            population,
            agent: Agent::new(config, [7; 32], now(0)),
            installer,
            requests: Vec::new(),
            sequence: 1,
            rounds: 0,
            reply_bytes: 0,
            replies: 0,
            cpu_seconds: 0.0,
        }
    }

    /// Registers every node once, in an order that is another one each time. After
    /// each batch says how many it had and the seconds that it took, and goes on as
    /// long as the answer is `true`.
    fn each_batch(
        &mut self,
        nodes: usize,
        mut measured: impl FnMut(usize, f64) -> bool,
    ) -> anyhow::Result<()> {
        self.rounds += 1;
        let mut order = Order::new(nodes, self.rounds);
        loop {
            let (count, elapsed) = self.one_batch(&mut order)?;
            if count == 0 || !measured(count, elapsed) {
                return Ok(());
            }
        }
    }

    /// Registers the next of an order; how many they were, and the seconds that it took.
    fn one_batch(&mut self, order: &mut Order) -> anyhow::Result<(usize, f64)> {
        self.sign(order.take(BATCH))?;
        let replies = self.replies;
        let (start, cpu) = (WallClock::now(), cpu_seconds());
        self.register();
        let elapsed = start.elapsed().as_secs_f64();
        self.cpu_seconds += cpu_seconds() - cpu;
        let count = self.requests.len();
        anyhow::ensure!(
            self.replies - replies == count as u64,
            "{} replies to {count} requests",
            self.replies - replies
        );
        Ok((count, elapsed))
    }

    fn sign(&mut self, numbers: impl Iterator<Item = usize>) -> anyhow::Result<()> {
        self.requests.clear();
        for (sequence, number) in (self.sequence..).zip(numbers) {
            let request = RegistrationRequest {
                flags: RequestFlags::REVERSE_TUNNEL,
                lifetime: LIFETIME,
                home_address: match self.population.per_nai {
                    None => home_address(number),
                    Some(_) => Ipv4Addr::UNSPECIFIED,
                },
                home_agent: HOME_AGENT,
                care_of_address: care_of_address(number),
                identification: Identification(now(sequence).ntp.0),
            };
            let mut writer = MessageWriter::request(&request);
            let mut key = number;
            if let Some(per_nai) = self.population.per_nai {
                key = number / per_nai;
                let mac = (number as u64).to_be_bytes();
                let nai = nai(key);
                let names = [
                    Extension::NetworkAccessIdentifier(nai.as_bytes()),
                    Extension::SubNai(mac.get(2..).unwrap_or_default()),
                ];
                for name in &names {
                    writer.extension(name)?;
                }
            }
            writer.authenticate(AuthenticationKind::MobileHome, &association(key));
            let message = writer.finish();
            let mut bytes = [0; 128];
            for (to, from) in bytes.iter_mut().zip(&message) {
                *to = *from;
            }
            self.requests.push(Signed { number: number as u32, len: message.len() as u8, bytes });
        }
        Ok(())
    }

    /// What is measured. Not inlined, so that a profile can tell it from the rest.
    #[inline(never)]
    fn register(&mut self) {
        let requests = std::mem::take(&mut self.requests);
        for together in requests.chunks(TOGETHER) {
            let datagrams = together.iter().map(Signed::datagram);
            self.agent.foresee(datagrams, |tenant, home_address| {
                self.installer.prepare(tenant, home_address);
            });
            for signed in together {
                let now = now(self.sequence);
                self.sequence += 1;
                self.agent.handle_datagram(&signed.datagram(), now);
                self.do_actions();
            }
            self.agent.sign_replies();
            self.do_actions();
        }
        self.requests = requests;
    }

    fn do_actions(&mut self) {
        while let Some(action) = self.agent.poll_action() {
            if self.installer.apply(&action) {
                continue;
            }
            if let Action::Transmit(packet) = action
                && let Ok(injection) = inject::transmit(&packet, |_| None)
            {
                self.replies += 1;
                self.reply_bytes += injection.bytes.len() as u64;
            }
        }
    }

    /// Every reply was an acceptance, and every node is bound and in the table.
    fn check_bound(&self, nodes: usize) -> anyhow::Result<()> {
        let accepted: u64 =
            self.agent.counters().map(|(_, counters)| counters.registrations_accepted).sum();
        let installed = self.installer.bindings().count();
        let bound = self.agent.bindings().count();
        anyhow::ensure!(
            accepted == self.replies && bound == nodes && installed == nodes,
            "{} replies, of which {accepted} accepted; {bound} nodes bound, {installed} in the table",
            self.replies
        );
        std::hint::black_box(self.reply_bytes);
        Ok(())
    }
}

/// How long this thread has run.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn now(sequence: u64) -> Now {
    let since_start = std::time::Duration::from_nanos(sequence * PACE_NANOS);
    let unix = std::time::Duration::from_secs(1_800_000_000) + since_start;
    Now { monotonic: Instant(1_000_000_000 + sequence * PACE_NANOS), ntp: NtpTime::from_unix(unix) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_registered_and_renewed() {
        for per_nai in [None, Some(10)] {
            let figures = in_process(Population { nodes: 200, per_nai }, 0.5).unwrap();
            assert!(figures.registrations > 200, "{figures:?}");
        }
    }

    #[test]
    fn two_populations_are_registered_and_renewed_by_turns() {
        let sessions = Population { nodes: 300, per_nai: Some(10) };
        let compared = compared([Population::plain(200), sessions], 2).unwrap();
        let Compared { new, renewals, all } = compared;
        assert!([new, renewals, all].concat().iter().all(|rate| rate.is_finite()));
        for ((new, renewals), all) in new.iter().zip(renewals).zip(all) {
            assert!(all >= new.min(renewals) && all <= new.max(renewals), "{compared:?}");
        }
    }
}
