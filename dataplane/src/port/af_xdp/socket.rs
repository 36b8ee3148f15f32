//! One AF_XDP socket: its memory, its rings, and its queue of an interface.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::rings::{Consumer, Producer, Ring, set_size};
use super::umem::Umem;

/// Frames of the receive and the fill ring.
pub(super) const RX_FRAMES: u32 = 2048;
/// Frames of the transmit and the completion ring.
pub(super) const TX_FRAMES: u32 = 1024;
/// Bytes of sent frames that may wait for the interface.
const SEND_ROOM: c_int = 4 << 20;

/// How long the kernel may take to let go of the queue of a socket that was closed.
const RELEASE: Duration = Duration::from_secs(1);

/// A queue of an interface.
#[derive(Debug)]
pub(super) struct Queue {
    /// Closed before its memory and its rings are unmapped.
    pub(super) socket: OwnedFd,
    pub(super) umem: Umem,
    pub(super) fill: Ring<u64, Producer>,
    pub(super) receive: Ring<libc::xdp_desc, Consumer>,
    pub(super) transmit: Ring<libc::xdp_desc, Producer>,
    pub(super) completion: Ring<u64, Consumer>,
    /// Frames to send with.
    pub(super) free: Vec<u64>,
}

/// How far the kernel's socket takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// The kernel copies between its buffers and the shared memory.
    Copy,
    /// The card uses the shared memory itself.
    ZeroCopy,
}

impl Queue {
    /// A socket with its memory, all frames to receive with already the kernel's. It
    /// receives nothing yet.
    ///
    /// # Errors
    /// The kernel has no AF_XDP, the process may not use it, or no more memory may be
    /// locked.
    pub(super) fn new(frame_len: usize) -> io::Result<Queue> {
        let socket = open()?;
        let fd = socket.as_fd();
        let (receive, transmit) = (RX_FRAMES, TX_FRAMES);
        let umem = Umem::new(fd, (receive + transmit) as usize, frame_len)?;
        set_size(fd, libc::XDP_UMEM_FILL_RING, receive)?;
        set_size(fd, libc::XDP_UMEM_COMPLETION_RING, transmit)?;
        set_size(fd, libc::XDP_RX_RING, receive)?;
        set_size(fd, libc::XDP_TX_RING, transmit)?;
        let offsets = offsets(fd)?;
        let frame = |number: u32| u64::from(number) * frame_len as u64;
        let mut queue = Queue {
            umem,
            fill: Ring::map(fd, libc::XDP_UMEM_PGOFF_FILL_RING as i64, &offsets.fr, receive)?,
            receive: Ring::map(fd, libc::XDP_PGOFF_RX_RING, &offsets.rx, receive)?,
            transmit: Ring::map(fd, libc::XDP_PGOFF_TX_RING, &offsets.tx, transmit)?,
            completion: Ring::map(
                fd,
                libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64,
                &offsets.cr,
                transmit,
            )?,
            free: (receive..receive + transmit).map(frame).collect(),
            socket,
        };
        for number in 0..receive {
            // The ring has a slot for each.
            let _ = queue.fill.push(frame(number));
        }
        queue.fill.submit();
        Ok(queue)
    }

    /// Binds it to a queue of an interface. A socket that was closed a moment ago, also
    /// by the end of its process, has its queue until the kernel has let go of it: that
    /// is waited for, up to [`RELEASE`].
    ///
    /// # Errors
    /// `EBUSY`: another socket has the queue. `EINVAL`: there is no such queue.
    /// `EOPNOTSUPP`: the driver cannot do this binding.
    pub(super) fn bind(&self, interface: c_int, queue: u32, binding: Binding) -> io::Result<()> {
        let until = Instant::now() + RELEASE;
        loop {
            match self.try_bind(interface, queue, binding) {
                Err(error)
                    if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until =>
                {
                    std::thread::sleep(RELEASE / 100);
                }
                result => return result,
            }
        }
    }

    fn try_bind(&self, interface: c_int, queue: u32, binding: Binding) -> io::Result<()> {
        let kind = match binding {
            Binding::Copy => libc::XDP_COPY,
            Binding::ZeroCopy => libc::XDP_ZEROCOPY,
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: kind | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: interface.cast_unsigned(),
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: the address is a live sockaddr_xdp of the length given.
        let result = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// What the kernel counted.
    pub(super) fn statistics(&self) -> libc::xdp_statistics {
        get_option(self.socket.as_fd(), libc::XDP_STATISTICS).unwrap_or(libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        })
    }

    /// Takes back the frames that were sent.
    pub(super) fn reap(&mut self) {
        while let Some(place) = self.completion.peek() {
            self.completion.advance();
            // There are as many places as frames: this never grows.
            self.free.push(self.umem.frame_of(place));
        }
        self.completion.release();
    }

    /// Has the kernel send what is in the ring. It sends some in one call, and none
    /// while the link is down or its queue is full: then they wait for the next one.
    pub(super) fn kick(&mut self) {
        /// More calls than the ring has batches of the kernel's, 32 frames each.
        const CALLS: u32 = TX_FRAMES / 32 + 1;
        for _ in 0..CALLS {
            let before = self.transmit.waiting();
            if before == 0 || !self.transmit.needs_wakeup() {
                return;
            }
            let flags = rustix::net::SendFlags::DONTWAIT;
            let _ = rustix::net::send(&self.socket, &[], flags);
            if self.transmit.waiting() == before {
                return;
            }
        }
    }

    /// Tells a driver that waits for it that there are frames to receive into.
    pub(super) fn wake_receiver(&self) {
        if self.fill.needs_wakeup() {
            let flags = rustix::net::RecvFlags::DONTWAIT;
            let _ = rustix::net::recv(&self.socket, &mut [0u8; 0][..], flags);
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_XDP, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // Without privilege the default size stays: a smaller queue, no failure.
    let _ = set_value(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_ROOM);
    Ok(socket)
}

fn offsets(socket: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    get_option(socket, libc::XDP_MMAP_OFFSETS)
}

/// Sets an option of AF_XDP whose value is `T`, plain old data.
pub(super) fn set_option<T: Copy>(
    socket: BorrowedFd<'_>,
    name: c_int,
    value: &T,
) -> io::Result<()> {
    set_value(socket, libc::SOL_XDP, name, value)
}

fn set_value<T: Copy>(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the kernel reads the bytes of `value`: integers and structures of
    // integers, which are passed here.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast::<c_void>(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads an option of AF_XDP that is a structure of integers.
fn get_option<T: Copy>(socket: BorrowedFd<'_>, name: c_int) -> io::Result<T> {
    // SAFETY: the structures of integers that are read here may be all zeroes.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            name,
            (&raw mut value).cast::<c_void>(),
            &mut len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}
