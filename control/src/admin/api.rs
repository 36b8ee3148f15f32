//! The admin API between its server and the event loop: what may be asked, by
//! whom, and how an answer comes back.
//!
//! [`channel`] makes the two ends. The server's threads submit a [`Query`] with
//! an [`Identity`]; the event loop polls [`AdminHandle::readiness`] beside its
//! other descriptors, takes calls with [`AdminHandle::try_next`] when nothing
//! more urgent waits, and gives each one answer. Two things are settled here and
//! not left to each answerer: a query that the caller may not ask never reaches
//! the loop, and an answer is cut to what the caller may see.
//!
//! **Not done:** lists are answered whole; there is no paging. Only of sessions no more
//! than [`MAX_SESSION_ROWS`] are.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, TrySendError};
use homeport_proto::TenantId;
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::explain::{ExplainArgs, ExplanationView};
use super::sessions::{self, AddSession, RemoveSession};
use super::trace::{TraceAnswer, TraceQuery};
pub use super::view::*;
pub use crate::config::{Config, ConfigDiff, Problem};

/// The version of the API: the first part of every path.
pub const VERSION: &str = "v1";

/// How many calls may wait for the event loop; beyond it they are refused.
pub const MAX_WAITING_CALLS: usize = 64;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// An operator of the box: sees and does everything.
    Operator,
    /// A tenant: sees its own virtual home agent and nothing else.
    Tenant(TenantId),
}

impl Identity {
    /// Whether what belongs to `tenant` is any of its business.
    pub fn may_see(self, tenant: u32) -> bool {
        match self {
            Identity::Operator => true,
            Identity::Tenant(own) => own.0 == tenant,
        }
    }
}

/// What may be asked.
#[derive(Clone, Debug)]
pub enum Query {
    /// The process at a glance: [`Answer::Status`].
    Status,
    /// [`Answer::Ports`].
    Ports,
    /// [`Answer::Bindings`].
    Bindings,
    /// [`Answer::Visitors`].
    Visitors,
    /// [`Answer::Sessions`], or [`Refusal::not_found`] for a NAI that nobody here knows; of
    /// a mobile node, [`Answer::OwnSessions`].
    Sessions(SessionsArgs),
    /// [`Answer::Pools`].
    Pools,
    /// [`Answer::Tunnels`].
    Tunnels,
    /// [`Answer::Routes`].
    Routes,
    /// [`Answer::Neighbors`].
    Neighbors,
    /// [`Answer::Napt`].
    Napt,
    /// Every drop and discard counter, also those that are zero:
    /// [`Answer::Drops`].
    Drops,
    /// [`Answer::Counters`].
    Counters,
    /// [`Answer::SecurityAssociations`].
    SecurityAssociations,
    /// A mobile node's own view: [`Answer::MobileNode`].
    MobileNode,
    /// Begin a session of a mobile node: [`Answer::Session`].
    AddSession(AddSession),
    /// End a session of a mobile node: [`Answer::Session`], as it was.
    RemoveSession(RemoveSession),
    /// End all sessions of a mobile node's NAI, those of other nodes too:
    /// [`Answer::OwnSessions`], as this node's were.
    RemoveAllSessions,
    /// The story of a node: [`Answer::Explanation`].
    Explain(ExplainArgs),
    /// The config in force: [`Answer::Config`].
    ConfigShow,
    /// Put a validated config into force: [`Answer::ConfigApplied`]. The server
    /// has read and checked the file, so that the loop never does. What changes
    /// and needs a restart is refused whole: see [`Config::live_diff`].
    ConfigApply(Arc<Config>),
    /// Take a binding away, and revoke it at the foreign agent where that was agreed on:
    /// [`Answer::Cleared`], or [`Refusal::not_found`].
    ClearBinding {
        /// The virtual home agent's tenant.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
    },
    /// Follow packets: [`Answer::Trace`].
    Trace(TraceQuery),
    /// Take the visitors of a home address away, and revoke their registrations where
    /// that was agreed on: [`Answer::VisitorsCleared`], or [`Refusal::not_found`].
    ClearVisitor {
        /// The foreign agents' tenant.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
    },
}

