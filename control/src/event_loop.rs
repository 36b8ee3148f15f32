//! The control core: one thread that drives the agents.
//!
//! # Priorities
//!
//! In each turn, in this order, each with a bound, so that none starves another:
//!
//! 1. *registrations*: what the dataplane punted, at most [`PUNTS_PER_TURN`].
//!    Renewals and deregistrations come first; where there is more of everything than
//!    time, of each 38 packets they are 24, new nodes' registrations 6, keepalives
//!    and next hops to resolve 2 each, the other reasons 1
//!    ([`punt`](homeport_dataplane::punt)). What has waited longer than [`MAX_WAIT`]
//!    is shed: who sent it has sent it again;
//! 2. *the kernel*: what netlink tells, at most [`NETLINK_PER_TURN`] datagrams, as
//!    forwarding stands on it;
//! 3. *timers* of the agents, and what waits for room in a table;
//! 4. *people and programs*: at most [`ADMIN_PER_TURN`] calls of the admin API.
//!
//! Signals and the end of a worker are looked at once a turn. When nothing waits,
//! the thread sleeps in poll(2) until something does or a timer is due.

mod agent_counters;
mod answers;
mod explain;
mod held;
mod routes;
pub mod trace;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use homeport_dataplane::launch::Control;
use homeport_proto::draws::Draws;
use homeport_proto::{Instant, Now, TenantId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use self::held::HeldBack;
use crate::admin::api::{AdminHandle, ConfigDiff, Refusal};
use crate::clock;
use crate::config::Config;
use crate::control_core::{self, ControlCore};
pub use crate::control_core::{MAX_WAIT, PUNTS_PER_TURN};
use crate::install::ClaimKeeper;
use crate::journal::{Input, Recorder};
use crate::kernel::{Mirror, Resolver, Setup};
use crate::session_store::{Line, SessionStore};

/// Datagrams of netlink in one turn.
pub const NETLINK_PER_TURN: usize = 32;

/// Calls of the admin API in one turn.
pub const ADMIN_PER_TURN: usize = 4;

/// When what found no room in a table is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// How often it is looked whether an RX core stands still.
const LOOK: Duration = Duration::from_millis(500);

/// When netlink is tried again after an error.
const KERNEL_RETRY: Duration = Duration::from_secs(1);

/// What an event loop works with.
pub struct Parts {
    /// The dataplane.
    pub control: Control,
    /// The config in force, whose routes are in the kernel already.
    pub config: Arc<Config>,
    /// Seeds what the agents draw at random.
    pub seed: [u8; 32],
    /// Where every input of the agents is kept, if anywhere.
    pub recorder: Option<Recorder>,
    /// Where it is written down which address is whose session's, if anywhere, and what
    /// was.
    pub sessions: Option<(SessionStore, Vec<Line>)>,
    /// Follows the kernel.
    pub mirror: Mirror,
    /// Asks the kernel for next hops.
    pub resolver: Resolver,
    /// Changes the kernel's routes.
    pub setup: Setup,
    /// What AF_XDP ports take from the kernel.
    pub claims: ClaimKeeper,
    /// The admin API.
    pub admin: AdminHandle,
    /// What comes from outside.
    pub signals: Signals,
}

/// Wake-ups from outside: each is readable when it has something to say.
pub struct Signals {
    /// SIGTERM and SIGINT: a byte for each.
    pub stop: UnixStream,
    /// SIGHUP: a byte for each.
    pub reload: UnixStream,
    /// Says that a worker thread has ended: its end of file.
    pub worker: UnixStream,
    /// Begins to read the config file anew, on another thread.
    pub begin_reload: Box<dyn FnMut() + Send>,
}

/// Why the event loop ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// A worker ended though nobody asked it to: nothing is forwarded any more.
    #[error("a worker thread has ended unexpectedly; nothing is forwarded any more")]
    WorkerEnded,
    /// poll(2) failed.
    #[error("waiting for events: {0}")]
    Poll(#[from] Errno),
}

/// The control core.
pub struct EventLoop {
    core: ControlCore,
    mirror: Mirror,
    resolver: Resolver,
    setup: Setup,
    kernel_error_at: Option<Instant>,
    retry_at: Option<Instant>,
    held_back: HeldBack,
    /// When the tables are looked at for it.
    look_at: Instant,
    admin: AdminHandle,
    signals: Signals,
    config: Arc<Config>,
    generation: u64,
    started: Instant,
    /// Since when the NAIs of a home agent have the numbers that they have, if another
    /// config had other ones.
    numbered_since: BTreeMap<(TenantId, Ipv4Addr), Instant>,
    counts: Counts,
}

/// What the loop itself counts.
#[derive(Debug, Default)]
struct Counts {
    no_twin: u64,
    kernel_errors: u64,
}

impl EventLoop {
    /// Makes the agents, and fills the tables with what the kernel has and the
    /// config says. The dataplane may forward from then on.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            control,
            config,
            seed,
            recorder,
            sessions,
            mirror,
            resolver,
            setup,
            claims,
            admin,
            signals,
        } = parts;
        let draws = if recorder.is_some() { Draws::noted(seed) } else { Draws::live(seed) };
        let now = clock::now();
        let core = control_core::Parts {
            control,
            agents: config.agent_config(),
            messages_per_second: messages_per_prefix(&config),
            claims,
            draws,
            remembered_nodes: config.daemon.remembered_nodes,
            recorder,
        };
        let mut event_loop = EventLoop {
            core: ControlCore::new(core, now),
            mirror,
            resolver,
            setup,
            kernel_error_at: None,
            retry_at: None,
            held_back: HeldBack::default(),
            look_at: now.monotonic,
            admin,
            signals,
            generation: 1,
            started: now.monotonic,
            numbered_since: BTreeMap::new(),
            counts: Counts::default(),
            config,
        };
        event_loop.take_changes();
        event_loop.core.start(now.monotonic);
        if let Some((store, lines)) = sessions {
            event_loop.core.keep_sessions(store, lines, now);
        }
        event_loop
    }

    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// [`LoopError`]: the process cannot do its work any more.
    pub fn run(&mut self) -> Result<(), LoopError> {
        loop {
            let now = clock::now();
            let mut more = self.core.take_punts(now, std::time::Instant::now());
            self.ask_for_next_hops(now.monotonic);
            more |= self.follow_kernel(now.monotonic);
            self.do_timers(now);
            more |= self.answer_calls(now);
            if self.wait(more)? {
                return Ok(());
            }
        }
    }

    /// What the kernel tells. Returns whether more may wait.
    fn follow_kernel(&mut self, now: Instant) -> bool {
        if self.kernel_error_at.is_some_and(|at| now < at + KERNEL_RETRY) {
            return false;
        }
        self.kernel_error_at = None;
        let followed = self.mirror.poll(NETLINK_PER_TURN);
        self.take_changes();
        let mirror = &self.mirror;
        let refreshed = self.resolver.refresh(|| mirror.stale_neighbors(), now);
        if let Err(error) = refreshed {
            // A link or a neighbour that went away meanwhile.
            tracing::debug!(%error, "a neighbour was not refreshed");
        }
        match followed {
            Ok(more) => more,
            Err(error) => {
                self.counts.kernel_errors += 1;
                tracing::error!(%error, "the kernel's routes cannot be followed; trying again");
                self.kernel_error_at = Some(now);
                false
            }
        }
    }

    fn take_changes(&mut self) {
        while let Some(change) = self.mirror.next_change() {
            tracing::debug!(?change, "the kernel changed");
            self.core.installer.apply_change(change);
        }
    }

    fn ask_for_next_hops(&mut self, now: Instant) {
        while let Some((port, next_hop)) = self.core.next_hop() {
            let Some(index) = self.mirror.index_of(port) else {
                self.counts.no_twin += 1;
                continue;
            };
            if let Err(error) = self.resolver.resolve(index, next_hop, now) {
                self.counts.kernel_errors += 1;
                tracing::debug!(%error, %next_hop, "next hop not asked for");
            }
        }
    }

    fn do_timers(&mut self, now: Now) {
        self.core.do_timers(now);
        if now.monotonic >= self.look_at {
            self.look_at = now.monotonic + LOOK;
            self.held_back.look(self.core.installer.held(), now.monotonic);
        }
        self.core.traces.handle_timeout(now.monotonic);
        if self.retry_at.is_none_or(|due| due <= now.monotonic) {
            let late = self.core.installer.is_late() && self.core.installer.retry();
            self.retry_at = late.then(|| now.monotonic + RETRY);
        }
    }

    /// Calls of the admin API, at most so many. Returns whether more may wait.
    fn answer_calls(&mut self, now: Now) -> bool {
        for _ in 0..ADMIN_PER_TURN {
            let Some(call) = self.admin.try_next() else {
                return false;
            };
            let outcome = self.answer(call.query().clone(), now);
            call.answer(outcome);
        }
        true
    }

    /// Sleeps until something is to be done; not at all when `more` is. Returns
    /// whether to stop.
    fn wait(&mut self, more: bool) -> Result<bool, LoopError> {
        let timeout = if more { Some(Timespec::default()) } else { self.timeout() };
        let kernel_fails = self.kernel_error_at.is_some();
        let mut fds = [
            self.signals.stop.as_fd(),
            self.signals.reload.as_fd(),
            self.signals.worker.as_fd(),
            self.core.punts.readiness(),
            self.admin.readiness(),
            self.mirror.readiness(),
        ]
        .map(readable);
        // A netlink socket in error is left alone until it is tried again.
        let watched = if kernel_fails { fds.len() - 1 } else { fds.len() };
        let fds = fds.get_mut(..watched).unwrap_or_default();
        match poll(fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let stop = ready.next().unwrap_or(false);
        let reload = ready.next().unwrap_or(false);
        let worker = ready.next().unwrap_or(false);
        if stop {
            return Ok(true);
        }
        if worker {
            return Err(LoopError::WorkerEnded);
        }
        if reload {
            // Several signals are one reload.
            let _ = self.signals.reload.read(&mut [0; 64]);
            (self.signals.begin_reload)();
        }
        Ok(false)
    }

    fn timeout(&mut self) -> Option<Timespec> {
        let now = clock::now().monotonic;
        let kernel = self.kernel_error_at.map(|at| at + KERNEL_RETRY);
        let due = [
            self.core.poll_timeout(),
            Some(self.resolver.poll_timeout()),
            self.core.traces.poll_timeout(),
            self.retry_at,
            kernel,
        ];
        due.into_iter().flatten().min().map(|due| clock::wait_until(due, now))
    }

    /// Puts a validated config into force, or nothing of it.
    fn apply_config(&mut self, new: Arc<Config>, now: Now) -> Result<ConfigDiff, Refusal> {
        let diff = self.config.live_diff(&new)?;
        let agents = new.agent_config();
        self.check_capacity(&new)?;
        routes::change(&self.config, &new, &mut self.setup, &self.mirror).map_err(|error| {
            Refusal::conflict(
                format!("Nothing was changed: {error}."),
                "Correct the [[route]] sections, or remove what is in their way.",
            )
        })?;
        // Addresses first: what a new agent sends, its answers find.
        self.core.installer.configure(&agents);
        self.core.input(Input::Config(agents), now);
        self.note_numbers(&new, now.monotonic);
        self.config = new;
        self.generation += 1;
        tracing::info!(
            changes = diff.changes.len(),
            generation = self.generation,
            "config applied"
        );
        Ok(diff)
    }

    /// The tables were made at the start, for the config of then.
    fn check_capacity(&self, new: &Config) -> Result<(), Refusal> {
        let (bindings, visitors) = table_sizes(new);
        let (binding_room, visitor_room) = self.core.installer.capacities();
        if bindings > binding_room || visitors > visitor_room {
            return Err(Refusal::conflict(
                format!(
                    "Nothing was changed: the tables have room for {binding_room} bindings and {visitor_room} visitors."
                ),
                "Restart the daemon for larger tables, or lower max_bindings and max_visitors.",
            ));
        }
        Ok(())
    }
}

