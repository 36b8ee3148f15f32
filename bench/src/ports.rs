//! The kinds of ports that share an interface with the kernel, on one pair of virtual
//! cables, one after the other: AF_PACKET, AF_XDP, and DPDK's drivers on both.
//!
//! A sender floods one end of a veth pair from a packet socket; the worker takes the
//! frames at the other end, puts each into its tunnel and sends it by a second pair, at
//! whose far end the kernel counts what arrives. The sender is the same for all, and so
//! is the far end; on a veth the kernel's receive path runs on the sender's core.
//!
//! All of it is in a network namespace of its own, so the measurement is made by a child
//! of this program.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use homeport_dataplane::packet::{BURST, Burst, PacketPool};
use homeport_dataplane::port::Port;
use homeport_dataplane::port::af_packet::AfPacketPort;
use homeport_dataplane::port::af_xdp::{AfXdpOptions, AfXdpPort, Claims, Scope, XdpMode};
use homeport_dataplane::port::shield::IngressDrop;
use homeport_wire::PortId;
use serde::{Deserialize, Serialize};

use crate::case::{Case, FrameLen, Kind};
use crate::cycles;
use crate::frames::{Frames, Random, Work};
use crate::measure::pin;
use crate::world::{Size, World};

/// What is sent: the burst's share of each of so many nodes.
const NODES: u64 = 1000;

const CASE: Case = Case::Encap(Kind::IpIp);

/// One kind of port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortKind {
    /// Its name.
    pub kind: String,
    /// Which mode came up, where there are several.
    pub mode: String,
    /// Packets a second that arrived at the far end: the middle of some runs.
    pub pps: Option<f64>,
    /// The same for each second of the worker's core that was used.
    pub pps_per_core_second: Option<f64>,
    /// Packets a second that the sender sent.
    pub offered_pps: Option<f64>,
    /// Why there is no figure.
    pub missing: Option<String>,
}

