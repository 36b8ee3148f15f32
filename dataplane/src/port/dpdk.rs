//! A port on a device of DPDK: a network card by its PCI address, or a virtual
//! device with its arguments.
//!
//! Received frames stay in the device's own buffers through the pipeline; only
//! frames that come from elsewhere (a kernel twin, the control core, another kind
//! of port) are copied into one to be sent.
//!
//! A device on a kernel interface (`net_af_packet0,iface=eth0`) shares it with
//! the kernel: whoever opens the port puts an
//! [`IngressDrop`](super::shield::IngressDrop) on its [`kernel_interface`].
//!
//! **Not done:** the driver `net_af_packet` does not tell which checksums are
//! unfinished and cuts long frames off, so a sender on the same machine must have
//! its offload turned off (`ethtool -K IFACE tx off` at the sender's end); an
//! AF_PACKET port needs nothing like that. No readiness to wait for: the port is
//! polled. One queue: with several workers the first receives and sends, and hands
//! over what is the others'.

use std::fmt;

use homeport_dpdk_sys::{DpdkError, EalOptions, EthDev, Mbuf, Mempool, is_pci};
use homeport_wire::{MacAddress, PortId};

pub use homeport_dpdk_sys::{Eal, kernel_interface};

use super::Port;
use super::interface::PortError;
use super::twin::MAX_MTU;
use crate::packet::{BURST, Burst, DATA_ROOM, HEADROOM, Packet, PacketPool};

// A received mbuf has the same room in front as a pool's packet.
const _: () = assert!(homeport_dpdk_sys::HEADROOM as usize >= HEADROOM);
const _: () = assert!(homeport_dpdk_sys::BURST >= BURST);

/// Buffers that a device's queues hold by themselves, at the least.
const QUEUED: u32 = 4096;

/// Starts DPDK for these devices, each with `buffers` buffers. To be called once
/// in a process, before the ports are opened; the calling thread keeps its CPUs.
///
/// # Errors
/// DPDK's own: memory, permissions.
pub fn start<'a>(
    devices: impl IntoIterator<Item = &'a str>,
    buffers: u32,
) -> Result<Eal, PortError> {
    let devices: Vec<&str> = devices.into_iter().collect();
    let count = u32::try_from(devices.len()).unwrap_or(u32::MAX).max(1);
    // An mbuf lies on one page, and on small pages no two fit on one; its place in the
    // pool's rings; and some for DPDK itself.
    const { assert!(HEADROOM + DATA_ROOM + 256 <= PAGE) };
    let bytes = u64::from(mbufs(buffers)) * (PAGE + 64) as u64 * u64::from(count);
    let memory = u32::try_from(bytes >> 20).unwrap_or(u32::MAX).saturating_add(64);
    let pci = devices.iter().filter(|device| is_pci(device));
    let pci_devices = pci.map(|device| (*device).to_owned()).collect();
    Eal::init(&EalOptions { memory, pci_devices }).map_err(|e| backend("DPDK", &e))
}

/// A device of DPDK, started.
pub struct DpdkPort {
    name: String,
    mac: MacAddress,
    mtu: u16,
    device: EthDev,
    pool: Mempool,
    /// Between the burst and the device.
    stage: [Option<Mbuf>; BURST],
    tx_no_buffer: u64,
    tx_refused: u64,
}

impl DpdkPort {
    /// Opens and starts `device`, in promiscuous mode, with a pool of `buffers`
    /// buffers of its own; a device that is opened again has the pool that it had.
    /// `mtu` is the longest IPv4 packet in bytes.
    ///
    /// # Errors
    /// There is no such device or driver, the driver refuses, the memory that
    /// DPDK was started with is used up, or the MTU is beyond [`MAX_MTU`].
    pub fn open(eal: Eal, device: &str, mtu: u16, buffers: u32) -> Result<DpdkPort, PortError> {
        let name = device.split(',').next().unwrap_or(device);
        if mtu > MAX_MTU {
            let (name, mtu, most) = (name.to_owned(), u32::from(mtu), MAX_MTU);
            return Err(PortError::Mtu { name, mtu, most });
        }
        let failed = |e| backend(name, &e);
        let pool = Mempool::new(eal, &format!("hp-{name}"), mbufs(buffers), DATA_ROOM as u16)
            .map_err(failed)?;
        let mut opened = EthDev::open(eal, device, pool, mtu).map_err(failed)?;
        let mac = MacAddress(opened.mac().map_err(failed)?);
        if let Err(error) = opened.set_promiscuous(true) {
            // Devices in memory have no such mode, and get all frames.
            tracing::debug!("{error}");
        }
        Ok(DpdkPort {
            name: name.to_owned(),
            mac,
            mtu,
            device: opened,
            pool,
            stage: Default::default(),
            tx_no_buffer: 0,
            tx_refused: 0,
        })
    }

