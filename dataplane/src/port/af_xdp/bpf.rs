//! The few commands of bpf(2) that a port needs: maps, one program, its link to
//! an interface, and a run of the program on a frame for tests.
//!
//! The kernel reads as many bytes of an attribute as it is given and takes the
//! rest for zero, so that each command passes only the members that it sets.

use std::ffi::{CStr, c_int, c_long};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use zerocopy::{Immutable, IntoBytes};

use super::instruction::Instruction;

/// Commands of bpf(2) (`enum bpf_cmd` of `linux/bpf.h`).
const MAP_CREATE: c_int = 0;
const MAP_LOOKUP_ELEM: c_int = 1;
const MAP_UPDATE_ELEM: c_int = 2;
const MAP_DELETE_ELEM: c_int = 3;
const PROG_LOAD: c_int = 5;
#[cfg(test)]
const PROG_TEST_RUN: c_int = 10;
const LINK_CREATE: c_int = 28;

/// `BPF_PROG_TYPE_XDP`.
const PROGRAM_TYPE_XDP: u32 = 6;
/// `BPF_XDP`, where the program is attached.
const ATTACH_XDP: u32 = 37;
/// `BPF_F_NO_PREALLOC`: entries take memory when they are there.
const NO_PREALLOC: u32 = 1;

/// Bytes of the verifier's words that are kept for the error.
const LOG_LEN: usize = 1 << 16;

/// The kinds of maps (`enum bpf_map_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapKind {
    /// Exact keys.
    Hash,
    /// Prefixes.
    Trie,
    /// AF_XDP sockets by the number of their queue.
    Sockets,
}

/// A map in the kernel.
#[derive(Debug)]
pub(super) struct Map {
    fd: OwnedFd,
    key_len: usize,
    value_len: usize,
}

impl Map {
    /// An empty map.
    ///
    /// # Errors
    /// The process may not make maps (CAP_BPF), or the kernel has no such kind.
    pub(super) fn new(
        kind: MapKind,
        key_len: usize,
        value_len: usize,
        entries: u32,
    ) -> io::Result<Map> {
        #[derive(IntoBytes, Immutable)]
        #[repr(C)]
        struct Attribute {
            kind: u32,
            key_len: u32,
            value_len: u32,
            entries: u32,
            flags: u32,
        }
        let (number, flags) = match kind {
            MapKind::Hash => (1, NO_PREALLOC),
            MapKind::Trie => (11, NO_PREALLOC),
            MapKind::Sockets => (17, 0),
        };
        let attribute = Attribute {
            kind: number,
            key_len: key_len as u32,
            value_len: value_len as u32,
            entries,
            flags,
        };
        Ok(Map { fd: new_fd(MAP_CREATE, attribute.as_bytes())?, key_len, value_len })
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// The map is full (`E2BIG`, of a trie `ENOSPC`), or without memory.
    pub(super) fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key.len() != self.key_len || value.len() != self.value_len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let attribute = element(self.fd.as_fd(), key, Some(value));
        call(MAP_UPDATE_ELEM, attribute.as_bytes()).map(drop)
    }

    /// The value of a key, or of the longest prefix that it is in; it has N bytes.
    ///
    /// # Errors
    /// There is none: `NotFound`.
    pub(super) fn get<const N: usize>(&self, key: &[u8]) -> io::Result<[u8; N]> {
        let mut value = [0; N];
        if key.len() != self.key_len || N != self.value_len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let attribute = Element {
            value: value.as_mut_ptr().expose_provenance() as u64,
            ..element(self.fd.as_fd(), key, None)
        };
        call(MAP_LOOKUP_ELEM, attribute.as_bytes())?;
        Ok(value)
    }

    /// Takes a key away; one that is not there is as good as gone.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) fn remove(&self, key: &[u8]) -> io::Result<()> {
        if key.len() != self.key_len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match call(MAP_DELETE_ELEM, element(self.fd.as_fd(), key, None).as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    /// Puts the socket of a queue into a map of [`MapKind::Sockets`].
    ///
    /// # Errors
    /// It is no AF_XDP socket with a receive ring, or there is no such place.
    pub(super) fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let number = socket.as_raw_fd().cast_unsigned();
        self.set(&queue.to_ne_bytes(), &number.to_ne_bytes())
    }

    /// The number that an instruction names the map by.
    pub(super) fn number(&self) -> c_int {
        self.fd.as_raw_fd()
    }
}

/// A program that the verifier has accepted.
#[derive(Debug)]
pub(super) struct LoadedProgram {
    fd: OwnedFd,
}

