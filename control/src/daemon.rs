//! `homeportd`, put together: ports, dataplane, kernel, agents, admin server; and
//! taken apart again in the opposite order.

mod dpdk;
mod notify;
mod ports;

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use homeport_dataplane::launch::{self, DataplaneConfig, PollMode, SteeringMode};
use homeport_dataplane::table::memory::Pages;
use homeport_dataplane::worker::Worker;
use homeport_proto::config::HomeAgentConfig;
use rustix::thread::{CapabilitySet, CpuSet, capabilities, sched_setaffinity};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use self::dpdk::Dpdk;
use crate::admin::api::{self, AdminSender, Answer, Identity, Query};
use crate::admin::server::AdminServer;
use crate::clock;
use crate::config::{self, Config};
use crate::event_loop::{EventLoop, Parts, Signals, table_sizes};
use crate::install::ClaimKeeper;
use crate::journal::Recorder;
use crate::kernel::{Mirror, Resolver, Setup};
use crate::session_store::SessionStore;

/// Where the journal goes.
#[derive(Clone, Debug)]
pub struct RecordTo {
    /// The folder.
    pub folder: PathBuf,
    /// Its limit, in bytes.
    pub limit: u64,
}

impl RecordTo {
    fn open(&self) -> Result<Recorder> {
        let recorder = Recorder::open(&self.folder, self.limit).context("--record")?;
        tracing::info!(folder = %self.folder.display(), "recording every input of the agents");
        Ok(recorder)
    }
}

/// Runs homeportd with this config until SIGTERM or SIGINT, and keeps a journal if it
/// is told where. `ready` is called once packets are forwarded and registrations
/// answered.
///
/// # Errors
/// What kept it from starting, with the key of the config that names it; or why
/// it could not go on. Everything that it had made is taken away before.
pub fn run(config: Config, record: Option<&RecordTo>, ready: impl FnOnce(&Config)) -> Result<()> {
    check_privileges()?;
    // Before any other thread is there: they all keep off the workers' cores.
    if !config.dataplane.cores.is_empty() {
        place_control_core(&config);
    }
    // Before any packet: what is recorded begins with the first.
    let recorder = record.map(RecordTo::open).transpose()?;
    let sessions = config.daemon.state_dir.as_deref().map(SessionStore::open).transpose()?;
    let forgets = |agent: &config::Named<HomeAgentConfig>| {
        sessions.is_none() && !agent.config.sessions.pools.is_empty()
    };
    if config.home_agents.iter().any(forgets) {
        tracing::warn!(
            "which address is whose session's is forgotten at a restart: set state_dir in [daemon]"
        );
    }
    let config = Arc::new(config);
    // Signals first: from here on a SIGTERM takes everything away again.
    let (stop, stopping) = UnixStream::pair()?;
    let (reload, reloading) = UnixStream::pair()?;
    reload.set_nonblocking(true)?;
    pipe::register(SIGTERM, stopping.try_clone()?)?;
    pipe::register(SIGINT, stopping)?;
    pipe::register(SIGHUP, reloading)?;

    let ports::Ports { setups, guards, dpdk, claims, shared } = ports::open(&config)?;
    let (control, workers) = launch::build(&dataplane_config(&config, hash_seed()?), setups)
        .context("making the dataplane")?;
    tell_pages(control.bindings.pages());
    for (shared, port) in control.ports.iter().zip(&config.ports) {
        shared.set_address(port.addresses.first().map(|at| at.address));
    }
    let macs: Vec<_> = control.ports.iter().map(|port| port.mac).collect();
    let mut setup = Setup::new()?;
    ports::configure_twins(&config, &macs, &shared, &mut setup)?;
    let claims = claims.map_or_else(ClaimKeeper::default, |claims| {
        let most = usize::try_from(config.dataplane.exact_claims).unwrap_or(usize::MAX);
        ClaimKeeper::new(claims, most, &config.napts)
    });
    let twins = config.ports.iter().map(|port| (port.kernel_interface.clone(), port.id));
    let mirror = Mirror::new(twins).context("reading the kernel's routes")?;

    let (sender, admin) = api::channel().context("making the admin channel")?;
    let socket = &config.daemon.admin_socket;
    let server = AdminServer::start(sender.clone(), socket, config.daemon.metrics)
        .context("[daemon] admin_socket or metrics")?;
    let (threads, worker_ended) = WorkerThreads::spawn(workers, dpdk)?;
    // A worker that is not pinned may run anywhere.
    if config.dataplane.cores.is_empty() {
        place_control_core(&config);
    }
    let signals = Signals {
        stop,
        reload,
        worker: worker_ended,
        begin_reload: Box::new(reloader(config.path.clone(), sender)),
    };
    let mut event_loop = EventLoop::new(Parts {
        control,
        config: Arc::clone(&config),
        seed: clock::seed().context("drawing a random seed")?,
        recorder,
        sessions,
        mirror,
        resolver: Resolver::new()?,
        setup,
        claims,
        admin,
        signals,
    });
    ready(&config);
    notify::notify("READY=1");
    let ended = event_loop.run();
    notify::notify("STOPPING=1");
    tracing::info!("stopping");

    // The socket first, so that nobody asks what is going; then the workers, with
    // whose ports the twins vanish; the shields last, when no port needs them.
    drop(server);
    let workers = threads.stop();
    drop(event_loop);
    drop(guards);
    workers.and(ended.map_err(Into::into))
}

