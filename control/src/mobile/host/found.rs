//! What the host had of its own, in a file: a program that comes after a killed one reads
//! it there.

use std::fs;
use std::io;
use std::path::PathBuf;

use netlink_packet_core::{Emitable, Parseable};
use serde::{Deserialize, Serialize};

use super::Host;
use crate::kernel::KernelError;

/// What the interface had before: netlink messages in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) boot: String,
    pub(super) namespace: String,
    pub(super) interface: String,
    pub(super) sysctls: Vec<(PathBuf, String)>,
    pub(super) addresses: Vec<String>,
    pub(super) routes: Vec<String>,
}

impl Host {
    /// What an earlier, killed program of this host found.
    pub(super) fn saved(&self) -> Option<Found> {
        let text = fs::read_to_string(&self.state_file).ok()?;
        let found: Found = serde_json::from_str(&text).ok()?;
        let here = self.identity();
        let same = (&found.boot, &found.namespace, &found.interface)
            == (&here.boot, &here.namespace, &here.interface);
        same.then_some(found)
    }

    pub(super) fn save(&self) -> Result<(), KernelError> {
        let path = &self.state_file;
        let failed = |error| KernelError::io(format!("writing {}", path.display()))(error);
        let text = serde_json::to_string(&self.found).map_err(io::Error::from).map_err(failed)?;
        let beside = path.with_extension("new");
        fs::write(&beside, text).and_then(|()| fs::rename(&beside, path)).map_err(failed)
    }

    /// Which kernel and which network namespace this is.
    pub(super) fn identity(&self) -> Found {
        let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
        Found {
            boot: read("/proc/sys/kernel/random/boot_id"),
            namespace: namespace.to_string_lossy().into_owned(),
            interface: self.interface.clone(),
            ..Found::default()
        }
    }
}

/// A netlink message of the state file.
pub(super) fn from_hex<M: Parseable<[u8]>>(text: &str) -> Option<M> {
    M::parse(&unhex(text)?).ok()
}

/// A netlink message for the state file.
pub(super) fn hex(message: &impl Emitable) -> String {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
