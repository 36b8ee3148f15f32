//! Which home address the node was given last, in a file: so that it can ask for that when
//! it is started anew, and its home agent may have forgotten it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use homeport_proto::config::{MobileNodeConfig, Prefix};
use serde::{Deserialize, Serialize};

/// The file in the folder.
const FILE: &str = "home-address.json";

/// No file is longer: a name of 253 bytes, at worst as `\u0000`, and the rest.
const MAX_LEN: u64 = 4_096;

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Given {
    nai: String,
    home_address: Ipv4Addr,
}

/// The file.
#[derive(Debug)]
pub struct AddressMemory {
    path: PathBuf,
    nai: String,
    prefix: Prefix,
}

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
#[error("state_dir {}: {cause}", folder.display())]
pub struct MemoryError {
    folder: PathBuf,
    cause: io::Error,
}

impl AddressMemory {
    /// The memory in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`MemoryError`]: it is not there and cannot be made.
    pub fn open(folder: &Path, node: &MobileNodeConfig) -> Result<Self, MemoryError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|cause| MemoryError { folder: folder.into(), cause })?;
        let nai = node.nai.as_deref().unwrap_or_default();
        let nai = String::from_utf8_lossy(nai).into_owned();
        Ok(AddressMemory { path: folder.join(FILE), nai, prefix: node.home_prefix })
    }

    /// The address that the NAI was given last, if it is of the home network still. What
    /// cannot be read is told, and nothing else comes of it.
    pub fn recall(&self) -> Option<Ipv4Addr> {
        let given = match self.read() {
            Ok(given) => given,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%error, %path, "which home address the node had cannot be read");
                return None;
            }
        };
        let is_its = given.nai == self.nai && self.prefix.contains(given.home_address);
        is_its.then_some(given.home_address)
    }

    fn read(&self) -> io::Result<Given> {
        let mut text = String::new();
        let file = fs::File::open(&self.path)?;
        io::Read::read_to_string(&mut io::Read::take(file, MAX_LEN), &mut text)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Writes down which address the node has. The file is whole at any moment, the old
    /// one or the new one.
    ///
    /// # Errors
    /// The file's.
    pub fn remember(&self, home_address: Ipv4Addr) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let given = Given { nai: self.nai.clone(), home_address };
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(&given)?)?;
        fs::rename(beside, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 105);

    fn memory(folder: &Path, nai: &str, prefix: &str) -> AddressMemory {
        let prefix = Prefix::new(prefix.parse().unwrap(), 24).unwrap();
        AddressMemory { path: folder.join(FILE), nai: nai.into(), prefix }
    }

    fn folder(name: &str) -> PathBuf {
        let name = format!("homeport-memory-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_was_given_last_is_asked_for_by_the_same_node_in_the_same_network_only() {
        let folder = folder("same");
        let own = memory(&folder, "phone@train.example", "10.1.0.0");
        assert_eq!(own.recall(), None);
        for address in [Ipv4Addr::new(10, 1, 0, 7), ADDRESS] {
            own.remember(address).unwrap();
            assert_eq!(own.recall(), Some(address));
        }
        assert_eq!(memory(&folder, "tablet@train.example", "10.1.0.0").recall(), None);
        assert_eq!(memory(&folder, "phone@train.example", "10.2.0.0").recall(), None);
        use std::os::unix::fs::PermissionsExt;
        let mode = folder.join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_is_no_memory_is_as_good_as_none_and_is_written_anew() {
        let folder = folder("noise");
        let own = memory(&folder, "phone@train.example", "10.1.0.0");
        for noise in [&b""[..], b"{\"nai\":\"phone@train.ex", b"\xff\xfe", &[b'x'; 10_000]] {
            fs::write(folder.join(FILE), noise).unwrap();
            assert_eq!(own.recall(), None);
        }
        own.remember(ADDRESS).unwrap();
        assert_eq!(own.recall(), Some(ADDRESS));
        fs::remove_dir_all(&folder).unwrap();
        assert!(own.remember(ADDRESS).is_err());
    }
}
