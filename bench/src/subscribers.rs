//! Loading a subscriber file: what stands between a start, or a reload, and the first
//! registration.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use homeport_control::config::subscribers;
use homeport_proto::config::{HomeNetwork, Prefix};
use homeport_proto::security::SecurityAssociations;

const HOME_NETWORK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

/// Writes a file of so many nodes (2^24 at most) with a key of 16 bytes each, and says
/// how many seconds the daemon takes to load it.
///
/// # Errors
/// When the file cannot be written, or is not read as it was written.
pub fn load(nodes: usize) -> Result<f64> {
    let path = std::env::temp_dir().join(format!("homeport-subscribers-{}", std::process::id()));
    let seconds = write(&path, nodes).and_then(|()| read(&path, nodes));
    let _ = fs::remove_file(&path);
    seconds
}

fn write(path: &Path, nodes: usize) -> Result<()> {
    let mut text = String::with_capacity(nodes * 72);
    for number in 0..nodes.min(1 << 24) {
        let home_address = Ipv4Addr::from_bits(HOME_NETWORK.to_bits() + number as u32);
        // Keys that have nothing in common; to guess them is no use.
        let key = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        writeln!(text, "{home_address},256,hmac-md5,{key:032x},timestamps")?;
    }
    // Keys are for no others to read; the daemon insists.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("making {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

fn read(path: &Path, nodes: usize) -> Result<f64> {
    let prefix = Prefix::new(HOME_NETWORK, 8).context("a home network")?;
    let mut security = SecurityAssociations::default();
    let begun = Instant::now();
    let read = subscribers::read(
        path,
        &std::env::temp_dir(),
        &[HomeNetwork { prefix, link: None }],
        &mut security,
    );
    let seconds = begun.elapsed().as_secs_f64();
    match read {
        Ok(count) if count == nodes && security.mobile_node_count() == nodes => Ok(seconds),
        other => bail!("of {nodes} subscribers there were read: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        assert!(load(1_000).unwrap() > 0.0);
    }
}
