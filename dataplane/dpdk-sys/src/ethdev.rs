//! Ethernet devices of DPDK.

use std::borrow::Cow;
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use crate::{DpdkError, Eal, Mbuf, Mempool, ffi};

/// The most mbufs of one burst.
pub const BURST: usize = 32;

/// An Ethernet device with one queue for each direction, started. Dropping it
/// stops and closes it.
#[derive(Debug)]
pub struct EthDev {
    eal: Eal,
    number: u16,
    /// Of the device in DPDK.
    name: String,
    /// Made by us, to be removed by us.
    vdev: Option<CString>,
    segments_dropped: u64,
}

/// What the driver lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EthStats {
    /// Frames for which the receive queue had no room.
    pub rx_missed: u64,
    /// Frames received with errors.
    pub rx_errors: u64,
    /// Frames for which the pool had no buffer.
    pub rx_no_mbuf: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Frames of several segments that did not fit one buffer.
    pub rx_segments_dropped: u64,
}

/// The kernel's interface that a virtual device works on, and so shares with the
/// kernel: the value of `iface=` in its arguments, as in
/// `net_af_packet0,iface=eth0`. `None` for other drivers: `net_tap` has an
/// argument of that name too, for the interface that it makes.
pub fn kernel_interface(device: &str) -> Option<&str> {
    const DRIVERS: [&str; 3] = ["net_af_packet", "net_af_xdp", "net_pcap"];
    let (name, arguments) = device.split_once(',')?;
    if !DRIVERS.iter().any(|driver| name.starts_with(driver)) {
        return None;
    }
    let value = arguments.split(',').find_map(|argument| argument.trim().strip_prefix("iface="));
    value.filter(|value| !value.is_empty())
}

