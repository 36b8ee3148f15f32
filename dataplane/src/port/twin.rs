//! The kernel twin of a port, a TAP; and the mobile node's tunnel, a TUN.
//!
//! A twin has its port's MAC and MTU and carries its addresses. What is sent to
//! the twin the kernel receives, as from any interface; what the kernel sends on
//! it the twin's `rx_burst` returns. No offload is negotiated, so every frame of
//! the kernel is whole: no unfinished checksum, no longer than the MTU.
//!
//! Both devices vanish with their descriptor, so that a killed process leaves
//! none behind.
#![allow(unsafe_code, reason = "TUNSETIFF has no safe wrapper")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use homeport_wire::{EthernetHeader, MacAddress};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Port;
use super::interface::{self, PortError};
use crate::packet::{Burst, DATA_ROOM, PacketPool};

/// The largest MTU whose frames fit a packet buffer, a VLAN tag included.
pub const MAX_MTU: u16 = (DATA_ROOM - EthernetHeader::LEN - 4) as u16;

/// A port's face to the kernel.
#[derive(Debug)]
pub struct Twin {
    device: OwnedFd,
    name: String,
    mac: MacAddress,
    mtu: u16,
    rx_oversize: u64,
    tx_refused: u64,
}

impl Twin {
    /// Makes the TAP `name` with this MAC and MTU (bytes of IPv4 packet), down
    /// and without addresses.
    ///
    /// # Errors
    /// The name is taken or impossible, the MTU is beyond [`MAX_MTU`], or the
    /// process may not make interfaces.
    pub fn create(name: &str, mac: MacAddress, mtu: u16) -> Result<Twin, PortError> {
        if mtu > MAX_MTU {
            let (name, mtu, most) = (name.to_owned(), u32::from(mtu), MAX_MTU);
            return Err(PortError::Mtu { name, mtu, most });
        }
        let device = open(name, libc::IFF_TAP)?;
        interface::set_mac(name, mac)?;
        interface::set_mtu(name, mtu)?;
        Ok(Twin { device, name: name.to_owned(), mac, mtu, rx_oversize: 0, tx_refused: 0 })
    }
}

impl Port for Twin {
    fn name(&self) -> &str {
        &self.name
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn rx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) {
        while !burst.is_full() {
            let Some(mut packet) = pool.take() else {
                return;
            };
            let mut result = Ok(0);
            packet.fill(|room| {
                result = rustix::io::read(&self.device, room);
                result.unwrap_or(0)
            });
            match result {
                // A read that fills the buffer may have cut the frame: somebody
                // raised the MTU behind our back.
                Ok(len) if len >= DATA_ROOM => self.rx_oversize += 1,
                Ok(len) if len > 0 => {
                    if let Err(packet) = burst.push(packet) {
                        pool.give(packet);
                    }
                    continue;
                }
                Err(Errno::INTR) => {}
                _ => {
                    pool.give(packet);
                    return;
                }
            }
            pool.give(packet);
        }
    }

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        let mut sent = 0;
        for packet in burst.drain() {
            // EIO: the TAP is down; EAGAIN: the kernel's backlog is full.
            match rustix::io::write(&self.device, packet.bytes()) {
                Ok(_) => sent += 1,
                Err(_) => self.tx_refused += 1,
            }
            pool.give(packet);
        }
        sent
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }

    fn counters(&self, tell: &mut dyn FnMut(&'static str, u64)) {
        tell("rx-oversize", self.rx_oversize);
        tell("tx-refused", self.tx_refused);
    }
}

/// A tunnel interface of IP packets, without link headers.
#[derive(Debug)]
pub struct Tun {
    device: OwnedFd,
    name: String,
}

impl Tun {
    /// Makes the TUN `name`, down and without addresses.
    ///
    /// # Errors
    /// The name is taken or impossible, or the process may not make interfaces.
    pub fn create(name: &str) -> Result<Tun, PortError> {
        Ok(Tun { device: open(name, libc::IFF_TUN)?, name: name.to_owned() })
    }