impl Query {
    /// Whether `identity` may ask this at all. What a tenant may ask is answered
    /// with its own rows only.
    pub fn is_permitted(&self, identity: Identity) -> bool {
        match (identity, self) {
            (Identity::Operator, _)
            | (
                Identity::Tenant(_),
                Query::Bindings
                | Query::Visitors
                | Query::Pools
                | Query::Tunnels
                | Query::Counters
                | Query::SecurityAssociations,
            ) => true,
            (
                Identity::Tenant(own),
                Query::ClearBinding { tenant, .. } | Query::ClearVisitor { tenant, .. },
            ) => own == *tenant,
            (Identity::Tenant(own), Query::Explain(asked)) => asked.tenant == Some(own.0),
            (Identity::Tenant(own), Query::Sessions(asked)) => asked.tenant == Some(own.0),
            (Identity::Tenant(_), _) => false,
        }
    }
}

/// What a query is answered with. As JSON it is an object with one key, the
/// noun; a status, a config and the like are the object itself.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum Answer {
    /// To [`Query::Status`].
    Status(Status),
    /// To [`Query::Ports`], in the order of the config.
    Ports {
        /// The ports.
        ports: Vec<PortView>,
    },
    /// To [`Query::Bindings`], ordered by tenant and home address.
    Bindings {
        /// The bindings.
        bindings: Vec<BindingView>,
    },
    /// To [`Query::Visitors`], ordered by tenant and home address.
    Visitors {
        /// The visitors.
        visitors: Vec<VisitorView>,
    },
    /// To [`Query::Sessions`].
    Sessions(SessionsView),
    /// To [`Query::Pools`], ordered by tenant and home agent, and as in the config.
    Pools {
        /// The pools.
        pools: Vec<PoolView>,
    },
    /// To [`Query::Tunnels`], ordered by tenant and addresses.
    Tunnels {
        /// The tunnels.
        tunnels: Vec<TunnelView>,
    },
    /// To [`Query::Routes`], ordered by destination.
    Routes {
        /// The routes.
        routes: Vec<RouteView>,
    },
    /// To [`Query::Neighbors`], ordered by port and address.
    Neighbors {
        /// The neighbours.
        neighbors: Vec<NeighborView>,
    },
    /// To [`Query::Napt`], in the order of the config.
    Napt {
        /// The NAPTs.
        napt: Vec<NaptView>,
    },
    /// To [`Query::Drops`].
    Drops {
        /// Every counter of drops and discards.
        drops: Vec<DropView>,
    },
    /// To [`Query::Counters`].
    Counters {
        /// The counters.
        counters: Vec<CounterView>,
    },
    /// To [`Query::SecurityAssociations`].
    SecurityAssociations {
        /// The associations, without their keys.
        security_associations: Vec<SecurityAssociationView>,
    },
    /// To [`Query::MobileNode`].
    MobileNode(MobileNodeView),
    /// To [`Query::Sessions`], of a mobile node, ordered by name; and to
    /// [`Query::RemoveAllSessions`].
    OwnSessions {
        /// The sessions.
        sessions: Vec<sessions::SessionView>,
    },
    /// To [`Query::AddSession`] and [`Query::RemoveSession`].
    Session(Box<sessions::SessionView>),
    /// To [`Query::Explain`]; nothing in it is another tenant's.
    Explanation(Box<ExplanationView>),
    /// To [`Query::ConfigShow`].
    Config(#[serde(serialize_with = "whole")] Arc<Config>),
    /// To [`Query::ConfigApply`]: what changed.
    ConfigApplied(ConfigDiff),
    /// To [`Query::ClearBinding`].
    Cleared(Cleared),
    /// To [`Query::Trace`].
    Trace(TraceAnswer),
    /// To [`Query::ClearVisitor`].
    VisitorsCleared(VisitorsCleared),
}

fn whole<S: serde::Serializer>(config: &Arc<Config>, serializer: S) -> Result<S::Ok, S::Error> {
    config.serialize(serializer)
}