/// Whether a device is named by its PCI address, `0000:00:04.0` or `00:04.0`.
pub fn is_pci(device: &str) -> bool {
    let address = device.split(',').next().unwrap_or_default();
    let Some((slot, function)) = address.rsplit_once('.') else {
        return false;
    };
    let mut parts = slot.rsplit(':');
    let mut hex = |len: usize| {
        parts.next().is_some_and(|p| p.len() == len && p.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let tail = hex(2) && hex(2);
    let domain = slot.matches(':').count() == 1 || hex(4);
    tail && domain
        && slot.matches(':').count() <= 2
        && function.len() == 1
        && function.bytes().all(|b| matches!(b, b'0'..=b'7'))
}

/// Held while devices come and go: DPDK's lists of them are for one thread.
static DEVICES: Mutex<()> = Mutex::new(());

impl EthDev {
    /// Opens and starts a device: a PCI address, or the name of a virtual device
    /// with its arguments, which is made. `mtu` is the longest IPv4 packet.
    ///
    /// # Errors
    /// There is no such device or driver, or the driver refuses.
    pub fn open(eal: Eal, device: &str, pool: Mempool, mtu: u16) -> Result<EthDev, DpdkError> {
        let what = || format!("open the device {device}");
        let text = |s: &str| CString::new(s).map_err(|e| DpdkError::new(what(), e.to_string()));
        let device = &with_domain(device);
        let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
        let (c_name, c_arguments, c_device) = (text(name)?, text(arguments)?, text(device)?);
        let vdev = !is_pci(device);
        let guard = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: DPDK runs; the callees copy the C strings.
        let number = unsafe {
            if vdev {
                ffi::hp_vdev_open(c_name.as_ptr(), c_arguments.as_ptr())
            } else {
                ffi::hp_device_open(c_name.as_ptr(), c_device.as_ptr())
            }
        };
        let number = DpdkError::check(number, what)?;
        let number = u16::try_from(number).map_err(|e| DpdkError::new(what(), e.to_string()))?;
        // From here on an early return closes the device.
        let dev = EthDev {
            eal,
            number,
            name: name.to_owned(),
            vdev: vdev.then_some(c_name),
            segments_dropped: 0,
        };
        // SAFETY: `number` is an open port, the pool is never freed.
        let started = unsafe { ffi::hp_port_start(number, pool.as_ptr(), mtu) };
        drop(guard);
        DpdkError::check(started, || format!("start the device {device}"))?;
        Ok(dev)
    }

    /// Name of the device in DPDK.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its link-layer address.
    ///
    /// # Errors
    /// DPDK's own.
    pub fn mac(&self) -> Result<[u8; 6], DpdkError> {
        let mut mac = [0; 6];
        // SAFETY: the port is open; six bytes are written.
        let result = unsafe { ffi::hp_port_mac(self.number, mac.as_mut_ptr()) };
        DpdkError::check(result, || format!("read the MAC address of {}", self.name))?;
        Ok(mac)
    }

    /// Its MTU in bytes.
    ///
    /// # Errors
    /// DPDK's own.
    pub fn mtu(&self) -> Result<u16, DpdkError> {
        // SAFETY: the port is open.
        let mtu = unsafe { ffi::hp_port_mtu(self.number) };
        let mtu = DpdkError::check(mtu, || format!("read the MTU of {}", self.name))?;
        u16::try_from(mtu).map_err(|e| DpdkError::new("read an MTU", e.to_string()))
    }

    /// Lets frames for other stations in, or keeps them out.
    ///
    /// # Errors
    /// The driver cannot do that.
    pub fn set_promiscuous(&mut self, on: bool) -> Result<(), DpdkError> {
        // SAFETY: the port is open.
        let result = unsafe { ffi::hp_port_promiscuous(self.number, on) };
        DpdkError::check(result, || format!("make {} promiscuous", self.name)).map(|_| ())
    }

    /// Whether the link has carrier, as far as the driver knows.
    pub fn is_up(&self) -> bool {
        // SAFETY: the port is open.
        unsafe { ffi::hp_port_link_up(self.number) }
    }

    /// What the driver lost so far.
    pub fn stats(&self) -> EthStats {
        let mut stats = ffi::hp_stats { rx_missed: 0, rx_errors: 0, rx_no_mbuf: 0, tx_errors: 0 };
        // SAFETY: the port is open; `stats` is written when it succeeds.
        unsafe { ffi::hp_port_stats(self.number, &mut stats) };
        EthStats {
            rx_missed: stats.rx_missed,
            rx_errors: stats.rx_errors,
            rx_no_mbuf: stats.rx_no_mbuf,
            tx_errors: stats.tx_errors,
            rx_segments_dropped: self.segments_dropped,
        }
    }

    /// Receives up to as many frames as `out` has places, [`BURST`] at most, into
    /// its first places; each that it fills must be empty.
    ///
    /// Returns how many places it filled.
    pub fn rx_burst(&mut self, out: &mut [Option<Mbuf>]) -> usize {
        self.eal.register_thread();
        let mut raw = [std::ptr::null_mut(); BURST];
        let wanted = out.len().min(BURST) as u16;
        // SAFETY: the port is started, this is its only receiver (`&mut self`),
        // and `raw` has room for `wanted` pointers.
        let count = unsafe { ffi::hp_rx_burst(self.number, raw.as_mut_ptr(), wanted) };
        let mut filled = 0;
        for mbuf in raw.into_iter().take(count.into()).filter_map(NonNull::new) {
            // SAFETY: the driver handed the mbuf over, and nobody else has it.
            let Some(mut mbuf) = (unsafe { Mbuf::from_received(mbuf) }) else {
                self.segments_dropped += 1;
                continue;
            };
            mbuf.restore_vlan_tag();
            if let Some(slot) = out.get_mut(filled) {
                *slot = Some(mbuf);
                filled += 1;
            }
        }
        filled
    }

    /// Sends the frames in `mbufs`, the first [`BURST`] of them at most, in order.
    /// All places are empty afterwards; what the device did not take is freed.
    ///
    /// Returns how many it took.
    pub fn tx_burst(&mut self, mbufs: &mut [Option<Mbuf>]) -> usize {
        self.eal.register_thread();
        let mut raw = [std::ptr::null_mut(); BURST];
        let mut count = 0;
        for (slot, mbuf) in raw.iter_mut().zip(mbufs.iter_mut().filter_map(Option::take)) {
            *slot = mbuf.into_raw();
            count += 1;
        }
        // SAFETY: the port is started, this is its only sender (`&mut self`), and
        // `raw` starts with `count` mbufs that we own.
        let sent = unsafe { ffi::hp_tx_burst(self.number, raw.as_mut_ptr(), count) };
        for mbuf in raw.into_iter().take(count.into()).skip(sent.into()) {
            // SAFETY: the device left these with us.
            unsafe { ffi::hp_mbuf_free(mbuf) };
        }
        sent.into()
    }
}

/// A short PCI address with its domain in front, which is how DPDK names the
/// port; any other device as it is.
fn with_domain(device: &str) -> Cow<'_, str> {
    let address = device.split(',').next().unwrap_or_default();
    if is_pci(device) && address.matches(':').count() == 1 {
        Cow::Owned(format!("0000:{device}"))
    } else {
        Cow::Borrowed(device)
    }
}

impl Drop for EthDev {
    fn drop(&mut self) {
        let _guard = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the port is open, and this is the end of it.
        unsafe { ffi::hp_port_close(self.number) };
        if let Some(name) = &self.vdev {
            // SAFETY: the device was made by `open`, and its port is closed.
            unsafe { ffi::hp_vdev_close(name.as_ptr()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EalOptions;

    fn open(device: &str, pool: &str) -> Result<(EthDev, Mempool), DpdkError> {
        let eal = Eal::init(&EalOptions { memory: 128, pci_devices: Vec::new() })?;
        let pool = Mempool::new(eal, pool, 1023, 2048)?;
        Ok((EthDev::open(eal, device, pool, 1500)?, pool))
    }

    #[test]
    fn device_names_are_told_apart() {
        for pci in ["0000:00:04.0", "00:04.0", "0000:af:1f.7,arg=1"] {
            assert!(is_pci(pci), "{pci}");
        }
        for other in
            ["", "net_ring0", "net_af_packet0,iface=eth0.5", "0:04.0", "1:0000:00:04.0", "00:04.8"]
        {
            assert!(!is_pci(other), "{other}");
        }
        assert_eq!(with_domain("00:04.0,a=1"), "0000:00:04.0,a=1");
        assert_eq!(with_domain("0001:00:04.0"), "0001:00:04.0");
        assert_eq!(with_domain("net_ring0"), "net_ring0");
        assert_eq!(kernel_interface("net_af_packet0,iface=eth0"), Some("eth0"));
        assert_eq!(kernel_interface("net_af_xdp0,start_queue=1,iface=eth0.5"), Some("eth0.5"));
        for none in
            ["net_ring0", "net_pcap0,iface=", "eth0", "net_tap0,iface=t0", "00:04.0,iface=x"]
        {
            assert_eq!(kernel_interface(none), None, "{none}");
        }
    }

    #[test]
    fn bursts_of_every_length_cross_a_ring_device_and_no_mbuf_is_lost() {
        let (mut dev, pool) = open("net_ring_lengths", "test-ring").unwrap();
        assert!(dev.is_up());
        assert_eq!(dev.mac().unwrap().len(), 6);
        let mut number = 0u8;
        for len in [0, 1, 31, 32] {
            let mut burst: [Option<Mbuf>; BURST] = Default::default();
            let mut expected = Vec::new();
            for slot in burst.iter_mut().take(len) {
                number += 1;
                let mut mbuf = pool.alloc().unwrap();
                assert!(mbuf.set_bytes(&[number; 60]));
                expected.push([number; 60]);
                *slot = Some(mbuf);
            }
            assert_eq!(dev.tx_burst(&mut burst), len);
            assert!(burst.iter().all(Option::is_none));
            // Places beyond the frames that came stay empty; a short output is kept to.
            let mut half: [Option<Mbuf>; 5] = Default::default();
            assert_eq!(dev.rx_burst(&mut half), len.min(5));
            let more = dev.rx_burst(&mut burst);
            let seen: Vec<&[u8]> = half.iter().chain(&burst).flatten().map(Mbuf::data).collect();
            assert_eq!((seen.len(), more), (len, len.saturating_sub(5)));
            assert!(seen.iter().zip(&expected).all(|(seen, expected)| seen == expected));
        }
        assert_eq!(pool.available(), 1023);
    }

    #[test]
    fn what_a_device_does_not_take_is_freed() {
        // The ring of the device has 1024 places, of which 1023 can be used.
        let (mut dev, pool) = open("net_ring_full", "test-full").unwrap();
        let eal = Eal::init(&EalOptions { memory: 128, pci_devices: Vec::new() }).unwrap();
        let more = Mempool::new(eal, "test-more", 1023, 2048).unwrap();
        let mut sent = 0;
        for _ in 0..40 {
            let mut burst: [Option<Mbuf>; BURST] = Default::default();
            burst.fill_with(|| pool.alloc().or_else(|| more.alloc()));
            sent += dev.tx_burst(&mut burst);
        }
        assert!(sent < 40 * BURST, "{sent}");
        assert_eq!((pool.available() + more.available()) as usize, 2046 - sent);
        let mut burst: [Option<Mbuf>; BURST] = Default::default();
        while dev.rx_burst(&mut burst) > 0 {
            burst.iter_mut().for_each(|slot| drop(slot.take()));
        }
        assert_eq!((pool.available(), more.available()), (1023, 1023));
    }

    #[test]
    fn a_device_can_be_opened_again_but_not_twice() {
        let (dev, _) = open("net_ring_again", "test-again").unwrap();
        let twice = open("net_ring_again", "test-again").unwrap_err().to_string();
        assert!(twice.starts_with("DPDK cannot open the device net_ring_again: "), "{twice}");
        drop(dev);
        open("net_ring_again", "test-again").unwrap();
        for wrong in ["net_nonsense0", "net_af_packet7,iface=no-such-if", "0000:00:1f.7"] {
            let error = open(wrong, "test-again").unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("DPDK cannot open the device {wrong}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn starting_dpdk_does_not_pin_the_thread() {
        let before = rustix::thread::sched_getaffinity(None).unwrap();
        open("net_ring_pin", "test-pin").unwrap();
        assert!(rustix::thread::sched_getaffinity(None).unwrap() == before);
    }
}
