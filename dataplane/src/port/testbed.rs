//! Hosts for tests that need a kernel: each a thread in a network namespace of
//! its own, which ends with it, so that nothing is left behind.
#![allow(unsafe_code, reason = "unshare has no safe wrapper")]

use std::process::Command;
use std::sync::mpsc;
use std::thread;

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
