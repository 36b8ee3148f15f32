//! Sessions in the event loop: what the state machine says of their addresses, what
//! devices on the LAN ask for, commands that are gone, and people's questions.

use std::net::Ipv4Addr;
use std::sync::Arc;

use homeport_proto::mobile_node::{Attachment, Session, SessionError};
use homeport_proto::shown::shown;
use homeport_proto::{Instant, MacAddress, Now};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Program;
use crate::admin::api::{Answer, Outcome, Query, Refusal, RefusalKind};
use crate::admin::sessions::{AddSession, CommandEnd, RemoveSession, SessionView};
use crate::clock;
use crate::kernel::KernelError;
use crate::mobile::dhcp_server::SessionWish;
use crate::mobile::host::{self, Place};
use crate::mobile::lan::Lan;
use crate::mobile::sessions::{Command, Owner};

/// The LAN and its devices.
impl Program {
    /// Makes the kernel serve the LAN, if there is one.
    pub(super) fn open_lan(&mut self, now: Instant) -> Result<(), KernelError> {
        let Some(lan) = &mut self.lan else { return Ok(()) };
        let came_up = lan.look(now)?;
        let interface = lan.config().interface.clone();
        self.host.keep_dhcp(&interface)?;
        self.host.forward_sessions()?;
        self.serve_lan(came_up)
    }

    /// Something happened to the LAN's interface.
    pub(super) fn lan_link(&mut self, now: Instant) -> Result<(), KernelError> {
        let Some(lan) = &mut self.lan else { return Ok(()) };
        let came_up = lan.handle_link(now)?;
        self.serve_lan(came_up)
    }

    fn serve_lan(&mut self, came_up: Option<u32>) -> Result<(), KernelError> {
        let (Some(index), Some(lan)) = (came_up, &self.lan) else { return Ok(()) };
        self.host.serve_devices_on(&lan.config().interface)?;
        let placed = self.host.place_again(index);
        self.note(placed);
        Ok(())
    }

    pub(super) fn do_lan(&mut self, wish: SessionWish) {
        let now = clock::now();
        match wish {
            SessionWish::Start { sub_nai, wanted } => {
                let begun = self.begin(&sub_nai, wanted, Owner::Device, now);
                if let (Err(error), Some(lan)) = (begun, &mut self.lan) {
                    tracing::warn!(
                        session = shown(&sub_nai),
                        "a device's session cannot begin: {error}"
                    );
                    lan.handle_refusal(&sub_nai, now.monotonic);
                }
            }
            SessionWish::End { sub_nai } => drop(self.end(&sub_nai, now)),
        }
    }
}

/// What the state machine says.
impl Program {
    pub(super) fn use_session(&mut self, name: &Arc<[u8]>, address: Ipv4Addr) {
        let now = clock::now().monotonic;
        self.report.count("sessions_used");
        tracing::info!(session = shown(name), %address, "the session has a home address");
        let place = match (self.sessions.get(name), &mut self.lan) {
            (Some(Owner::Device), Some(lan)) => lan.handle_address(name, address, now),
            (Some(Owner::Command(command)), _) => {
                Some(Place::Station { index: command.index, mac: command.mac })
            }
            (Some(Owner::Local), _) => Some(Place::Here),
            _ => None,
        };
        let Some(place) = place else { return };
        self.tunnel.add_session(address);
        let placed = self.host.place(address, place);
        self.note(placed);
        if place == Place::Here {
            self.forward();
        }
    }

    pub(super) fn lose_session(&mut self, name: &Arc<[u8]>, address: Option<Ipv4Addr>) {
        self.report.count("sessions_lost");
        tracing::info!(session = shown(name), ?address, "the session has no home address any more");
        if let (Some(Owner::Device), Some(lan)) = (self.sessions.get(name), &mut self.lan) {
            lan.handle_loss(name);
        }
        let Some(address) = address else { return };
        if let Some(lan) = &mut self.lan {
            lan.forget_address(address);
        }
        self.tunnel.remove_session(address);
        let was_here = self.host.local_sessions().any(|local| local == address);
        let displaced = self.host.displace(address);
        self.note(displaced);
        if was_here {
            self.forward();
        }
    }

