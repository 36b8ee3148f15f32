//! The parts of libdpdk (22.11) that the dataplane uses: the only FFI of
//! Homeport, and a safe API over it.
//!
//! [`Eal`] starts DPDK, once in a process. A [`Mempool`] has buffers, an [`Mbuf`]
//! is one of them, owned, and an [`EthDev`] receives and sends bursts of them.
//! Inline functions of DPDK are called through a small C shim, one call for a
//! burst; lengths and data pointers are fields, read and set here.
//!
//! Drivers are plugins: a dynamically linked EAL loads those of its plugin
//! folder by itself, so none is linked.
//!
//! **Not done:** more than one queue for each direction, and freeing a pool: it
//! lives as long as the process, because an mbuf may outlive its port.
#![allow(unsafe_code, reason = "FFI to libdpdk")]

mod eal;
mod ethdev;
mod mbuf;

pub use eal::{Eal, EalOptions};
pub use ethdev::{BURST, EthDev, EthStats, is_pci, kernel_interface};
pub use mbuf::{HEADROOM, Mbuf, Mempool};

use std::ffi::{CStr, c_int};

/// What bindgen makes of the shim's header.
#[allow(
    dead_code,
    non_camel_case_types,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::indexing_slicing,
    reason = "generated"
)]
mod ffi {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

/// Why DPDK did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("DPDK cannot {what}: {cause}")]
pub struct DpdkError {
    what: String,
    cause: String,
}

impl DpdkError {
    fn new(what: impl Into<String>, cause: impl Into<String>) -> Self {
        DpdkError { what: what.into(), cause: cause.into() }
    }

    /// `result`, or the error whose negative errno it is.
    fn check(result: c_int, what: impl FnOnce() -> String) -> Result<u32, DpdkError> {
        u32::try_from(result).map_err(|_| {
            // SAFETY: any number is allowed; the text is a static or thread-local
            // string, copied before the next call.
            let text = unsafe { CStr::from_ptr(ffi::hp_strerror(result.wrapping_neg())) };
            DpdkError::new(what(), text.to_string_lossy())
        })
    }
}