impl Answer {
    /// The answer without the rows that are none of `identity`'s business.
    #[must_use]
    fn scoped(mut self, identity: Identity) -> Self {
        match &mut self {
            Answer::Bindings { bindings } => bindings.retain(|row| identity.may_see(row.tenant)),
            Answer::Visitors { visitors } => visitors.retain(|row| identity.may_see(row.tenant)),
            Answer::Sessions(view) => view.sessions.retain(|row| identity.may_see(row.tenant)),
            Answer::Pools { pools } => pools.retain(|row| identity.may_see(row.tenant)),
            Answer::Tunnels { tunnels } => tunnels.retain(|row| identity.may_see(row.tenant)),
            Answer::SecurityAssociations { security_associations } => {
                security_associations.retain(|row| identity.may_see(row.tenant));
            }
            // A counter without a tenant is the box's: the operator's only.
            Answer::Counters { counters } => counters.retain(|row| match row.tenant {
                Some(tenant) => identity.may_see(tenant),
                None => identity == Identity::Operator,
            }),
            // Nobody but the operator may ask for these, or it is the tenant's own.
            Answer::Status(_)
            | Answer::Ports { .. }
            | Answer::Routes { .. }
            | Answer::Neighbors { .. }
            | Answer::Napt { .. }
            | Answer::Drops { .. }
            | Answer::MobileNode(_)
            | Answer::OwnSessions { .. }
            | Answer::Session(_)
            | Answer::Explanation(_)
            | Answer::Config(_)
            | Answer::ConfigApplied(_)
            | Answer::Cleared(_)
            | Answer::Trace(_)
            | Answer::VisitorsCleared(_) => {}
        }
        self
    }
}

/// Why something was refused: the status code of HTTP follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The request makes no sense (400).
    BadRequest,
    /// Not for this caller (403).
    Forbidden,
    /// No such thing here (404).
    NotFound,
    /// It cannot be done in the present state; a restart is needed, say (409).
    Conflict,
    /// The config has errors (422).
    InvalidConfig,
    /// Something broke on our side (500).
    Internal,
    /// The event loop is too busy, or gone (503).
    Unavailable,
}

/// Why a query was not answered, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// What kind of refusal it is.
    pub kind: RefusalKind,
    /// What is wrong, in a sentence.
    pub error: String,
    /// What to do about it, in a sentence.
    pub hint: String,
    /// Each error of a config file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(kind: RefusalKind, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal { kind, error: error.into(), hint: hint.into(), problems: Vec::new() }
    }

    /// There is no such thing here.
    pub fn not_found(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal::new(RefusalKind::NotFound, error, hint)
    }

    /// It cannot be done in the present state.
    pub fn conflict(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal::new(RefusalKind::Conflict, error, hint)
    }

    /// Something broke on our side.
    pub fn internal(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal::new(RefusalKind::Internal, error, hint)
    }

    /// The event loop did not answer.
    pub fn unavailable(error: impl Into<String>) -> Self {
        Refusal::new(
            RefusalKind::Unavailable,
            error,
            "Try again; if it lasts, see the daemon's log.",
        )
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for Refusal {}

/// What becomes of a query.
pub type Outcome = Result<Answer, Refusal>;

/// One query, waiting for its answer. Dropping it unanswered refuses it.
#[derive(Debug)]
pub struct Call {
    query: Query,
    identity: Identity,
    reply: oneshot::Sender<Outcome>,
}

impl Call {
    /// What is asked.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Who asks. The loop need not look: what the caller may not ask never comes
    /// here, and the answer is cut to what it may see.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Gives the answer. A caller that has gone away is no error.
    pub fn answer(self, outcome: Outcome) {
        let outcome = outcome.map(|answer| answer.scoped(self.identity));
        let _ = self.reply.send(outcome);
    }
}

/// The two ends of the API.
///
/// # Errors
/// The kernel's, when there is no descriptor left for the wake-up.
pub fn channel() -> std::io::Result<(AdminSender, AdminHandle)> {
    let wake = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = crossbeam::channel::bounded(MAX_WAITING_CALLS);
    let sender = AdminSender { calls: sender, wake: Arc::clone(&wake) };
    Ok((sender, AdminHandle { calls: receiver, wake }))
}

/// The asking end. Clones of it ask the same event loop.
#[derive(Clone, Debug)]
pub struct AdminSender {
    calls: Sender<Call>,
    wake: Arc<OwnedFd>,
}

impl AdminSender {
    /// Hands a query to the event loop. Never blocks.
    ///
    /// # Errors
    /// When the caller may not ask it, and when too many wait already.
    pub fn submit(&self, query: Query, identity: Identity) -> Result<PendingAnswer, Refusal> {
        if !query.is_permitted(identity) {
            return Err(Refusal::new(
                RefusalKind::Forbidden,
                "This is not yours to see or do.",
                "Ask the operator of the box.",
            ));
        }
        let (reply, answer) = oneshot::channel();
        self.calls.try_send(Call { query, identity, reply }).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::unavailable("Too many requests wait for an answer."),
            TrySendError::Disconnected(_) => gone(),
        })?;
        // It fails only when the counter is at its maximum: then the loop has been
        // woken, but has not yet looked.
        match rustix::io::write(&self.wake, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(PendingAnswer(answer)),
            Err(error) => Err(Refusal::internal(
                format!("The event loop cannot be woken: {error}."),
                "See the daemon's log.",
            )),
        }
    }
}