    /// At home the kernel answers ARP for sessions.
    pub(super) fn answer_for_sessions(&mut self) {
        let at_home = matches!(self.attachment, Attachment::Home { .. });
        let answering = self.host.set_at_home(at_home);
        self.note(answering);
    }

    /// Replies to sessions are heard by this program only.
    pub(super) fn keep_replies(&mut self) {
        if self.config.node.nai.is_some() {
            let kept = self.host.keep_replies(self.port);
            self.note(kept);
        }
    }

    fn note(&self, result: Result<(), KernelError>) {
        if let Err(error) = result {
            tracing::error!("{error}");
        }
    }

    fn begin(
        &mut self,
        name: &[u8],
        wanted: Option<Ipv4Addr>,
        owner: Owner,
        now: Now,
    ) -> Result<(), SessionError> {
        if let Err(error) = self.node.add_session(name, wanted, now) {
            self.report.count("sessions_refused");
            return Err(error);
        }
        self.sessions.insert(name.into(), owner);
        Ok(())
    }

    /// Ends a session; who had it, if anybody.
    fn end(&mut self, name: &[u8], now: Now) -> Option<Owner> {
        let owner = self.sessions.remove(name);
        self.node.remove_session(name, now);
        if let Some(Owner::Command(command)) = &owner {
            let removed = self.host.remove_link(command.index);
            self.note(removed);
        }
        owner
    }
}

/// Commands, and people.
impl Program {
    /// Ends the sessions of commands whose process is gone.
    pub(super) fn end_commands(&mut self, now: Now) {
        let gone = |command: &Command| {
            let mut fds = [PollFd::new(&command.process, PollFlags::IN)];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
        };
        let commands = self.sessions.commands();
        let gone: Vec<Arc<[u8]>> =
            commands.filter(|(_, command)| gone(command)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.report.count("commands_gone");
            tracing::info!(session = shown(&name), "the command's process is gone");
            self.end(&name, now);
        }
    }

    /// The answer to what is asked about sessions; `None` when something else is asked.
    pub(super) fn answer_about_sessions(&mut self, query: &Query, now: Now) -> Option<Outcome> {
        match query {
            Query::Sessions(_) => Some(Ok(self.session_views(now))),
            Query::AddSession(add) => Some(self.add_session(add, now)),
            Query::RemoveSession(remove) => Some(self.remove_session(remove, now)),
            Query::RemoveAllSessions => Some(self.remove_all_sessions(now)),
            _ => None,
        }
    }

    fn add_session(&mut self, add: &AddSession, now: Now) -> Outcome {
        let name = add.name.as_bytes();
        if self.sessions.get(name).is_some() {
            return Err(refused(SessionError::Duplicate));
        }
        let owner = match &add.command {
            None => Owner::Local,
            Some(end) => Owner::Command(self.command(end)?),
        };
        self.begin(name, add.wanted, owner, now).map_err(refused)?;
        self.view_of(name, now)
    }