/// Says what pages the tables lie on: look-ups in a big one cost a fifth to almost a
/// half more on small ones.
fn tell_pages(pages: Pages) {
    if pages == Pages::Small {
        tracing::warn!(
            "the tables lie on small pages, which makes look-ups slower: reserve huge ones by \
             vm.nr_hugepages, or write madvise to /sys/kernel/mm/transparent_hugepage/enabled"
        );
    } else {
        tracing::info!(pages = pages.name(), "the tables lie on huge pages");
    }
}

/// The workers, each on a thread of its own.
struct WorkerThreads {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl WorkerThreads {
    /// Starts them. The stream ends when the first of the threads does, however it
    /// does.
    fn spawn(workers: Vec<Worker>, dpdk: Dpdk) -> Result<(Self, UnixStream)> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, running) = UnixStream::pair()?;
        running.shutdown(Shutdown::Read)?;
        let mut all = WorkerThreads { threads: Vec::new(), stop };
        for (number, worker) in workers.into_iter().enumerate() {
            let running = Running(running.try_clone()?);
            let stop = Arc::clone(&all.stop);
            let run = move || {
                let _running = running;
                dpdk.register_thread();
                worker.run(&stop);
            };
            let thread = thread::Builder::new().name(format!("rx-{number}")).spawn(run);
            match thread {
                Ok(thread) => all.threads.push(thread),
                Err(error) => {
                    all.stop()?;
                    return Err(error).context("starting a worker's thread");
                }
            }
        }
        Ok((all, ended))
    }

    /// Ends them all.
    ///
    /// # Errors
    /// Says which one panicked, the first if several did.
    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut result = Ok(());
        for (number, thread) in self.threads.into_iter().enumerate() {
            let ended = thread.join().map_err(|panic| {
                let message = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                anyhow!("the worker thread rx-{number} panicked: {message}")
            });
            result = result.and(ended);
        }
        result
    }
}

