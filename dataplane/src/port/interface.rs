//! The kernel's network interfaces by name: what a port asks of them and sets.
//!
//! These are the few `ioctl`s that opening a port needs, in the network
//! namespace of the calling thread. Addresses and routes are netlink's business.
#![allow(unsafe_code, reason = "interface ioctls have no safe wrapper")]

use std::cell::Cell;
use std::ffi::{c_int, c_ulong};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use homeport_wire::MacAddress;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// The longest interface name in bytes.
pub const NAME_LEN: usize = libc::IFNAMSIZ - 1;

/// Why a port or a shield could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The name cannot be an interface's.
    #[error("{0:?} is no interface name: 1 to 15 bytes, no blank, '/' or ':'")]
    Name(String),
    /// The kernel refused.
    #[error("interface {name}: cannot {what}: {source}")]
    System {
        /// Of the interface.
        name: String,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The interface is of another kind.
    #[error("interface {0} is not Ethernet")]
    NotEthernet(String),
    /// Frames of that size do not fit the packet buffers.
    #[error("interface {name}: MTU {mtu} is beyond {most}, the most that packet buffers hold")]
    Mtu {
        /// Of the interface.
        name: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// The largest MTU in bytes.
        most: u16,
    },
    /// The `nft` program is not installed.
    #[error("interface {0}: the program `nft` was not found; install the package nftables")]
    NftMissing(String),
    /// `nft` refused the rules.
    #[error("interface {name}: nft failed: {message}")]
    Nft {
        /// Of the interface.
        name: String,
        /// What nft said.
        message: String,
    },
    /// A backend's own failure.
    #[error("port {name}: {message}")]
    Backend {
        /// Of the device.
        name: String,
        /// What went wrong.
        message: String,
    },
}

impl PortError {
    pub(crate) fn system(name: &str, what: &'static str, source: impl Into<io::Error>) -> Self {
        PortError::System { name: name.to_owned(), what, source: source.into() }
    }
}

/// The interface's link-layer address.
///
/// # Errors
/// There is no such interface, or it is not Ethernet.
pub fn mac(name: &str) -> Result<MacAddress, PortError> {
    let mut request = request(name)?;
    ioctl(&socket(name)?, libc::SIOCGIFHWADDR, &mut request)
        .map_err(|e| PortError::system(name, "read its MAC address", e))?;
    // SAFETY: SIOCGIFHWADDR filled this member; every bit pattern is valid.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    if address.sa_family != libc::ARPHRD_ETHER {
        return Err(PortError::NotEthernet(name.to_owned()));
    }
    let [a, b, c, d, e, f, ..] = address.sa_data.map(libc::c_char::cast_unsigned);
    Ok(MacAddress([a, b, c, d, e, f]))
}

/// Gives the interface a link-layer address. It must be down, unless its driver
/// allows a live change.
///
/// # Errors
/// There is no such interface, or the kernel refuses the address.
pub fn set_mac(name: &str, mac: MacAddress) -> Result<(), PortError> {
    let mut request = request(name)?;
    let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
    for (to, from) in address.sa_data.iter_mut().zip(mac.0) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_hwaddr = address;
    ioctl(&socket(name)?, libc::SIOCSIFHWADDR, &mut request)
        .map_err(|e| PortError::system(name, "set its MAC address", e))
}

/// The interface's MTU in bytes.
///
/// # Errors
/// There is no such interface.
pub fn mtu(name: &str) -> Result<u32, PortError> {
    let mut request = request(name)?;
    ioctl(&socket(name)?, libc::SIOCGIFMTU, &mut request)
        .map_err(|e| PortError::system(name, "read its MTU", e))?;
    // SAFETY: SIOCGIFMTU filled this member; every bit pattern is valid.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(mtu.cast_unsigned())
}

/// Sets the interface's MTU in bytes.
///
/// # Errors
/// There is no such interface, or it cannot have that MTU.
pub fn set_mtu(name: &str, mtu: u16) -> Result<(), PortError> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_mtu = c_int::from(mtu);
    ioctl(&socket(name)?, libc::SIOCSIFMTU, &mut request)
        .map_err(|e| PortError::system(name, "set its MTU", e))
}

