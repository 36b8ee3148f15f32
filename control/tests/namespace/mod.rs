//! Network namespaces for tests: made by name, entered by threads, gone at the end.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Says so and returns `true` when the test cannot have namespaces.
pub(crate) fn unavailable(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped {test}: network namespaces need root");
    }
    !root
}

/// A network namespace, removed with all that is in it when dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one, its loopback up.
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("loop-{}-{name}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Namespace { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it; the words are split at blanks.
    pub(crate) fn ip(&self, words: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(words.split(' '));
        run("ip", &all);
    }

    /// A command to run in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a command in it and gives what it said.
    pub(crate) fn output(&self, program: &str, words: &str) -> Output {
        self.command(program).args(words.split(' ')).output().unwrap()
    }

    /// Runs `body` on a thread of its own inside the namespace.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                body()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Joins two namespaces by a veth pair, both ends up.
pub(crate) fn join((a, name_a): (&Namespace, &str), (b, name_b): (&Namespace, &str)) {
    let words =
        format!("link add {name_a} netns {} type veth peer name {name_b} netns {}", a.name, b.name);
    run("ip", &words.split(' ').collect::<Vec<_>>());
    a.ip(&format!("link set {name_a} up"));
    b.ip(&format!("link set {name_b} up"));
}

/// Runs a command and demands that it succeeds.
pub(crate) fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {error}", words.join(" "));
}

/// Repeats `check` until it gives a value; panics after `limit`.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < end, "{what} did not happen within {limit:?}");
        thread::sleep(Duration::from_millis(10));
    }
}
