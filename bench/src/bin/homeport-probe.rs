//! Sends numbered UDP probes at a steady rate to its peer, takes the peer's, and
//! writes down every one: what is lost and how long it was quiet is arithmetic
//! for the reader.
//!
//! # Output
//!
//! One line per event, times in nanoseconds of the machine's monotonic clock, so
//! that two probers on one machine (in two network namespaces) share a time:
//!
//! - `s NUMBER SENT` — sent;
//! - `e NUMBER SENT ERRNO` — the kernel refused to send it;
//! - `r NUMBER SENT ARRIVED` — received, with the sender's own time.
//!
//! SIGTERM or SIGINT ends the sending; what is still on its way is waited for,
//! then the program ends. It also ends when nobody reads its output any more.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};
use zerocopy::byteorder::big_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How often the lines are handed on.
const FLUSH: Duration = Duration::from_millis(50);

/// How long stragglers are waited for at the end.
const LINGER: Duration = Duration::from_millis(500);

/// Numbered UDP probes at a steady rate, both ways, every one written down.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The address and port to send from and to receive at.
    #[arg(long)]
    bind: SocketAddrV4,

    /// The peer's address and port.
    #[arg(long)]
    peer: SocketAddrV4,

    /// Probes a second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,

    /// Bytes of UDP payload in a probe.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(24..=1400))]
    size: u16,
}

/// What leads a probe's payload; zeros follow.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Probe {
    magic: [u8; 8],
    number: U64,
    sent: U64,
}

const MAGIC: [u8; 8] = *b"homeport";

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let socket = UdpSocket::bind(arguments.bind)
        .with_context(|| format!("cannot bind {}", arguments.bind))?;
    socket.set_read_timeout(Some(FLUSH))?;

    let sender_socket = socket.try_clone()?;
    let sender_stop = Arc::clone(&stop);
    let sender = thread::spawn(move || {
        let done = send(&sender_socket, &arguments, &sender_stop);
        // Also when it failed: the receiver must not wait for ever.
        sender_stop.store(true, Ordering::Relaxed);
        done
    });
    let received = receive(&socket, &stop);
    stop.store(true, Ordering::Relaxed);
    let sent = sender.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))?;
    for end in [received, sent] {
        match end {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            end => end?,
        }
    }
    Ok(())
}

/// Sends at absolute deadlines: one that is missed is made up for at once, so the
/// rate holds on average whatever the scheduler does.
fn send(socket: &UdpSocket, arguments: &Arguments, stop: &AtomicBool) -> io::Result<()> {
    let mut lines = Lines::new();
    let mut packet = vec![0; usize::from(arguments.size)];
    let start = now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let deadline = start + number * 1_000_000_000 / arguments.rate;
        sleep_until(deadline);
        let sent = now();
        let probe = Probe { magic: MAGIC, number: number.into(), sent: sent.into() };
        if probe.write_to_prefix(&mut packet).is_err() {
            return Err(io::Error::other("a probe does not fit its packet"));
        }
        match socket.send_to(&packet, arguments.peer) {
            Ok(_) => lines.add(format_args!("s {number} {sent}"))?,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or_default();
                lines.add(format_args!("e {number} {sent} {errno}"))?;
            }
        }
        number += 1;
    }
    lines.flush()
}

/// Writes down what arrives until `stop`, and a little longer.
fn receive(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let mut lines = Lines::new();
    let mut buffer = [0; 2048];
    let mut end = u64::MAX;
    while now() < end {
        if end == u64::MAX && stop.load(Ordering::Relaxed) {
            end = now() + LINGER.as_nanos() as u64;
        }
        let length = match socket.recv_from(&mut buffer) {
            Ok((length, _)) => length,
            Err(error) if is_passing(&error) => {
                lines.flush()?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let arrived = now();
        if let Some((probe, _)) =
            buffer.get(..length).and_then(|bytes| Probe::ref_from_prefix(bytes).ok())
            && probe.magic == MAGIC
        {
            lines.add(format_args!("r {} {} {arrived}", probe.number, probe.sent))?;
        }
    }
    lines.flush()
}

/// Lines for standard output, handed on every [`FLUSH`].
struct Lines {
    text: String,
    flushed: u64,
}

impl Lines {
    fn new() -> Self {
        Lines { text: String::new(), flushed: now() }
    }

    fn add(&mut self, line: std::fmt::Arguments<'_>) -> io::Result<()> {
        // Formatting into a string cannot fail.
        let _ = writeln!(self.text, "{line}");
        if now().saturating_sub(self.flushed) >= FLUSH.as_nanos() as u64 {
            self.flush()?;
        }
        Ok(())
    }

    /// Whole lines only: the two threads share the output.
    fn flush(&mut self) -> io::Result<()> {
        let mut output = io::stdout().lock();
        output.write_all(self.text.as_bytes())?;
        output.flush()?;
        self.text.clear();
        self.flushed = now();
        Ok(())
    }
}

/// No probe within the time-out, an interruption, or an ICMP error of an earlier
/// probe: a prober lives on through all of them.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    )
}

/// Nanoseconds of the machine's monotonic clock.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn sleep_until(deadline: u64) {
    let request = Timespec {
        tv_sec: (deadline / 1_000_000_000) as i64,
        tv_nsec: (deadline % 1_000_000_000) as i64,
    };
    // A signal ends the sleep early: the caller looks at its flag and comes back.
    while clock_nanosleep_absolute(ClockId::Monotonic, &request).is_err() {
        if now() >= deadline {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_reaches_the_deadline_and_not_much_more() {
        let deadline = now() + 20_000_000;
        sleep_until(deadline);
        let late = now() - deadline;
        assert!(late < 500_000_000, "{late} ns late");
    }

    #[test]
    fn a_probe_is_read_back_as_it_was_written() {
        let probe = Probe { magic: MAGIC, number: 7.into(), sent: (1 << 40).into() };
        let (read, rest) = Probe::ref_from_prefix(probe.as_bytes()).unwrap();
        assert_eq!((read.number.get(), read.sent.get(), rest.len()), (7, 1 << 40, 0));
    }

    #[test]
    fn two_probers_write_down_what_they_send_and_get() {
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let peer = far.local_addr().unwrap().to_string().parse().unwrap();
        let arguments =
            Arguments { bind: "127.0.0.1:0".parse().unwrap(), peer, rate: 1000, size: 64 };
        let stop = Arc::new(AtomicBool::new(false));
        let sender_stop = Arc::clone(&stop);
        let sender = thread::spawn(move || send(&near, &arguments, &sender_stop));
        let mut buffer = [0; 2048];
        for expected in 0..20 {
            let length = far.recv(&mut buffer).unwrap();
            assert_eq!(length, 64);
            let (probe, _) = Probe::ref_from_prefix(&buffer).unwrap();
            assert_eq!((probe.magic, probe.number.get()), (MAGIC, expected));
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap().unwrap();
    }
}