/// Ends the stream that it is an end of when it is dropped, whoever else has one.
struct Running(UnixStream);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Reads the config file anew on a thread of its own and hands it to the event
/// loop as an operator's command. A file that is wrong changes nothing.
fn reloader(path: PathBuf, sender: AdminSender) -> impl FnMut() + Send {
    move || {
        let (path, sender) = (path.clone(), sender.clone());
        let reload = move || match Config::load(&path) {
            Err(errors) => {
                tracing::error!("the config stays as it is, as the file is wrong:\n{errors}");
            }
            Ok(config) => {
                let apply = Query::ConfigApply(Arc::new(config));
                let outcome = sender
                    .submit(apply, Identity::Operator)
                    .and_then(api::PendingAnswer::wait_blocking);
                match outcome {
                    Ok(Answer::ConfigApplied(diff)) => {
                        for change in &diff.changes {
                            tracing::info!(path = change.path, old = %change.old, new = %change.new, "changed");
                        }
                    }
                    Ok(_) => {}
                    Err(refusal) => tracing::error!("{refusal} {}", refusal.hint),
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("reload".into()).spawn(reload) {
            tracing::error!(%error, "the config was not read anew");
        }
    }
}

/// Keeps the calling thread, and those that it makes, to the control core's CPUs.
fn place_control_core(config: &Config) {
    let cores = &config.dataplane.control_cores;
    if cores.is_empty() {
        return;
    }
    let mut set = CpuSet::new();
    // The config has no number beyond the set.
    cores.iter().for_each(|core| set.set(*core));
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::warn!(?cores, %error, "the control core is not pinned");
    }
}

/// Without these nothing works; to say so at once saves a riddle.
fn check_privileges() -> Result<()> {
    let effective = capabilities(None).context("reading the process's capabilities")?.effective;
    for (capability, name) in
        [(CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::NET_RAW, "CAP_NET_RAW")]
    {
        if !effective.contains(capability) {
            bail!(
                "homeportd needs {name}: run it as root, or as a service with \
                 AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW"
            );
        }
    }
    Ok(())
}

/// What the dataplane is told.
pub(crate) fn dataplane_config(config: &Config, hash_seed: [u64; 2]) -> DataplaneConfig {
    let cores = match config.dataplane.cores.as_slice() {
        [] => vec![None],
        cores => cores.iter().copied().map(Some).collect(),
    };
    let (bindings, visitors) = table_sizes(config);
    let defaults = DataplaneConfig::default();
    DataplaneConfig {
        poll: match config.dataplane.poll {
            config::PollMode::Adaptive => PollMode::Adaptive,
            config::PollMode::Busy => PollMode::Busy,
        },
        cores,
        steering: match config.dataplane.steering {
            config::SteeringName::Auto => SteeringMode::Auto,
            config::SteeringName::Off => SteeringMode::Off,
            config::SteeringName::Inner => SteeringMode::Inner,
        },
        buffers: config.dataplane.buffers,
        registrations: config.dataplane.registrations,
        hash_seed,
        bindings: bindings.max(defaults.bindings),
        visitors: visitors.max(defaults.visitors),
        napts: config.napts.clone(),
        ..defaults
    }
}

fn hash_seed() -> Result<[u64; 2]> {
    let seed = clock::seed().context("drawing a random seed")?;
    let (words, _) = seed.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_ne_bytes(*word));
    Ok([words.next().unwrap_or_default(), words.next().unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_dataplane::packet::{Burst, PacketPool};
    use homeport_dataplane::port::Port;
    use homeport_proto::{MacAddress, TenantId};
    use std::io::Read;
    use std::time::Duration;

    /// A port whose driver is broken.
    struct Broken;

    impl Port for Broken {
        fn name(&self) -> &str {
            "broken"
        }

        fn mac(&self) -> MacAddress {
            MacAddress([2, 0, 0, 0, 0, 1])
        }

        fn mtu(&self) -> u16 {
            1500
        }

        fn rx_burst(&mut self, _: &mut PacketPool, _: &mut Burst) {
            panic!("the driver is broken");
        }

        fn tx_burst(&mut self, _: &mut PacketPool, _: &mut Burst) -> usize {
            0
        }
    }

    /// So many workers, the last of which has a port that is broken, if one is.
    fn workers(count: usize, broken: bool) -> Vec<Worker> {
        let setup = launch::PortSetup {
            name: "broken".into(),
            tenant: TenantId(0),
            queues: vec![Box::new(Broken)],
            twin: None,
        };
        let ports = if broken { vec![setup] } else { Vec::new() };
        let worker = |ports| launch::build(&DataplaneConfig::default(), ports).unwrap().1;
        let mut workers: Vec<Worker> = (1..count).flat_map(|_| worker(Vec::new())).collect();
        workers.extend(worker(ports));
        workers
    }

    fn dpdk() -> Dpdk {
        let text = "[daemon]\nadmin_socket = \"/run/homeport/test.sock\"\n\
             [[port]]\nname = \"a\"\nbackend = \"af_packet\"\ninterface = \"a\"\n";
        Dpdk::start(&Config::parse(text, std::path::Path::new("test.toml")).unwrap()).unwrap()
    }

    #[test]
    fn a_worker_that_panics_is_noticed_and_named() {
        for count in [1, 3] {
            let (threads, mut ended) = WorkerThreads::spawn(workers(count, true), dpdk()).unwrap();
            ended.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert_eq!(ended.read(&mut [0; 1]).unwrap(), 0);
            let error = threads.stop().unwrap_err();
            let name = format!("rx-{}", count - 1);
            assert_eq!(
                error.to_string(),
                format!("the worker thread {name} panicked: the driver is broken")
            );
        }
    }

    #[test]
    fn workers_run_until_they_are_stopped() {
        let (threads, mut ended) = WorkerThreads::spawn(workers(2, false), dpdk()).unwrap();
        ended.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(ended.read(&mut [0; 1]).is_err());
        threads.stop().unwrap();
        assert_eq!(ended.read(&mut [0; 1]).unwrap(), 0);
    }
}
