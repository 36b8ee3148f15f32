//! What one agent finds around it while it handles one input: clocks, timers, counters,
//! chance, and the way out.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::net::Ipv4Addr;

use homeport_wire::{PortId, TenantId};

use super::Datagram;
use super::replies::{Blanks, Replies};
use crate::counters::Counters;
use crate::decision::{Cause, Decision, Judge, Ruling, SeenExtensions};
use crate::draws::Draws;
use crate::event::{DiscardReason, Event};
use crate::home_agent::foresight::Hints;
use crate::message::{AuthenticationKind, Located, MessageWriter, Received, RegistrationRequest};
use crate::revocation::RevocationKey;
use crate::security::MobilitySecurityAssociation;
use crate::timer::Timers;
use crate::visitor::{PendingKey, VisitorKey};
use crate::{Action, Now, Transmit};

/// A home agent by its address, or a foreign agent by its care-of address.
pub(crate) type AgentKey = (TenantId, Ipv4Addr);

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Token {
    /// A question whether the node is where its tunnel goes is due, or given up.
    Proof(AgentKey, Ipv4Addr),
    /// The next gratuitous ARP for the home address is due.
    Announcement(AgentKey, Ipv4Addr),
    /// The visitor expires.
    Visitor(AgentKey, VisitorKey),
    /// The visitor's next keepalive is due.
    Keepalive(AgentKey, VisitorKey),
    /// A home agent's revocation is sent once more, or for the first time.
    HomeRevocation(AgentKey, RevocationKey),
    /// The same of a foreign agent.
    ForeignRevocation(AgentKey, RevocationKey),
    /// The pending request is given up.
    Pending(AgentKey, PendingKey),
    /// The next unasked advertisement is due.
    Advertiser(TenantId, PortId),
}

/// What all agents of the process write to.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) actions: VecDeque<Action>,
    pub(super) timers: Timers<Token>,
    pub(super) counters: BTreeMap<TenantId, Counters>,
    pub(super) draws: Draws,
    pub(super) replies: Replies,
    pub(super) hints: Hints,
    /// Every address of an agent here, of all tenants.
    pub(super) local: BTreeSet<Ipv4Addr>,
    #[cfg(feature = "planted-bugs")]
    pub(super) last_ntp: crate::NtpTime,
}

/// The surroundings of one agent for the time of one input.
pub(crate) struct Context<'a> {
    pub(crate) timers: &'a mut Timers<Token>,
    pub(crate) counters: &'a mut Counters,
    pub(crate) now: Now,
    /// What is found out about the message, for who asks later.
    pub(crate) ruling: Ruling,
    /// What was found out before about it and others.
    pub(crate) hints: &'a mut Hints,
    actions: &'a mut VecDeque<Action>,
    draws: &'a mut Draws,
    replies: &'a mut Replies,
    local: &'a BTreeSet<Ipv4Addr>,
}