/// How many bindings and how many visitors the agents of a config may have.
pub fn table_sizes(config: &Config) -> (usize, usize) {
    let bindings = config.home_agents.iter().map(|agent| agent.config.max_bindings);
    let visitors = config.foreign_agents.iter().map(|agent| agent.config.max_visitors);
    (bindings.fold(0, usize::saturating_add), visitors.fold(0, usize::saturating_add))
}

/// How many messages of one source prefix the agents take in a second. The RX cores
/// tell networks where nodes are from others and have let through what each may send:
/// messages of known nodes, and as many others.
pub(crate) fn messages_per_prefix(config: &Config) -> u32 {
    let limits = config.dataplane.registrations;
    let workers = u32::try_from(config.dataplane.cores.len().max(1)).unwrap_or(u32::MAX);
    limits.per_prefix.max(limits.per_known_prefix).saturating_mul(2).saturating_mul(workers)
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}

#[cfg(test)]
mod storm_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api;
    use homeport_dataplane::launch::{self, DataplaneConfig};
    use std::io::Write;
    use std::path::Path;
    use std::sync::mpsc;

    /// The loop, and the other ends of its stop, reload and worker streams.
    fn event_loop(begin_reload: impl FnMut() + Send + 'static) -> (EventLoop, [UnixStream; 3]) {
        let text = "[daemon]\nadmin_socket = \"/run/homeport/test.sock\"\n\
             [[port]]\nname = \"a\"\nbackend = \"af_packet\"\ninterface = \"a\"\n";
        let config = Config::parse(text, Path::new("test.toml")).unwrap();
        let (control, _workers) = launch::build(&DataplaneConfig::default(), Vec::new()).unwrap();
        event_loop_of(control, config, begin_reload)
    }

    /// The same, of this dataplane.
    pub(super) fn event_loop_of(
        control: Control,
        config: Config,
        begin_reload: impl FnMut() + Send + 'static,
    ) -> (EventLoop, [UnixStream; 3]) {
        let (stop, stopping) = UnixStream::pair().unwrap();
        let (reload, reloading) = UnixStream::pair().unwrap();
        let (worker, working) = UnixStream::pair().unwrap();
        let begin_reload = Box::new(begin_reload);
        let event_loop = EventLoop::new(Parts {
            control,
            config: Arc::new(config),
            seed: [0; 32],
            recorder: None,
            sessions: None,
            mirror: Mirror::new([]).unwrap(),
            resolver: Resolver::new().unwrap(),
            setup: Setup::new().unwrap(),
            claims: ClaimKeeper::default(),
            admin: api::channel().unwrap().1,
            signals: Signals { stop, reload, worker, begin_reload },
        });
        (event_loop, [stopping, reloading, working])
    }

    #[test]
    fn the_end_of_the_worker_ends_the_loop_with_an_error() {
        let (mut event_loop, [_stop, _reload, working]) = event_loop(|| {});
        drop(working);
        assert!(matches!(event_loop.run(), Err(LoopError::WorkerEnded)));
    }

    #[test]
    fn hang_ups_that_come_together_are_one_reload_and_a_stop_is_no_error() {
        let (reloads, reloaded) = mpsc::channel();
        let (mut event_loop, [mut stop, mut reload, _working]) =
            event_loop(move || reloads.send(()).unwrap());
        reload.write_all(b"XX").unwrap();
        assert!(!event_loop.wait(false).unwrap());
        stop.write_all(b"X").unwrap();
        event_loop.run().unwrap();
        assert_eq!(reloaded.try_iter().count(), 1);
    }
}