/// Compares them, each for `time`.
///
/// # Errors
/// No namespace can be made, or the child failed.
pub fn compare(time: Duration) -> Result<Vec<PortKind>> {
    let namespace = format!("homeport-bench-{}", std::process::id());
    ip(&["netns", "add", &namespace])?;
    let measured = std::env::current_exe().map_err(Into::into).and_then(|program| {
        let output = Command::new("ip")
            .args(["netns", "exec", &namespace])
            .arg(program)
            .args(["--ports-here", &time.as_millis().to_string()])
            .output()?;
        if !output.status.success() {
            bail!("the child failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("reading what the child measured")
    });
    ip(&["netns", "del", &namespace])?;
    measured
}

/// Measures in the network namespace of this process, which is its own.
///
/// # Errors
/// The interfaces cannot be made.
pub fn here(time: Duration) -> Result<Vec<PortKind>> {
    // Neighbours and routers that nobody asked for are frames, too.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    for (near, far) in [(FEED, IN), (SINK, OUT)] {
        ip(&["link", "add", near, "type", "veth", "peer", "name", far])?;
        ip(&["link", "set", near, "up"])?;
        ip(&["link", "set", far, "up"])?;
    }
    let kinds: [(&str, Open); 5] = [
        ("AF_PACKET", af_packet),
        ("AF_XDP, native", af_xdp_native),
        ("AF_XDP, generic", af_xdp_generic),
        ("DPDK net_af_packet", dpdk_af_packet),
        ("DPDK net_af_xdp", dpdk_af_xdp),
    ];
    let measured = kinds.into_iter().map(|(kind, open)| {
        measure(open, time)
            .unwrap_or_else(|error| PortKind {
                kind: String::new(),
                mode: String::new(),
                pps: None,
                pps_per_core_second: None,
                offered_pps: None,
                missing: Some(format!("{error:#}")),
            })
            .named(kind)
    });
    Ok(measured.collect())
}

impl PortKind {
    fn named(self, kind: &str) -> PortKind {
        PortKind { kind: kind.to_owned(), ..self }
    }
}

const FEED: &str = "feed";
const IN: &str = "in";
const OUT: &str = "out";
const SINK: &str = "sink";

/// Both ports of the box, and what must live as long as they do.
struct Opened {
    ports: [Box<dyn Port>; 2],
    mode: String,
    /// To be called by the thread that receives and sends.
    register: Option<Box<dyn FnOnce() + Send>>,
    _guards: Vec<IngressDrop>,
    _claims: Option<Claims>,
}

type Open = fn() -> Result<Opened>;

fn guards() -> Result<Vec<IngressDrop>> {
    Ok(vec![IngressDrop::install(IN)?, IngressDrop::install(OUT)?])
}

fn af_packet() -> Result<Opened> {
    let open = |name| -> Result<Box<dyn Port>> { Ok(Box::new(AfPacketPort::open(name)?)) };
    Ok(Opened {
        _guards: guards()?,
        ports: [open(IN)?, open(OUT)?],
        mode: String::new(),
        register: None,
        _claims: None,
    })
}

fn af_xdp_native() -> Result<Opened> {
    af_xdp(XdpMode::Native)
}

fn af_xdp_generic() -> Result<Opened> {
    af_xdp(XdpMode::Generic)
}

fn af_xdp(mode: XdpMode) -> Result<Opened> {
    let claims = Claims::new(1)?;
    let mut modes = Vec::new();
    let mut open = |name: &str, number: u16| -> Result<Box<dyn Port>> {
        let options = AfXdpOptions {
            mode,
            scope: Scope::Everything,
            port: PortId(number),
            ..AfXdpOptions::default()
        };
        let ports = AfXdpPort::open(name, &claims, &options)?;
        let port = ports.into_iter().next().context("a port without a queue")?;
        modes.push(port.mode().to_owned());
        Ok(Box::new(port))
    };
    let ports = [open(IN, 0)?, open(OUT, 1)?];
    Ok(Opened {
        ports,
        mode: modes.into_iter().next().unwrap_or_default(),
        register: None,
        _guards: Vec::new(),
        _claims: Some(claims),
    })
}

fn dpdk_af_packet() -> Result<Opened> {
    dpdk("net_af_packet")
}

fn dpdk_af_xdp() -> Result<Opened> {
    dpdk("net_af_xdp")
}

#[cfg(feature = "dpdk")]
fn dpdk(driver: &str) -> Result<Opened> {
    use std::sync::OnceLock;

    use homeport_dataplane::port::dpdk::{DpdkPort, Eal, start};

    const BUFFERS: u32 = 4096;
    static EAL: OnceLock<Eal> = OnceLock::new();
    let eal = match EAL.get() {
        Some(eal) => *eal,
        None => *EAL.get_or_init({
            let eal = start(["net_af_packet0"; 4], BUFFERS)?;
            move || eal
        }),
    };
    let open = |name: &str, number: u8| -> Result<Box<dyn Port>> {
        let device = format!("{driver}{number},iface={name}");
        Ok(Box::new(DpdkPort::open(eal, &device, 1500, BUFFERS)?))
    };
    // What AF_XDP takes, the kernel does not see.
    let guards = if driver == "net_af_packet" { guards()? } else { Vec::new() };
    Ok(Opened {
        _guards: guards,
        ports: [open(IN, 0)?, open(OUT, 1)?],
        mode: String::new(),
        register: Some(Box::new(move || eal.register_thread())),
        _claims: None,
    })
}

#[cfg(not(feature = "dpdk"))]
fn dpdk(_: &str) -> Result<Opened> {
    bail!("this program was built without the feature `dpdk`")
}

fn measure(open: Open, time: Duration) -> Result<PortKind> {
    let Opened { ports, mode, register, _guards, _claims } = open()?;
    let [inside, outside] = ports;
    let to = inside.mac();
    let size = Size { family: CASE.family(), entries: NODES };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let core = (cpus > 1).then_some(cpus - 1);
    let World { control, workers, .. } =
        World::with_ports(&size, [vec![inside], vec![outside]], &[core], |_| {})?;
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let sender = {
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        let frames = Frames::new(CASE.family(), FrameLen::Fixed(64), to);
        let mut port = AfPacketPort::open(FEED)?;
        std::thread::spawn(move || {
            pin(core.map(|_| 0));
            flood(&mut port, &frames, &stop, &sent);
        })
    };
    let worker = workers.into_iter().next().context("a box without a worker")?;
    let running = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            if let Some(register) = register {
                register();
            }
            let before = cycles::cpu_time();
            worker.run(&stop);
            cycles::cpu_time().saturating_sub(before)
        })
    };
    let began = arrived()?;
    std::thread::sleep(time / 4);
    let (mut rates, mut offered) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let (before, fed, begin) = (arrived()?, sent.load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(time / 5);
        let seconds = begin.elapsed().as_secs_f64();
        rates.push((arrived()? - before) as f64 / seconds);
        offered.push((sent.load(Ordering::Relaxed) - fed) as f64 / seconds);
    }
    let all = arrived()? - began;
    stop.store(true, Ordering::Relaxed);
    let used = running.join().map_err(|_| anyhow!("the worker panicked"))?;
    sender.join().map_err(|_| anyhow!("the sender panicked"))?;
    drop(control);
    if all == 0 {
        bail!("nothing arrived at the far end");
    }
    let middle = |values: Vec<f64>| Some(crate::report::Spread::of(values).median.round());
    Ok(PortKind {
        kind: String::new(),
        mode,
        pps: middle(rates),
        pps_per_core_second: Some((all as f64 / used.as_secs_f64()).round()),
        offered_pps: middle(offered),
        missing: None,
    })
}

fn flood(port: &mut AfPacketPort, frames: &Frames, stop: &AtomicBool, sent: &AtomicU64) {
    let (mut pool, mut burst) = (PacketPool::new(BURST), Burst::new());
    let mut random = Random::new(5);
    while !stop.load(Ordering::Relaxed) {
        while let Some(mut packet) = pool.take() {
            let number = random.next();
            let work = Work::of(CASE, random.below(NODES), number);
            packet.fill(|room| frames.write(work, &work.ends(number), number, room));
            if let Err(packet) = burst.push(packet) {
                pool.give(packet);
                break;
            }
        }
        sent.fetch_add(port.tx_burst(&mut pool, &mut burst) as u64, Ordering::Relaxed);
    }
}

/// Frames that came to the far end.
fn arrived() -> Result<u64> {
    let path = format!("/sys/class/net/{SINK}/statistics/rx_packets");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    text.trim().parse().with_context(|| format!("reading {path}"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("running ip")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}
