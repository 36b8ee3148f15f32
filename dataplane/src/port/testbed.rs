//! Hosts for tests that need a kernel: each a thread in a network namespace of
//! its own, which ends with it, so that nothing is left behind. And what tests do
//! with a port, whatever its kind.
#![allow(unsafe_code, reason = "unshare has no safe wrapper")]

use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Port, counters_of};
use crate::packet::{Burst, PacketPool};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace and a thread in it.
pub(crate) struct Host {
    jobs: mpsc::Sender<Job>,
    thread: u32,
}

impl Host {
    /// A host with nothing but its loopback, or `None`, with the reason printed,
    /// where this process may not make one.
    pub(crate) fn new() -> Option<Host> {
        let (jobs, work) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::channel();
        thread::spawn(move || {
            // SAFETY: no memory is involved; only this thread changes namespace.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            let error = (result != 0).then(std::io::Error::last_os_error);
            // SAFETY: gettid only returns a number.
            let thread = unsafe { libc::gettid() };
            if ready.send(error.map_or(Ok(thread.cast_unsigned()), Err)).is_ok() {
                work.into_iter().for_each(|job| job());
            }
        });
        match made.recv().unwrap() {
            Ok(thread) => {
                let host = Host { jobs, thread };
                host.sh("ip link set lo up");
                Some(host)
            }
            Err(error) => {
                println!("skipped: cannot make a network namespace: {error}");
                None
            }
        }
    }

    /// Runs `job` in the host.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = Box::new(move || {
            let _ = done.send(job());
        });
        self.jobs.send(job).expect("an earlier job of this host panicked");
        result.recv().expect("the job panicked; see above")
    }

    /// Runs a shell command in the host, which must succeed.
    ///
    /// Returns what it wrote to standard output.
    pub(crate) fn sh(&self, command: &str) -> String {
        let (output, ok) = self.try_sh(command);
        assert!(ok, "{command}: {output}");
        output
    }

    /// Runs a shell command in the host: its output, and whether it succeeded.
    pub(crate) fn try_sh(&self, command: &str) -> (String, bool) {
        let text = command.to_owned();
        self.run(move || {
            let output = Command::new("sh").arg("-c").arg(&text).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            eprint!("{error}");
            (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
        })
    }

    /// Lays a cable between two hosts, by a veth pair; both ends are up.
    pub(crate) fn cable(&self, name: &str, peer: &Host, peer_name: &str) {
        self.cable_with_queues(name, peer, peer_name, 1);
    }

    /// The same, with so many queues at each end.
    pub(crate) fn cable_with_queues(
        &self,
        name: &str,
        peer: &Host,
        peer_name: &str,
        queues: usize,
    ) {
        let (there, queues) = (peer.thread, format!("numtxqueues {queues} numrxqueues {queues}"));
        self.sh(&format!(
            "ip link add {name} {queues} type veth peer name {peer_name} {queues} netns {there}"
        ));
        self.sh(&format!("ip link set {name} up"));
        peer.sh(&format!("ip link set {peer_name} up"));
    }
}

/// Two hosts without a word of their own between the frames of a test, and a cable
/// from `eth0` to `eth0`.
pub(crate) fn quiet_pair() -> Option<(Host, Host)> {
    let (a, b) = (Host::new()?, Host::new()?);
    for host in [&a, &b] {
        host.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    }
    a.cable("eth0", &b, "eth0");
    Some((a, b))
}

/// One of a port's own counters.
pub(crate) fn counter(port: &impl Port, name: &str) -> u64 {
    let counters = counters_of(port);
    counters.iter().find(|(counter, _)| *counter == name).unwrap_or_else(|| panic!("{name}")).1
}

/// Sends frames in one burst; how many the port took.
pub(crate) fn send(port: &mut impl Port, pool: &mut PacketPool, frames: &[Vec<u8>]) -> usize {
    let mut burst = Burst::new();
    for frame in frames {
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(frame));
        burst.push(packet).unwrap();
    }
    let sent = port.tx_burst(pool, &mut burst);
    assert!(burst.is_empty());
    sent
}

/// Receives until `count` frames came or a second went by without one.
pub(crate) fn receive(port: &mut impl Port, pool: &mut PacketPool, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut last = Instant::now();
    while frames.len() < count && last.elapsed() < Duration::from_secs(1) {
        let mut burst = Burst::new();
        port.rx_burst(pool, &mut burst);
        if !burst.is_empty() {
            last = Instant::now();
        }
        frames.extend(burst.iter().map(|packet| packet.bytes().to_vec()));
        burst.drain().for_each(|packet| pool.give(packet));
    }
    frames
}

/// A frame of an experimental EtherType (IEEE 802, local experimental 1).
pub(crate) fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.resize(len, number as u8);
    frame
}
