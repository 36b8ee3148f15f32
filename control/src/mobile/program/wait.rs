//! What the event loop waits for.

use std::io;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Program;
use crate::clock;
use crate::mobile::lan::Lan;

/// What poll(2) said is ready.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready {
    pub(super) signals: bool,
    pub(super) watch: bool,
    pub(super) admin: bool,
    pub(super) tun: bool,
    pub(super) packets: bool,
    pub(super) registration: bool,
    pub(super) tunnel: bool,
    pub(super) lan_link: bool,
    pub(super) lan: bool,
    pub(super) command: bool,
}

/// Whose descriptor poll(2) looks at.
#[derive(Clone, Copy, Debug)]
enum Source {
    Signals,
    Watch,
    Admin,
    Tun,
    Packets,
    Registration,
    Tunnel,
    LanLink,
    Lan,
    Command,
}

impl Ready {
    const fn note(&mut self, source: Source) {
        match source {
            Source::Signals => self.signals = true,
            Source::Watch => self.watch = true,
            Source::Admin => self.admin = true,
            Source::Tun => self.tun = true,
            Source::Packets => self.packets = true,
            Source::Registration => self.registration = true,
            Source::Tunnel => self.tunnel = true,
            Source::LanLink => self.lan_link = true,
            Source::Lan => self.lan = true,
            Source::Command => self.command = true,
        }
    }
}

impl Program {
    /// Waits until something is ready, or a deadline has come.
    pub(super) fn wait(&self) -> Result<Ready> {
        let now = clock::now().monotonic;
        let dhcp = self.link.as_ref().and_then(|link| link.dhcp.poll_timeout());
        let lan = self.lan.as_ref().and_then(Lan::poll_timeout);
        let deadlines = [self.node.poll_timeout(), self.tunnel.poll_timeout(), dhcp, lan];
        let deadline = deadlines.into_iter().flatten().min();
        let timeout: Option<Timespec> = deadline.map(|at| clock::wait_until(at, now));
        let mut sources = vec![
            (Source::Signals, self.signals.as_fd()),
            (Source::Watch, self.watch.readiness()),
            (Source::Admin, self.admin.readiness()),
            (Source::Tun, self.tunnel.tun().as_fd()),
        ];
        if let (Some(link), Some(sockets)) = (&self.link, self.tunnel.sockets()) {
            sources.push((Source::Packets, link.packets.as_fd()));
            sources.push((Source::Registration, link.registration.as_fd()));
            sources.extend(sockets.readiness().map(|socket| (Source::Tunnel, socket)));
        }
        if let Some(lan) = &self.lan {
            sources.push((Source::LanLink, lan.link_readiness()));
            sources.extend(lan.readiness().into_iter().flatten().map(|fd| (Source::Lan, fd)));
        }
        let commands = self.sessions.commands();
        sources.extend(commands.map(|(_, command)| (Source::Command, command.process.as_fd())));
        let fds = sources.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = fds.collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(io::Error::from(error)).context("waiting"),
        }
        let mut ready = Ready::default();
        for ((source, _), fd) in sources.iter().zip(&fds) {
            if !fd.revents().is_empty() {
                ready.note(*source);
            }
        }
        Ok(ready)
    }
}