/// The kernel's number of the interface.
///
/// # Errors
/// There is no such interface.
pub fn index(name: &str) -> Result<c_int, PortError> {
    let mut request = request(name)?;
    ioctl(&socket(name)?, libc::SIOCGIFINDEX, &mut request)
        .map_err(|e| PortError::system(name, "find it", e))?;
    // SAFETY: SIOCGIFINDEX filled this member; every bit pattern is valid.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

/// Brings the interface up, or takes it down.
///
/// # Errors
/// There is no such interface, or the kernel refuses.
pub fn set_up(name: &str, up: bool) -> Result<(), PortError> {
    const UP: i16 = libc::IFF_UP as i16;
    let socket = socket(name)?;
    let mut request = request(name)?;
    ioctl(&socket, libc::SIOCGIFFLAGS, &mut request)
        .map_err(|e| PortError::system(name, "read its state", e))?;
    // SAFETY: SIOCGIFFLAGS filled this member; every bit pattern is valid.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = if up { flags | UP } else { flags & !UP };
    ioctl(&socket, libc::SIOCSIFFLAGS, &mut request)
        .map_err(|e| PortError::system(name, "bring it up or down", e))
}

/// Turns the kernel's IPv6 on this interface off or on, and says whether it was
/// off before. A kernel without IPv6 has it off.
///
/// # Errors
/// The setting cannot be written.
pub fn set_ipv6_disabled(name: &str, disabled: bool) -> Result<bool, PortError> {
    request(name)?;
    let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    let before = match fs::read_to_string(&path) {
        Ok(text) => text.trim() != "0",
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(PortError::system(name, "read whether IPv6 is on", e)),
    };
    if before != disabled {
        fs::write(&path, if disabled { "1" } else { "0" })
            .map_err(|e| PortError::system(name, "turn IPv6 off or on", e))?;
    }
    Ok(before)
}

/// Watches whether an interface has carrier, cheaply: the kernel is asked at
/// most once in [`Carrier::EVERY`], without waiting for any lock.
#[derive(Debug)]
pub(crate) struct Carrier {
    socket: OwnedFd,
    name: String,
    asked: Cell<Option<Instant>>,
    up: Cell<bool>,
}

impl Carrier {
    /// The oldest answer that is given again.
    pub(crate) const EVERY: Duration = Duration::from_millis(10);

    pub(crate) fn new(name: &str) -> Result<Self, PortError> {
        let (socket, name) = (socket(name)?, name.to_owned());
        Ok(Carrier { socket, name, asked: Cell::new(None), up: Cell::new(false) })
    }

    /// Asks the kernel, if the last answer is too old.
    ///
    /// Returns whether it asked.
    pub(crate) fn ask_if_due(&self) -> bool {
        let now = Instant::now();
        let fresh = |asked| now.duration_since(asked) < Self::EVERY;
        if self.asked.get().is_some_and(fresh) {
            return false;
        }
        self.asked.set(Some(now));
        self.up.set(self.ask());
        true
    }

    fn ask(&self) -> bool {
        const UP: c_int = libc::IFF_UP | libc::IFF_RUNNING;
        let Ok(mut request) = request(&self.name) else {
            return false;
        };
        if ioctl(&self.socket, libc::SIOCGIFFLAGS, &mut request).is_err() {
            return false;
        }
        // SAFETY: SIOCGIFFLAGS filled this member; every bit pattern is valid.
        c_int::from(unsafe { request.ifr_ifru.ifru_flags }) & UP == UP
    }

    /// The last answer.
    pub(crate) fn is_up(&self) -> bool {
        self.up.get()
    }
}

/// An `ifreq` that names the interface, the rest zero.
pub(crate) fn request(name: &str) -> Result<libc::ifreq, PortError> {
    let forbidden = |byte: u8| byte.is_ascii_whitespace() || b"/:\0".contains(&byte);
    let wrong_len = name.is_empty() || name.len() > NAME_LEN;
    if wrong_len || name.bytes().any(forbidden) || matches!(name, "." | "..") {
        return Err(PortError::Name(name.to_owned()));
    }
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

/// One `ioctl` with an `ifreq`.
pub(crate) fn ioctl(fd: &OwnedFd, operation: c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: `request` is a live ifreq, which is what the interface and TUN
    // operations of this crate read and write; `fd` is open.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), operation, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A socket to ask the kernel about interfaces.
fn socket(name: &str) -> Result<OwnedFd, PortError> {
    rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|e| PortError::system(name, "open a socket", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::testbed::Host;

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for wrong in ["", "sixteen-bytes-ab", "a/b", "a b", "..", "nul\0", "a:1"] {
            assert!(matches!(mtu(wrong), Err(PortError::Name(_))), "{wrong:?}");
        }
        let error = mtu("no-such-if").unwrap_err().to_string();
        assert!(error.starts_with("interface no-such-if: cannot read its MTU: No such"), "{error}");
    }

    #[test]
    fn what_is_set_is_what_the_kernel_says() {
        let Some(host) = Host::new() else { return };
        host.sh("ip link add eth0 type veth peer name eth1");
        let seen = host.run(|| {
            set_mac("eth0", MacAddress([2, 0, 0, 0, 0xff, 7])).unwrap();
            set_mtu("eth0", 1400).unwrap();
            assert!(!set_ipv6_disabled("eth0", true).unwrap());
            assert!(set_ipv6_disabled("eth0", true).unwrap());
            let carrier = Carrier::new("eth0").unwrap();
            assert!(carrier.ask_if_due() && !carrier.ask_if_due() && !carrier.is_up());
            set_up("eth0", true).unwrap();
            set_up("eth1", true).unwrap();
            let start = Instant::now();
            while !carrier.is_up() && start.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(5));
                carrier.ask_if_due();
            }
            assert!(carrier.is_up());
            assert!(matches!(mac("lo"), Err(PortError::NotEthernet(_))));
            (mac("eth0").unwrap(), mtu("eth0").unwrap(), index("eth0").unwrap())
        });
        assert_eq!((seen.0, seen.1), (MacAddress([2, 0, 0, 0, 0xff, 7]), 1400));
        let shown = host.sh("ip -o link show eth0");
        assert!(shown.starts_with(&format!("{}: eth0", seen.2)), "{shown}");
        assert!(shown.contains("mtu 1400") && shown.contains("02:00:00:00:ff:07"), "{shown}");
        assert_eq!(host.sh("ip -6 -o addr show dev eth0"), "");
    }
}
