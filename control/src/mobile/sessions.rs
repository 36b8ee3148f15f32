//! Whose sessions are: a device's on the LAN, a command's in a namespace of its own, or an
//! address on this host.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use homeport_proto::MacAddress;
use homeport_proto::shown::shown;

use crate::admin::sessions::SessionKind;

/// A command in a network namespace of its own.
#[derive(Debug)]
pub struct Command {
    /// The end of its veth pair that is here.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// The link-layer address of the other end.
    pub mac: MacAddress,
    /// Readable when the process that runs the command is gone.
    pub process: OwnedFd,
}

/// Whose a session is.
#[derive(Debug)]
pub enum Owner {
    /// A device's on the LAN.
    Device,
    /// A command's.
    Command(Command),
    /// This host's.
    Local,
}

impl Owner {
    /// The kind for people and JSON.
    pub const fn kind(&self) -> SessionKind {
        match self {
            Owner::Device => SessionKind::Device,
            Owner::Command(_) => SessionKind::Command,
            Owner::Local => SessionKind::Local,
        }
    }
}

/// The sessions' owners, by name.
#[derive(Debug, Default)]
pub struct Sessions {
    owners: BTreeMap<Arc<[u8]>, Owner>,
}

impl Sessions {
    /// Notes whose a session is.
    pub fn insert(&mut self, name: Arc<[u8]>, owner: Owner) {
        self.owners.insert(name, owner);
    }

    /// Forgets it.
    pub fn remove(&mut self, name: &[u8]) -> Option<Owner> {
        self.owners.remove(name)
    }

    /// Whose it is.
    pub fn get(&self, name: &[u8]) -> Option<&Owner> {
        self.owners.get(name)
    }

    /// All names.
    pub fn names(&self) -> Vec<Arc<[u8]>> {
        self.owners.keys().cloned().collect()
    }

    /// The commands.
    pub fn commands(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Command)> {
        self.owners.iter().filter_map(|(name, owner)| match owner {
            Owner::Command(command) => Some((name, command)),
            Owner::Device | Owner::Local => None,
        })
    }

    /// The name that is meant by what [`shown`] shows of it, or else by itself.
    pub fn find(&self, text: &str) -> Option<Arc<[u8]>> {
        let exact = || self.owners.get_key_value(text.as_bytes()).map(|(name, _)| name);
        self.owners.keys().find(|name| shown(name) == text).or_else(exact).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_in_one_line_and_no_two_look_alike() {
        let names: [(&[u8], &str); 6] = [
            (b"phone", "phone"),
            (b"\x00camera\n", "\\u{0}camera\\n"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"\\xff\\xfe", "\\\\xff\\\\xfe"),
            ("\u{202e}a\u{1b}[2J".as_bytes(), "\\u{202e}a\\u{1b}[2J"),
            ("Kühlschrank".as_bytes(), "Kühlschrank"),
        ];
        let mut sessions = Sessions::default();
        for (name, text) in names {
            assert_eq!(shown(name), text);
            sessions.insert(name.into(), Owner::Local);
        }
        for (name, text) in names {
            assert_eq!(sessions.find(text).as_deref(), Some(name), "{text}");
        }
        assert_eq!(sessions.find("nobody"), None);
    }
}