/// An answer that is on its way.
#[derive(Debug)]
pub struct PendingAnswer(oneshot::Receiver<Outcome>);

impl PendingAnswer {
    /// Waits for it.
    ///
    /// # Errors
    /// The loop's refusal, or that the loop is gone.
    pub async fn wait(self) -> Outcome {
        self.0.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Waits for it, blocking the thread; not to be called in an async context.
    ///
    /// # Errors
    /// The loop's refusal, or that the loop is gone.
    pub fn wait_blocking(self) -> Outcome {
        self.0.blocking_recv().unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> Refusal {
    Refusal::unavailable("The event loop ended before it answered.")
}

/// The answering end: the event loop's.
#[derive(Debug)]
pub struct AdminHandle {
    calls: Receiver<Call>,
    wake: Arc<OwnedFd>,
}

impl AdminHandle {
    /// Readable when calls wait: for the loop's poll(2).
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The next call, or `None` when none waits; then `readiness` is quiet until
    /// another comes. A loop that stops before `None` is woken again.
    pub fn try_next(&self) -> Option<Call> {
        if let Ok(call) = self.calls.try_recv() {
            return Some(call);
        }
        // Empty: quieten the descriptor first and look once more after, so that a
        // call that comes between is either seen now or wakes the loop again.
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        self.calls.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    fn is_readable(handle: &AdminHandle) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(handle.readiness(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    fn tunnel(tenant: u32) -> TunnelView {
        TunnelView {
            tenant,
            role: Role::HomeAgent,
            local: Ipv4Addr::new(10, 0, 1, 2),
            remote: Ipv4Addr::new(10, 0, 2, 2),
            encapsulation: Encapsulation::IpInIp,
            udp_port: None,
            gre_key: None,
            nodes: 1,
            reverse: 1,
        }
    }

    #[test]
    fn a_call_wakes_the_loop_and_the_last_one_quietens_it() {
        let (sender, handle) = channel().unwrap();
        assert!(!is_readable(&handle));
        assert!(handle.try_next().is_none());
        let first = sender.submit(Query::Bindings, Identity::Operator).unwrap();
        let second = sender.submit(Query::Tunnels, Identity::Operator).unwrap();
        assert!(is_readable(&handle));
        handle.try_next().unwrap().answer(Ok(Answer::Bindings { bindings: vec![] }));
        assert!(is_readable(&handle), "one call still waits");
        handle.try_next().unwrap().answer(Ok(Answer::Tunnels { tunnels: vec![tunnel(1)] }));
        assert!(handle.try_next().is_none());
        assert!(!is_readable(&handle));
        assert!(matches!(first.wait_blocking(), Ok(Answer::Bindings { .. })));
        assert!(
            matches!(second.wait_blocking(), Ok(Answer::Tunnels { tunnels }) if tunnels.len() == 1)
        );
    }

    #[test]
    fn a_tenant_is_answered_with_its_own_rows_only() {
        let (sender, handle) = channel().unwrap();
        let identity = Identity::Tenant(TenantId(7));
        let tunnels = sender.submit(Query::Tunnels, identity).unwrap();
        let counters = sender.submit(Query::Counters, identity).unwrap();
        handle
            .try_next()
            .unwrap()
            .answer(Ok(Answer::Tunnels { tunnels: vec![tunnel(6), tunnel(7), tunnel(8)] }));
        let pools = sender.submit(Query::Pools, identity).unwrap();
        let own = SessionsArgs { nai: None, tenant: Some(7) };
        let sessions = sender.submit(Query::Sessions(own), identity).unwrap();
        let counter = |tenant| CounterView { tenant, ..CounterView::default() };
        handle.try_next().unwrap().answer(Ok(Answer::Counters {
            counters: vec![counter(None), counter(Some(7)), counter(Some(8))],
        }));
        let all = [6, 7, 8];
        let pool = |tenant| PoolView {
            tenant,
            agent: "ha".into(),
            home_agent: Ipv4Addr::new(10, 0, 1, 2),
            name: "all".into(),
            realm: None,
            size: 1,
            bound: 0,
            home: 0,
            sticky: 0,
            held_down: 0,
            free: 1,
            use_percent: 0,
            exhausted: 0,
            exhausted_of_tenant: 0,
        };
        handle.try_next().unwrap().answer(Ok(Answer::Pools { pools: all.map(pool).into() }));
        let named = homeport_proto::home_agent::SessionView {
            nai: b"a@b",
            sub_nai: b"",
            home_address: Ipv4Addr::new(10, 1, 0, 10),
            state: homeport_proto::home_agent::SessionState::Sticky,
            until: None,
        };
        let session =
            |tenant| SessionView::new((tenant, "ha", Ipv4Addr::new(10, 0, 1, 2)), &named, Some(1));
        let view = SessionsView { sessions: all.map(session).into(), more: 0 };
        handle.try_next().unwrap().answer(Ok(Answer::Sessions(view)));
        let Ok(Answer::Pools { pools }) = pools.wait_blocking() else { panic!() };
        assert_eq!(pools, [pool(7)]);
        let Ok(Answer::Sessions(view)) = sessions.wait_blocking() else { panic!() };
        assert_eq!(view.sessions, [session(7)]);
        let Ok(Answer::Tunnels { tunnels }) = tunnels.wait_blocking() else { panic!() };
        assert_eq!(tunnels, [tunnel(7)]);
        let Ok(Answer::Counters { counters }) = counters.wait_blocking() else { panic!() };
        assert_eq!(counters, [counter(Some(7))]);
    }

    #[test]
    fn what_a_tenant_may_not_ask_never_reaches_the_loop() {
        let (sender, handle) = channel().unwrap();
        let identity = Identity::Tenant(TenantId(7));
        let home_address = Ipv4Addr::new(10, 1, 0, 10);
        for query in [
            Query::Status,
            Query::Ports,
            Query::Routes,
            Query::Neighbors,
            Query::Napt,
            Query::Drops,
            Query::ConfigShow,
            Query::ClearBinding { tenant: TenantId(8), home_address },
            // How many more there are would be all tenants'.
            Query::Sessions(SessionsArgs::default()),
            Query::Sessions(SessionsArgs { nai: None, tenant: Some(8) }),
        ] {
            let refusal = sender.submit(query, identity).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::Forbidden);
        }
        assert!(handle.try_next().is_none());
        let own = Query::ClearBinding { tenant: TenantId(7), home_address };
        sender.submit(own, identity).unwrap();
        assert!(handle.try_next().is_some());
        let own = Query::Sessions(SessionsArgs { nai: None, tenant: Some(7) });
        sender.submit(own, identity).unwrap();
        assert!(handle.try_next().is_some());
    }

    #[test]
    fn calls_beyond_the_bound_and_calls_to_a_dead_loop_are_refused_as_unavailable() {
        let (sender, handle) = channel().unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING_CALLS)
            .map(|_| sender.submit(Query::Status, Identity::Operator).unwrap())
            .collect();
        let refusal = sender.submit(Query::Status, Identity::Operator).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Unavailable);
        drop(handle.try_next().unwrap());
        let unanswered = waiting.remove(0).wait_blocking().unwrap_err();
        assert_eq!(unanswered.kind, RefusalKind::Unavailable);
        drop(handle);
        let refusal = sender.submit(Query::Status, Identity::Operator).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Unavailable);
    }
}