impl Context<'_> {
    pub(crate) fn push(&mut self, action: Action) {
        #[cfg(feature = "planted-bugs")]
        if matches!(&action, Action::StoreSession { session, .. } if session.kept)
            && crate::planted::is(crate::planted::Bug::StoredSessionLost)
        {
            return;
        }
        match action {
            Action::Transmit(packet) => self.send(packet, Blanks::new()),
            action => self.actions.push_back(action),
        }
    }

    /// Sends a packet, when its blanks are filled in, and behind those that wait for that.
    pub(crate) fn send(&mut self, packet: Transmit, blanks: Blanks) {
        if self.replies.are_held() {
            self.replies.hold(packet, blanks);
        } else {
            self.actions.push_back(Action::Transmit(packet));
        }
    }

    /// Counts a message that is discarded and tells the operator.
    pub(crate) fn discard(&mut self, datagram: &Datagram<'_>, reason: DiscardReason) {
        self.discard_from(datagram.tenant, datagram.source, reason);
    }

    pub(super) fn discard_from(
        &mut self,
        tenant: TenantId,
        source: Ipv4Addr,
        reason: DiscardReason,
    ) {
        self.counters.count_discard(reason);
        self.push(Action::Event(Event::Discarded { tenant, source, reason }));
    }

    /// Counts what is discarded, if `cause` discards it, and tells who decided what.
    pub(crate) fn refuse(&mut self, datagram: &Datagram<'_>, cause: Cause) {
        self.ruling.cause = cause;
        if let Some(reason) = cause.discarded_as() {
            self.discard(datagram, reason);
        }
    }

    /// Tells the operator what was decided, with the ruling as it is by now.
    pub(crate) fn tell(&mut self, judge: Judge, decision: Decision) {
        let decision = Decision { judge, ruling: self.ruling, ..decision };
        self.push(Action::Event(Event::Decision(decision)));
    }

    /// Refuses a message that no agent gets to see. Whom it is about is told if that
    /// can be read.
    pub(super) fn turn_away(&mut self, datagram: &Datagram<'_>, cause: Cause) {
        self.refuse(datagram, cause);
        if let Ok(request) = RegistrationRequest::parse(datagram.payload) {
            let decision = Decision::open(datagram, request, SeenExtensions::default());
            self.tell(Judge::Nobody, decision);
        }
    }

    /// An unpredictable number.
    pub(crate) fn random(&mut self) -> u32 {
        self.draws.number()
    }

    /// Whether an authentication of a message is right.
    pub(crate) fn is_authentic<'b, T>(
        &mut self,
        received: &Received<'b, T>,
        authentication: &Located<'b>,
        association: &MobilitySecurityAssociation,
    ) -> bool {
        self.draws.is_authentic(received, authentication, association)
    }

    /// Adds an authentication extension over all that a message has so far.
    pub(crate) fn authenticate(
        &mut self,
        writer: &mut MessageWriter,
        kind: AuthenticationKind,
        association: &MobilitySecurityAssociation,
    ) {
        self.draws.authenticate(writer, kind, association);
    }

    /// The same, unless the message is one of several whose authenticators are computed
    /// together: then it gets a blank.
    pub(crate) fn authenticate_reply(
        &mut self,
        writer: &mut MessageWriter,
        kind: AuthenticationKind,
        association: &MobilitySecurityAssociation,
        blanks: Option<&mut Blanks>,
    ) {
        match (blanks, association.ready_key()) {
            (Some(blanks), Some(key)) => {
                blanks.push((key, writer.leave_blank(kind, association)));
            }
            _ => self.authenticate(writer, kind, association),
        }
    }

    /// Somewhere to note the blanks of a reply under these associations, if it may have any.
    pub(crate) fn blanks<'b>(
        &self,
        mut associations: impl Iterator<Item = &'b MobilitySecurityAssociation>,
    ) -> Option<Blanks> {
        let may = self.replies.are_held() && associations.all(|one| one.ready_key().is_some());
        may.then(Blanks::new)
    }

    /// Whether an address is one of an agent here.
    pub(crate) fn is_local(&self, address: Ipv4Addr) -> bool {
        self.local.contains(&address)
    }
}

impl Shared {
    #[cfg(feature = "planted-bugs")]
    pub(super) fn lose_a_timer(&mut self, now: Now) {
        let last = core::mem::replace(&mut self.last_ntp, now.ntp);
        if crate::planted::is(crate::planted::Bug::TimerLostAtStep)
            && now.ntp.wrapping_distance(last) < 0
        {
            self.timers.pop_due(now.monotonic);
        }
    }

    pub(super) fn context(&mut self, tenant: TenantId, now: Now) -> Context<'_> {
        Context {
            timers: &mut self.timers,
            counters: self.counters.entry(tenant).or_default(),
            now,
            ruling: Ruling::default(),
            hints: &mut self.hints,
            actions: &mut self.actions,
            draws: &mut self.draws,
            replies: &mut self.replies,
            local: &self.local,
        }
    }
}
