//! The Linux kernel as the slow path: its links, addresses, routes and
//! neighbours, over rtnetlink and without an async runtime.
//!
//! * [`setup`] makes a port's kernel twin what the configuration says and takes
//!   it back.
//! * [`shared`] does so with an interface that a port shares with the kernel.
//! * [`mirror`] follows the kernel's routes, local addresses and neighbours and
//!   tells what changed, as plain data.
//! * [`resolve`] asks the kernel to resolve a next hop, and to look again at those
//!   that only the dataplane uses.
//!
//! `socket` is the netlink socket that they share.
//!
//! **Not done:** IPv6. Twins have it switched off; on a shared interface it is the
//! kernel's.

pub mod mirror;
pub mod resolve;
pub mod setup;
pub mod shared;
pub(crate) mod socket;

pub use mirror::{Change, KernelLocal, Mirror};
pub use resolve::Resolver;
pub use setup::{Setup, Twin};
pub use shared::SharedLink;

use std::io;

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel answered with something that is no rtnetlink message.
    #[error("{what}: the kernel's answer does not parse: {reason}")]
    Answer {
        /// What was tried.
        what: String,
        /// Why it does not parse.
        reason: String,
    },
    /// There is no interface of this name.
    #[error("there is no interface {0}")]
    NoInterface(String),
}

impl KernelError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> KernelError {
        let what = what.into();
        move |source| KernelError::Io { what, source }
    }

    /// Whether the kernel refused for want of CAP_NET_ADMIN.
    pub fn is_permission(&self) -> bool {
        matches!(self, KernelError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    pub(crate) fn has_code(&self, code: rustix::io::Errno) -> bool {
        matches!(self, KernelError::Io { source, .. } if source.raw_os_error() == Some(code.raw_os_error()))
    }
}
