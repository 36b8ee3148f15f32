//! `homeport-mn run`: a command in a network namespace of its own, whose only way out is a
//! session of the mobile node.
//!
//! This process stays outside: it starts itself again as the command-to-be ([`inside`]),
//! which enters a new namespace and waits; makes a veth pair into it; begins the session;
//! and says when there is an address. Then the command-to-be becomes the command. The
//! session ends with the command, and also when this process ends: the mobile node watches
//! it, and the kernel kills the command.
//!
//! When the mobile node is started anew, the session is begun again with the same address.
//!
//! **Not done:** what the command has started in the background and left behind loses its
//! way out, but is not ended. Name servers on this host, at 127.0.0.0/8, cannot be reached
//! from inside; this is said once.

pub mod inside;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use homeport_proto::MacAddress;
use homeport_proto::shown::shown;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::veth;
use crate::admin::client::{Client, ClientError};
use crate::admin::sessions::{AddSession, CommandEnd, SessionView};
use crate::clock;

/// The exit code when the command could not be started; its own are told as they are.
pub const FAILED: u8 = 125;

/// How long nothing is said while there is no address.
const SILENCE: Duration = Duration::from_secs(2);

/// How often the mobile node is asked for the address; less often after [`SILENCE`].
const PAUSE: Duration = Duration::from_millis(20);
const LONG_PAUSE: Duration = Duration::from_millis(200);

/// How often it is looked at while the command runs.
const LOOK: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// What to run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The mobile node's admin socket.
    pub socket: PathBuf,
    /// The session's name.
    pub session: String,
    /// The address to ask for.
    pub wanted: Option<Ipv4Addr>,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// Runs the command, and gives its exit code.
///
/// # Errors
/// What kept it from running.
pub fn run(run: &Run) -> Result<u8> {
    let signals = Signals::new().context("listening to signals")?;
    let client = Client::new(&run.socket);
    let home = own_address(&client)?;
    warn_of_local_resolver();
    let mut running = Running::start(run, home)?;
    let ended = running.begin(&client, run, &signals).and_then(|(address, home)| {
        running.let_go(address, home)?;
        running.wait(&client, run, address, &signals)
    });
    // What another has begun under this name is none of ours.
    if running.begun {
        let name = json!({ "name": shown(run.session.as_bytes()) });
        let removed = client.post("/v1/sessions/remove", &name);
        if let (Ok(_), Err(error @ ClientError::Unreachable { .. })) = (&ended, removed) {
            say(&format!("the session could not be ended: {error}"));
        }
    }
    ended
}

/// The command-to-be, and how it is reached.
struct Running {
    child: Child,
    wire: BufReader<UnixStream>,
    interface: String,
    mac: MacAddress,
    /// The mobile node's home address, which is the command's router; `None` before there
    /// is one.
    home: Option<Ipv4Addr>,
    /// The mobile node's process that the session was begun at last.
    daemon: Option<u64>,
    /// Whether the session has begun.
    begun: bool,
    /// Why it could not be begun again, as it was said.
    refused: String,
    /// The other address that the session was said to have.
    said: Option<Ipv4Addr>,
}