impl LoadedProgram {
    /// Has the kernel verify an XDP program.
    ///
    /// # Errors
    /// The process may not (CAP_BPF and CAP_NET_ADMIN), or the verifier refuses
    /// it: then the error holds its words.
    pub(super) fn load(instructions: &[Instruction]) -> io::Result<LoadedProgram> {
        const LICENSE: &CStr = c"Dual MIT/GPL";
        #[derive(IntoBytes, Immutable)]
        #[repr(C)]
        struct Attribute {
            kind: u32,
            count: u32,
            instructions: u64,
            license: u64,
            log_level: u32,
            log_len: u32,
            log: u64,
            kernel_version: u32,
            flags: u32,
            name: [u8; 16],
            interface: u32,
            attach: u32,
        }
        let attribute = |log: Option<&mut [u8]>| Attribute {
            kind: PROGRAM_TYPE_XDP,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr().expose_provenance() as u64,
            license: LICENSE.as_ptr().expose_provenance() as u64,
            log_level: u32::from(log.is_some()),
            log_len: log.as_ref().map_or(0, |log| log.len() as u32),
            log: log.map_or(0, |log| log.as_mut_ptr().expose_provenance() as u64),
            kernel_version: 0,
            flags: 0,
            name: *b"homeport\0\0\0\0\0\0\0\0",
            interface: 0,
            attach: ATTACH_XDP,
        };
        match new_fd(PROG_LOAD, attribute(None).as_bytes()) {
            Ok(fd) => Ok(LoadedProgram { fd }),
            Err(error) if error.raw_os_error() != Some(libc::EACCES) => Err(error),
            Err(error) => {
                let mut log = vec![0; LOG_LEN];
                let _ = new_fd(PROG_LOAD, attribute(Some(&mut log)).as_bytes());
                let text = String::from_utf8_lossy(&log);
                let text = text.trim_end_matches('\0').trim_end();
                Err(io::Error::new(error.kind(), format!("the verifier refused: {text}")))
            }
        }
    }

    /// Attaches it to an interface until the returned descriptor is closed, by
    /// whatever way the process ends. `flags` say which mode.
    ///
    /// # Errors
    /// `EBUSY` or `EEXIST`: another program is attached. `EOPNOTSUPP`: the driver
    /// has no such mode. `EINVAL` also from kernels before 5.9.
    pub(super) fn attach(&self, interface: c_int, flags: u32) -> io::Result<OwnedFd> {
        #[derive(IntoBytes, Immutable)]
        #[repr(C)]
        struct Attribute {
            program: u32,
            interface: u32,
            attach: u32,
            flags: u32,
        }
        let attribute = Attribute {
            program: self.fd.as_raw_fd().cast_unsigned(),
            interface: interface.cast_unsigned(),
            attach: ATTACH_XDP,
            flags,
        };
        new_fd(LINK_CREATE, attribute.as_bytes())
    }

    /// Runs it on a frame that nobody sent. Returns its verdict.
    #[cfg(test)]
    pub(super) fn run(&self, frame: &[u8]) -> io::Result<u32> {
        #[derive(IntoBytes, Immutable)]
        #[repr(C)]
        struct Attribute {
            program: u32,
            verdict: u32,
            in_len: u32,
            out_len: u32,
            input: u64,
            output: u64,
            repeat: u32,
            duration: u32,
        }
        let mut attribute = Attribute {
            program: self.fd.as_raw_fd().cast_unsigned(),
            verdict: u32::MAX,
            in_len: frame.len() as u32,
            out_len: 0,
            input: frame.as_ptr().expose_provenance() as u64,
            output: 0,
            repeat: 1,
            duration: 0,
        };
        let len = size_of::<Attribute>();
        // SAFETY: the kernel reads and writes `len` bytes, all of the attribute, and
        // reads `in_len` bytes of the frame, which lives.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, (&raw mut attribute).cast::<u8>(), len)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(attribute.verdict) }
    }
}

/// Of the commands for one element of a map.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element(map: BorrowedFd<'_>, key: &[u8], value: Option<&[u8]>) -> Element {
    Element {
        map: map.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: key.as_ptr().expose_provenance() as u64,
        value: value.map_or(0, |value| value.as_ptr().expose_provenance() as u64),
        flags: 0,
    }
}

fn new_fd(command: c_int, attribute: &[u8]) -> io::Result<OwnedFd> {
    let fd = call(command, attribute)?;
    // SAFETY: the kernel just returned this descriptor, with close-on-exec as all of
    // bpf(2)'s, to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

fn call(command: c_int, attribute: &[u8]) -> io::Result<c_long> {
    // SAFETY: the kernel reads the attribute, and what it points to: buffers of the
    // callers above, which live and have the lengths given. None of these commands
    // writes to the attribute; the log, and a value that is looked up, are written
    // within their lengths.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), attribute.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The bytes of an address as they stand in a packet.
pub(super) const fn wire(address: Ipv4Addr) -> [u8; 4] {
    address.octets()
}