    /// Name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one packet that the kernel sent into the tunnel, and returns its
    /// length; `None` when none is waiting. A packet longer than `buffer` is cut.
    ///
    /// # Errors
    /// The kernel's, such as that the interface was deleted.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            return match rustix::io::read(&self.device, &mut *buffer) {
                Ok(len) => Ok(Some(len)),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Gives the kernel one packet, as received from the tunnel.
    ///
    /// # Errors
    /// The packet is no IP packet, or the interface is down.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        loop {
            return match rustix::io::write(&self.device, packet) {
                Ok(_) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Opens the clone device and makes an interface of `kind`, without the
/// four-byte packet information in front of each frame.
fn open(name: &str, kind: c_int) -> Result<OwnedFd, PortError> {
    let mut request = interface::request(name)?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
        .map_err(|e| PortError::system(name, "open /dev/net/tun", e))?;
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as i16;
    interface::ioctl(&device, libc::TUNSETIFF, &mut request)
        .map_err(|e| PortError::system(name, "make it", e))?;
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::counters_of;
    use crate::port::testbed::Host;
    use std::time::{Duration, Instant};

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn host() -> Option<Host> {
        let device = std::path::Path::new("/dev/net/tun");
        if !device.exists() {
            println!("skipped: no /dev/net/tun");
            return None;
        }
        Host::new()
    }

    /// Polls until `twin` has a frame that `wanted` accepts.
    fn receive(twin: &mut Twin, pool: &mut PacketPool, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            let mut burst = Burst::new();
            twin.rx_burst(pool, &mut burst);
            let found = burst.iter().find(|p| wanted(p.bytes())).map(|p| p.bytes().to_vec());
            burst.drain().for_each(|packet| pool.give(packet));
            if let Some(frame) = found {
                return frame;
            }
        }
        panic!("no such frame in five seconds");
    }

    #[test]
    fn kernel_answers_arp_through_its_twin_and_resolves_through_it() {
        let Some(host) = host() else { return };
        let mut twin = host.run(|| Twin::create("hp-test", MAC, 1400).unwrap());
        host.sh("ip addr add 192.0.2.1/24 dev hp-test && ip link set hp-test up");
        let shown = host.sh("ip -o link show hp-test");
        assert!(shown.contains("mtu 1400") && shown.contains("02:00:00:00:00:09"), "{shown}");

        // We ask, the kernel answers.
        let mut pool = PacketPool::new(64);
        let mut burst = Burst::new();
        let mut packet = pool.take().unwrap();
        let mut request = vec![0xff; 6];
        request.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
        request.extend([192, 0, 2, 77, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
        assert!(packet.set_bytes(&request));
        burst.push(packet).unwrap();
        assert_eq!(twin.tx_burst(&mut pool, &mut burst), 1);
        let answer = receive(&mut twin, &mut pool, |f| f[12..14] == [8, 6] && f[21] == 2);
        assert_eq!(answer[6..12], MAC.0);
        assert_eq!(answer[28..32], [192, 0, 2, 1]);

        // The kernel asks; its frame is what the port would send.
        host.sh("ip neigh flush all; ping -c1 -W0.1 192.0.2.99 >/dev/null || true");
        let asked = receive(&mut twin, &mut pool, |f| f[12..14] == [8, 6] && f[21] == 1);
        assert_eq!(asked[38..42], [192, 0, 2, 99]);
        assert_eq!(pool.available(), 64);
        assert!(twin.readiness().is_some());
    }

    #[test]
    fn a_twin_that_is_down_takes_nothing_and_counts_it() {
        let Some(host) = host() else { return };
        let mut twin = host.run(|| Twin::create("hp-test", MAC, 1500).unwrap());
        let mut pool = PacketPool::new(1);
        let mut burst = Burst::new();
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(&[0xff; 60]));
        burst.push(packet).unwrap();
        assert_eq!(twin.tx_burst(&mut pool, &mut burst), 0);
        assert_eq!((pool.available(), burst.len()), (1, 0));
        assert!(counters_of(&twin).contains(&("tx-refused", 1)));
        twin.rx_burst(&mut pool, &mut burst);
        assert!(burst.is_empty());
    }

    #[test]
    fn a_frame_beyond_the_buffer_is_dropped_and_counted() {
        let Some(host) = host() else { return };
        let mut twin = host.run(|| Twin::create("hp-test", MAC, 1500).unwrap());
        host.sh("ip link set hp-test mtu 4000 up && ip addr add 192.0.2.1/24 dev hp-test");
        host.sh("ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev hp-test");
        host.sh("ping -c1 -s3000 -W0.1 192.0.2.2 >/dev/null; ping -c1 -W0.1 192.0.2.2 >/dev/null || true");
        let mut pool = PacketPool::new(8);
        let small = receive(&mut twin, &mut pool, |f| f[12..14] == [8, 0] && f[23] == 1);
        assert_eq!(small.len(), 98);
        assert!(counters_of(&twin).contains(&("rx-oversize", 1)));
    }

    #[test]
    fn names_taken_and_mtus_too_large_are_refused() {
        let Some(host) = host() else { return };
        let errors = host.run(|| {
            let _first = Twin::create("hp-test", MAC, 1500).unwrap();
            let taken = Twin::create("hp-test", MAC, 1500).unwrap_err();
            let large = Twin::create("hp-large", MAC, MAX_MTU + 1).unwrap_err();
            let long = Tun::create("sixteen-bytes-ab").unwrap_err();
            [taken, large, long].map(|error| error.to_string())
        });
        assert!(errors[0].starts_with("interface hp-test: cannot make it: "), "{}", errors[0]);
        assert!(errors[1].contains("MTU 2031 is beyond 2030"), "{}", errors[1]);
        assert!(errors[2].contains("15 bytes"), "{}", errors[2]);
        // The device went with its descriptor.
        assert!(!host.sh("ip -o link").contains("hp-test"));
    }

    #[test]
    fn tunnel_carries_packets_both_ways_without_link_headers() {
        let Some(host) = host() else { return };
        let tun = host.run(|| Tun::create("hp-mn").unwrap());
        let mut buffer = [0u8; 2000];
        assert_eq!(tun.read(&mut buffer).unwrap(), None);
        assert!(tun.write(&[0x45; 40]).is_err(), "the interface is down");
        host.sh("ip addr add 10.1.0.10/32 dev hp-mn && ip link set hp-mn up");
        host.sh("ip route add 198.51.100.0/24 dev hp-mn");
        let pinger = std::thread::spawn(move || host.try_sh("ping -c1 -W5 198.51.100.7").1);
        let start = Instant::now();
        let len = loop {
            assert!(start.elapsed() < Duration::from_secs(5));
            if let Some(len) = tun.read(&mut buffer).unwrap()
                && buffer[0] == 0x45
                && buffer[9] == 1
            {
                break len;
            }
        };
        assert_eq!(len, 84);
        // Turn the echo request into its answer: swap the addresses, type 8 to 0.
        let (from, to) = buffer[12..20].split_at_mut(4);
        from.swap_with_slice(to);
        buffer[20] = 0;
        let sum = homeport_wire::checksum::update(
            u16::from_be_bytes([buffer[22], buffer[23]]),
            0x0800,
            0x0000,
        );
        buffer[22..24].copy_from_slice(&sum.to_be_bytes());
        tun.write(&buffer[..len]).unwrap();
        assert!(pinger.join().unwrap(), "ping got no answer");
    }
}