impl Running {
    /// The command-to-be in its namespace, with a veth pair into it.
    fn start(run: &Run, home: Option<Ipv4Addr>) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("making a socket pair")?;
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).context("passing a descriptor on")?;
        let ourselves = std::env::current_exe().context("finding this program")?;
        let child = Command::new(ourselves)
            .arg("inside")
            .arg(theirs.as_raw_fd().to_string())
            .arg("--")
            .args(&run.command)
            .spawn()
            .context("starting this program again")?;
        drop(theirs);
        let interface = format!("hp-{}", std::process::id());
        let mac = random_mac()?;
        let mut running = Running {
            child,
            wire: BufReader::new(ours),
            interface,
            mac,
            home,
            daemon: None,
            begun: false,
            refused: String::new(),
            said: None,
        };
        let mut word = String::new();
        running.wire.read_line(&mut word).context("waiting for the network namespace")?;
        if word.trim_end() != inside::READY {
            let _ = running.child.wait();
            bail!("{}", if word.is_empty() { "the command-to-be ended" } else { word.trim_end() });
        }
        veth::create(&running.interface, inside::INTERFACE, mac, running.child.id())?;
        Ok(running)
    }

    /// Begins the session, and waits for its address and for that of the mobile node.
    fn begin(
        &mut self,
        client: &Client,
        run: &Run,
        signals: &Signals,
    ) -> Result<(Ipv4Addr, Ipv4Addr)> {
        self.daemon = daemon(client);
        self.add(client, run, run.wanted)?;
        self.begun = true;
        let start = Instant::now();
        let mut said = String::new();
        loop {
            let why = match find(client, &run.session) {
                Ok(Some(SessionView { home_address: Some(address), .. })) => {
                    if self.home.is_none() {
                        self.home = own_address(client)?;
                    }
                    match self.home {
                        Some(home) => return Ok((address, home)),
                        None => "the mobile node itself has none yet".into(),
                    }
                }
                Ok(Some(view)) => match (view.last_code, &view.last_code_text) {
                    (Some(code), Some(text)) => format!("{} (code {code}, {text})", view.state),
                    _ => view.state,
                },
                Ok(None) => {
                    let daemon = daemon(client);
                    if daemon.is_some() && daemon == self.daemon {
                        bail!("the session was ended by somebody else");
                    }
                    self.begin_again(client, run, run.wanted, daemon);
                    String::new()
                }
                // It may be started anew.
                Err(error) if is_unreachable(&error) => format!("{error:#}"),
                Err(error) => return Err(error),
            };
            if start.elapsed() > SILENCE && why != said {
                let name = shown(run.session.as_bytes());
                say(&format!("waiting for an address for {name}: {why}"));
                said = why;
            }
            if let Some(signal) = signals.taken() {
                bail!("ended by {signal} before there was an address");
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("what was to become the command ended ({status})");
            }
            let long = start.elapsed() > SILENCE;
            std::thread::sleep(if long { LONG_PAUSE } else { PAUSE });
        }
    }

    fn add(&self, client: &Client, run: &Run, wanted: Option<Ipv4Addr>) -> Result<()> {
        let add = AddSession {
            name: run.session.clone(),
            wanted,
            command: Some(CommandEnd {
                interface: self.interface.clone(),
                mac: self.mac.to_string(),
                pid: std::process::id(),
            }),
        };
        client.post("/v1/sessions", &serde_json::to_value(add)?).map_err(told)?;
        Ok(())
    }

    /// The command-to-be gets its address, and becomes the command.
    fn let_go(&mut self, address: Ipv4Addr, home: Ipv4Addr) -> Result<()> {
        let line = format!("{address} {home}\n");
        self.wire.get_mut().write_all(line.as_bytes()).context("starting the command")?;
        // It closes the wire when it becomes the command; else it says what went wrong.
        let mut error = String::new();
        self.wire.read_line(&mut error).context("starting the command")?;
        if error.is_empty() {
            return Ok(());
        }
        let _ = self.child.wait();
        Err(anyhow!("{}", error.trim_end()))
    }

    /// Waits for the end of the command; keeps the session while the mobile node is
    /// started anew.
    fn wait(
        &mut self,
        client: &Client,
        run: &Run,
        address: Ipv4Addr,
        signals: &Signals,
    ) -> Result<u8> {
        let pid = Pid::from_child(&self.child);
        let process = pidfd_open(pid, PidfdFlags::empty()).context("watching the command")?;
        loop {
            let mut fds =
                [PollFd::new(&process, PollFlags::IN), PollFd::new(&signals.wake, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&LOOK));
            if let Some(status) = self.child.try_wait()? {
                let code = status.code().or_else(|| Some(128 + status.signal()?));
                return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED));
            }
            if let Some(signal) = signals.to_pass_on() {
                let _ = kill_process(pid, signal);
            }
            let daemon = daemon(client);
            if daemon.is_some() && daemon != self.daemon {
                self.begin_again(client, run, Some(address), daemon);
            }
            self.check(client, run, address);
        }
    }

    /// Another mobile node's process answers: begins the session again, which is tried
    /// until it is done.
    fn begin_again(
        &mut self,
        client: &Client,
        run: &Run,
        wanted: Option<Ipv4Addr>,
        daemon: Option<u64>,
    ) {
        match self.add(client, run, wanted) {
            Ok(()) => {
                say("the mobile node was started anew; the session is begun again");
                self.daemon = daemon;
            }
            Err(error) if is_unreachable(&error) => {}
            Err(error) => {
                let why = format!("{error:#}");
                if why != self.refused {
                    say(&format!("the session cannot be begun again: {why}"));
                    self.refused = why;
                }
            }
        }
    }

    /// Says once when the session has another address than the command.
    fn check(&mut self, client: &Client, run: &Run, address: Ipv4Addr) {
        let view = find(client, &run.session).ok().flatten();
        let Some(now) = view.and_then(|view| view.home_address) else { return };
        if now != address && self.said != Some(now) {
            say(&format!("the home agent gives the session {now} now, and no longer {address}"));
            self.said = Some(now);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Signals to this process: those of a terminal come to the command by themselves, others
/// are passed on.
struct Signals {
    wake: UnixStream,
    flags: Vec<(Signal, Arc<AtomicBool>)>,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        let mut flags = Vec::new();
        let all = [
            (SIGTERM, Signal::TERM),
            (SIGHUP, Signal::HUP),
            (SIGINT, Signal::INT),
            (SIGQUIT, Signal::QUIT),
        ];
        for (number, signal) in all {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(number, Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(number, write.try_clone()?)?;
            flags.push((signal, flag));
        }
        Ok(Signals { wake, flags })
    }

    /// A signal that has come, which is then taken.
    fn taken(&self) -> Option<&'static str> {
        let (signal, _) =
            self.flags.iter().find(|(_, flag)| flag.swap(false, Ordering::Relaxed))?;
        Some(match *signal {
            Signal::TERM => "SIGTERM",
            Signal::HUP => "SIGHUP",
            Signal::QUIT => "SIGQUIT",
            _ => "SIGINT",
        })
    }

    /// The same, if the command has not got it by itself.
    fn to_pass_on(&self) -> Option<Signal> {
        let mut bytes = [0; 16];
        let _ = (&self.wake).read(&mut bytes);
        let taken = self.flags.iter().filter(|(_, flag)| flag.swap(false, Ordering::Relaxed));
        let all: Vec<Signal> = taken.map(|(signal, _)| *signal).collect();
        all.into_iter().find(|signal| [Signal::TERM, Signal::HUP].contains(signal))
    }
}

/// The session of this name.
///
/// # Errors
/// The mobile node's.
pub fn find(client: &Client, name: &str) -> Result<Option<SessionView>> {
    let mut answer = client.get("/v1/sessions").map_err(told)?;
    let all = answer.get_mut("sessions").map(Value::take).unwrap_or_default();
    let all: Vec<SessionView> = serde_json::from_value(all).context("reading the sessions")?;
    Ok(all.into_iter().find(|view| view.name == shown(name.as_bytes())))
}

/// What the mobile node said, with what to do about it.
pub fn told(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Refused(refusal) => anyhow!("{} {}", refusal.error, refusal.hint),
        other => anyhow::Error::new(other),
    }
}