    /// The packet's mbuf, or one with a copy of its bytes.
    fn mbuf(&mut self, packet: Packet, pool: &mut PacketPool) -> Option<Mbuf> {
        match packet.into_mbuf() {
            Ok(mbuf) => Some(mbuf),
            Err(packet) => {
                let copy = self.pool.alloc().and_then(|mut mbuf| {
                    let fits = mbuf.set_bytes(packet.bytes());
                    fits.then_some(mbuf)
                });
                pool.give(packet);
                copy
            }
        }
    }
}

impl Port for DpdkPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn is_up(&self) -> bool {
        self.device.is_up()
    }

    fn rx_burst(&mut self, _: &mut PacketPool, burst: &mut Burst) {
        let room = self.stage.get_mut(..BURST - burst.len()).unwrap_or_default();
        let count = self.device.rx_burst(room);
        for mbuf in self.stage.iter_mut().take(count).filter_map(Option::take) {
            if mbuf.data_len() > 0 {
                // There is room: no more were asked for than fit.
                let _ = burst.push(Packet::from_mbuf(mbuf, PortId::default()));
            }
        }
    }

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        let mut staged = 0;
        for packet in burst.drain() {
            match (self.mbuf(packet, pool), self.stage.get_mut(staged)) {
                (Some(mbuf), Some(slot)) => {
                    *slot = Some(mbuf);
                    staged += 1;
                }
                _ => self.tx_no_buffer += 1,
            }
        }
        let sent = self.device.tx_burst(self.stage.get_mut(..staged).unwrap_or_default());
        self.tx_refused += staged.saturating_sub(sent) as u64;
        sent
    }

    fn counters(&self, tell: &mut dyn FnMut(&'static str, u64)) {
        let stats = self.device.stats();
        tell("rx-missed", stats.rx_missed);
        tell("rx-errors", stats.rx_errors);
        tell("rx-no-buffer", stats.rx_no_mbuf);
        tell("rx-segments-dropped", stats.rx_segments_dropped);
        tell("tx-errors", stats.tx_errors);
        tell("tx-no-buffer", self.tx_no_buffer);
        tell("tx-refused", self.tx_refused);
    }
}

impl fmt::Debug for DpdkPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DpdkPort({}, {})", self.name, self.mac)
    }
}

/// The smallest page.
const PAGE: usize = 4096;

/// Size of a device's pool.
fn mbufs(buffers: u32) -> u32 {
    buffers.saturating_add(QUEUED)
}

