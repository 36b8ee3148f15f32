//! Keeps the kernel away from what a port takes.
//!
//! A port that shares its interface with the kernel sees each frame first, at the
//! tap; the kernel would then answer or route the same frame. An nftables chain
//! at the interface's ingress hook, which lies behind the tap, drops them all.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::interface::{self, PortError};

/// The drop of everything that the kernel would receive on an interface, for as
/// long as this lives.
#[derive(Debug)]
pub struct IngressDrop {
    interface: String,
    restore_ipv6: bool,
}

impl IngressDrop {
    /// Drops from now on what enters by `interface`, brings it up, and turns the
    /// kernel's IPv6 on it off, so that the kernel sends nothing by itself there
    /// either.
    ///
    /// The rules are in the table `netdev homeport_<interface>`, which is taken
    /// over when a killed process left it.
    ///
    /// # Errors
    /// There is no such interface, `nft` is not installed, or it may not change
    /// the rules.
    pub fn install(interface: &str) -> Result<IngressDrop, PortError> {
        interface::index(interface)?;
        let table = table(interface)?;
        // The first line makes the second succeed in any case.
        nft(
            interface,
            &format!(
                "table netdev {table}\n\
                 delete table netdev {table}\n\
                 table netdev {table} {{\n\
                   chain ingress {{\n\
                     type filter hook ingress device \"{interface}\" priority -500; policy drop;\n\
                   }}\n\
                 }}\n"
            ),
        )?;
        // From here on an early return removes the table.
        let mut shield = IngressDrop { interface: interface.to_owned(), restore_ipv6: false };
        shield.restore_ipv6 = !interface::set_ipv6_disabled(interface, true)?;
        interface::set_up(interface, true)?;
        Ok(shield)
    }

    /// The interface that is shielded.
    pub fn interface(&self) -> &str {
        &self.interface
    }
}

impl Drop for IngressDrop {
    fn drop(&mut self) {
        if self.restore_ipv6
            && let Err(error) = interface::set_ipv6_disabled(&self.interface, false)
        {
            tracing::warn!("{error}");
        }
        let removed = table(&self.interface)
            .and_then(|table| nft(&self.interface, &format!("delete table netdev {table}\n")));
        if let Err(error) = removed {
            tracing::warn!("{error}");
        }
    }
}

/// The table's name. Interface names that nft could read as anything but a name
/// are refused.
fn table(interface: &str) -> Result<String, PortError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if interface.bytes().all(plain) {
        Ok(format!("homeport_{interface}"))
    } else {
        Err(PortError::Name(interface.to_owned()))
    }
}

fn nft(interface: &str, script: &str) -> Result<(), PortError> {
    let failed = |e| PortError::system(interface, "run nft", e);
    let spawn = |program: &str| {
        Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    };
    // A service's PATH may lack sbin.
    let child = spawn("nft").or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => spawn("/usr/sbin/nft"),
        _ => Err(error),
    });
    let mut child = match child {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(PortError::NftMissing(interface.to_owned()));
        }
        other => other.map_err(failed)?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        // When nft ends early, its exit status and message say why.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(PortError::Nft { name: interface.to_owned(), message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::testbed::Host;

    #[test]
    fn kernel_neither_answers_nor_hears_while_the_shield_stands() {
        let (Some(host), Some(peer)) = (Host::new(), Host::new()) else { return };
        host.cable("eth0-x", &peer, "eth0");
        host.sh("ip addr add 192.0.2.1/24 dev eth0-x");
        peer.sh("ip addr add 192.0.2.2/24 dev eth0");
        let ping = |count, wait| {
            peer.try_sh(&format!("ping -q -c{count} -i0.01 -W{wait} 192.0.2.1 >/dev/null")).1
        };
        assert!(ping(1, 5));
        let shield = host.run(|| IngressDrop::install("eth0-x").unwrap());
        assert!(!ping(3, 1));
        assert!(host.sh("nft list tables").contains("netdev homeport_eth0-x"));
        assert_eq!(host.sh("cat /proc/sys/net/ipv6/conf/eth0-x/disable_ipv6").trim(), "1");
        // A killed process leaves its table; the next one takes it over,
        // whatever became of it meanwhile.
        std::mem::forget(shield);
        host.sh("nft add rule netdev homeport_eth0-x ingress accept");
        assert!(ping(1, 5));
        let shield = host.run(|| IngressDrop::install("eth0-x").unwrap());
        assert!(!ping(3, 1));
        host.run(move || drop(shield));
        assert!(ping(1, 5));
        assert_eq!(host.sh("nft list tables"), "");
    }

    #[test]
    fn a_dropped_shield_gives_ipv6_back_and_install_brings_the_interface_up() {
        let (Some(host), Some(peer)) = (Host::new(), Host::new()) else { return };
        host.cable("eth0", &peer, "eth0");
        host.sh("ip link set eth0 down");
        let shield = host.run(|| IngressDrop::install("eth0").unwrap());
        assert!(host.sh("ip -o link show eth0").contains("UP"));
        host.run(move || drop(shield));
        assert_eq!(host.sh("cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6").trim(), "0");
    }

    #[test]
    fn failures_name_the_interface_and_the_cause() {
        let Some(host) = Host::new() else { return };
        let missing = host.run(|| IngressDrop::install("eth7").unwrap_err().to_string());
        assert!(missing.starts_with("interface eth7: cannot find it"), "{missing}");
        assert!(matches!(table("eth0\"; x"), Err(PortError::Name(_))));
        let refused = host.run(|| nft("eth0", "no such words\n").unwrap_err().to_string());
        assert!(refused.starts_with("interface eth0: nft failed: "), "{refused}");
    }
}