fn is_unreachable(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::Unreachable { .. }))
}

/// The process number of the mobile node; `None` when it does not answer.
fn daemon(client: &Client) -> Option<u64> {
    client.get("/v1/status").ok()?.get("pid")?.as_u64()
}

/// The mobile node's own home address, if it has one yet.
fn own_address(client: &Client) -> Result<Option<Ipv4Addr>> {
    let answer = client.get("/v1/mobile-node")?;
    let address = match answer.get("home_address") {
        Some(Value::Null) => Some(None),
        Some(Value::String(text)) => text.parse().ok().map(Some),
        _ => None,
    };
    address.ok_or_else(|| anyhow!("what answers on the socket is no mobile node"))
}

fn random_mac() -> Result<MacAddress> {
    let [a, b, c, d, e, ..] = clock::seed().context("drawing a link-layer address")?;
    // Locally administered, and one station's.
    Ok(MacAddress([0x02, a, b, c, d, e]))
}

fn warn_of_local_resolver() {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let local = servers.map(str::trim).find(|server| server.starts_with("127."));
    if let Some(server) = local {
        say(&format!(
            "the name server {server} of /etc/resolv.conf is on this host, and the command cannot \
             reach it"
        ));
    }
}

fn say(text: &str) {
    eprintln!("homeport-mn: {text}");
}