fn backend(name: &str, error: &DpdkError) -> PortError {
    PortError::Backend { name: name.to_owned(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::counters_of;
    use crate::port::shield::IngressDrop;
    use crate::port::testbed::Host;
    use crate::port::twin::Twin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const BUFFERS: u32 = 1024;

    fn open(device: &str) -> DpdkPort {
        let eal = start(["net_ring0"; 4], BUFFERS).unwrap();
        DpdkPort::open(eal, device, 1500, BUFFERS).unwrap()
    }

    #[test]
    fn packets_of_both_kinds_cross_and_every_buffer_comes_back() {
        let mut port = open("net_ring_port");
        let free = port.pool.available();
        let mut pool = PacketPool::new(BURST);
        let mut burst = Burst::new();
        for number in 0..BURST {
            let mut packet = pool.take().unwrap();
            assert!(packet.set_bytes(&[number as u8; 60]));
            burst.push(packet).unwrap();
        }
        // Heap packets are copied, and their buffers are back at once.
        assert_eq!(port.tx_burst(&mut pool, &mut burst), BURST);
        assert_eq!((pool.available(), burst.len()), (BURST, 0));
        port.rx_burst(&mut pool, &mut burst);
        assert_eq!(burst.len(), BURST);
        // Received packets have headroom and go out as they are.
        for (number, packet) in burst.iter_mut().enumerate() {
            assert_eq!(packet.bytes(), [number as u8; 60]);
            assert!(packet.prepend(&[0xee; HEADROOM]) && packet.strip(HEADROOM - 20));
        }
        assert_eq!(port.tx_burst(&mut pool, &mut burst), BURST);
        assert_eq!(port.pool.available() + BURST as u32, free);
        // A burst that is partly full takes only what fits.
        for _ in 0..30 {
            burst.push(pool.take().unwrap()).unwrap();
        }
        port.rx_burst(&mut pool, &mut burst);
        assert!(burst.is_full());
        let last = burst.iter().last().unwrap();
        assert_eq!(last.bytes(), [vec![0xee; 20], vec![1; 60]].concat());
        burst.drain().for_each(|packet| pool.give(packet));
        port.rx_burst(&mut pool, &mut burst);
        assert_eq!(burst.len(), BURST - 2);
        burst.drain().for_each(|packet| pool.give(packet));
        assert_eq!((port.pool.available(), pool.available()), (free, BURST));
    }

    #[test]
    fn as_many_devices_as_were_named_find_memory() {
        const MANY: u16 = 10;
        let eal = start(["net_null0"; MANY as usize], 4096).unwrap();
        let open = |number| DpdkPort::open(eal, &format!("net_null{number}"), 1500, 4096);
        let ports: Result<Vec<DpdkPort>, PortError> = (0..MANY).map(open).collect();
        assert_eq!(ports.unwrap().len(), usize::from(MANY));
    }

    #[test]
    fn without_an_mbuf_a_heap_packet_is_dropped_and_counted() {
        let mut port = open("net_ring_none");
        let all: Vec<Mbuf> = std::iter::from_fn(|| port.pool.alloc()).collect();
        let mut pool = PacketPool::new(1);
        let mut burst = Burst::new();
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(&[1; 60]));
        burst.push(packet).unwrap();
        assert_eq!(port.tx_burst(&mut pool, &mut burst), 0);
        assert_eq!(pool.available(), 1);
        assert!(counters_of(&port).contains(&("tx-no-buffer", 1)));
        drop(all);
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let eal = start(["net_ring0"; 4], BUFFERS).unwrap();
        let open = |device, mtu| DpdkPort::open(eal, device, mtu, BUFFERS).unwrap_err().to_string();
        let error = open("net_nonsense0,x=1", 1500);
        assert!(
            error.starts_with("port net_nonsense0: DPDK cannot open the device net_nonsense0,x=1"),
            "{error}"
        );
        assert!(open("net_ring_mtu", 9000).contains("MTU 9000 is beyond 2030"));
    }

    #[test]
    fn kernel_is_reached_through_twin_and_a_device_on_a_veth() {
        let (Some(host), Some(peer)) = (Host::new(), Host::new()) else { return };
        if !std::path::Path::new("/dev/net/tun").exists() {
            println!("skipped: no /dev/net/tun");
            return;
        }
        host.cable("eth0", &peer, "eth0");
        peer.sh("ip addr add 192.0.2.2/24 dev eth0");
        const DEVICE: &str = "net_af_packet_twin,iface=eth0";
        let (shield, mut port, mut twin) = host.run(|| {
            let shield = IngressDrop::install(kernel_interface(DEVICE).unwrap()).unwrap();
            let port = open(DEVICE);
            let twin = Twin::create("hp-core", port.mac(), port.mtu()).unwrap();
            (shield, port, twin)
        });
        assert_eq!(port.mac(), host.run(|| crate::port::interface::mac("eth0").unwrap()));
        assert!(port.is_up());
        host.sh("ip addr add 192.0.2.1/24 dev hp-core && ip link set hp-core up");
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let pump = std::thread::spawn(move || {
            let mut pool = PacketPool::new(BURST);
            let mut burst = Burst::new();
            while !seen.load(Ordering::Relaxed) {
                port.rx_burst(&mut pool, &mut burst);
                twin.tx_burst(&mut pool, &mut burst);
                twin.rx_burst(&mut pool, &mut burst);
                port.tx_burst(&mut pool, &mut burst);
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
            assert_eq!(pool.available(), BURST);
            port.pool.available()
        });
        let pings = peer.sh("ping -q -c20 -i0.01 -W5 192.0.2.1");
        assert!(pings.contains("20 received") && !pings.contains("duplicates"), "{pings}");
        assert!(host.try_sh("ping -q -c5 -i0.01 -W5 192.0.2.2 >&2").1);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(pump.join().unwrap(), mbufs(BUFFERS));
        assert!(!peer.try_sh("ping -q -c2 -i0.01 -W0.3 192.0.2.1 >/dev/null").1);
        drop(shield);
    }
}