    /// Makes the kernel serve a command's end of its veth pair.
    fn command(&mut self, end: &CommandEnd) -> Result<Command, Refusal> {
        let bad = |error: String, hint: &str| Refusal::new(RefusalKind::BadRequest, error, hint);
        let interface = end.interface.clone();
        let lan = self.lan.as_ref().map(|lan| lan.config().interface.as_str());
        let others = [Some(self.config.interface.as_str()), Some(&self.config.tunnel), lan];
        if others.contains(&Some(&interface)) {
            let hint = "Give the command an interface of its own.";
            return Err(bad(format!("{interface} has another use."), hint));
        }
        let index = host::index_of(&interface).ok_or_else(|| {
            let hint = "Run the command in the network namespace of the mobile node.";
            bad(format!("There is no interface {interface} where the mobile node is."), hint)
        })?;
        let mac: MacAddress = end.mac.parse().map_err(|_| {
            bad("This is no link-layer address.".into(), "Write it as in 02:00:00:00:00:01.")
        })?;
        let process = i32::try_from(end.pid).ok().and_then(Pid::from_raw);
        let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok());
        let process = process.ok_or_else(|| {
            let hint = "Run the command where the mobile node sees its processes.";
            bad(format!("There is no process {}.", end.pid), hint)
        })?;
        let served = self.host.forward_sessions();
        served.and_then(|()| self.host.serve_command_on(&interface)).map_err(|error| {
            Refusal::internal(format!("The kernel refused: {error}."), "See the log.")
        })?;
        Ok(Command { interface, index, mac, process })
    }

    fn remove_session(&mut self, remove: &RemoveSession, now: Now) -> Outcome {
        let name = self.sessions.find(&remove.name).ok_or_else(|| {
            let error = format!("There is no session \"{}\".", shown(remove.name.as_bytes()));
            Refusal::not_found(error, "See `homeport-mn session list`.")
        })?;
        let view = self.view_of(&name, now)?;
        if let (Some(Owner::Device), Some(lan)) = (self.end(&name, now), &mut self.lan) {
            lan.handle_end(&name, now.monotonic);
        }
        Ok(view)
    }

    fn remove_all_sessions(&mut self, now: Now) -> Outcome {
        let views = self.session_views(now);
        self.node.remove_all_sessions(now).map_err(refused)?;
        tracing::warn!("all sessions of the NAI end, those of other nodes too");
        for name in self.sessions.names() {
            if let (Some(Owner::Device), Some(lan)) = (self.end(&name, now), &mut self.lan) {
                lan.handle_end(&name, now.monotonic);
            }
        }
        Ok(views)
    }

    fn session_views(&self, now: Now) -> Answer {
        let view = |session: &Session| self.session_view(session, now.monotonic);
        Answer::OwnSessions { sessions: self.node.sessions().map(view).collect() }
    }

    fn view_of(&self, name: &[u8], now: Now) -> Outcome {
        let session = self.node.session(name).ok_or_else(|| {
            Refusal::not_found("There is no such session.", "See `homeport-mn session list`.")
        })?;
        Ok(Answer::Session(Box::new(self.session_view(session, now.monotonic))))
    }

    fn session_view(&self, session: &Session, now: Instant) -> SessionView {
        let name = session.sub_nai();
        let owner = self.sessions.get(name).unwrap_or(&Owner::Local);
        let left = |at: Instant| at.saturating_since(now).as_secs();
        let lease = self.lan.as_ref().and_then(|lan| lan.lease(name));
        let (interface, mac) = match owner {
            Owner::Device => {
                let interface = self.lan.as_ref().map(|lan: &Lan| lan.config().interface.clone());
                (interface, lease.map(|lease| lease.mac))
            }
            Owner::Command(command) => (Some(command.interface.clone()), Some(command.mac)),
            Owner::Local => (Some(self.config.tunnel.clone()), None),
        };
        let home_address = session.home_address();
        let traffic = home_address.map(|address| self.tunnel.traffic(address)).unwrap_or_default();
        SessionView {
            name: shown(name),
            kind: owner.kind(),
            state: session.phase().name().to_owned(),
            home_address,
            care_of_address: session.care_of_address().filter(|it| Some(*it) != home_address),
            interface,
            mac: mac.map(|mac| mac.to_string()),
            lease_seconds: lease.and_then(|lease| lease.expires_at).map(left),
            remaining_seconds: session.expires_at().map(left),
            tunnel_sent_packets: traffic.sent_packets,
            tunnel_sent_bytes: traffic.sent_bytes,
            tunnel_received_packets: traffic.received_packets,
            tunnel_received_bytes: traffic.received_bytes,
            last_code: session.last_denial().map(|code| code.0),
            last_code_text: session.last_denial().map(|code| code.text().to_owned()),
        }
    }
}

fn refused(error: SessionError) -> Refusal {
    let hint = match error {
        SessionError::NoNai => "Add nai = \"…\" to [mobile_node] of its config.",
        SessionError::NameLength => "Use a shorter name.",
        SessionError::Duplicate => "Use another name, or end that session first.",
        SessionError::TooMany => "End one that is not needed.",
        SessionError::Stopping => "Start the mobile node again.",
    };
    Refusal::conflict(format!("The session cannot begin: {error}."), hint)
}
