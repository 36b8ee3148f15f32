//! Decisions: what came, which rule decided it, and what the reply said, for whoever
//! asks why a node is refused.
//!
//! Every message of UDP port 434 that names a home address ends in one [`Decision`],
//! also what is discarded in silence, and so does a request that a home agent never
//! answers; and what other agents say of revocations (RFC 3543). It is a small `Copy` value without text: half a million registrations a
//! second pass here, and most of them nobody asks about. The words are made where it
//! is shown.
//!
//! **Not done:** keepalives, solicitations and advertisements have none, nor have
//! revocations that are turned away before they are read.

mod cause;
mod words;

use core::fmt;
use core::net::Ipv4Addr;
use homeport_wire::{PortId, TenantId, reasons};

pub use self::cause::Cause;
pub use self::words::{MAX_WORDS, Sentence, Words};
use crate::Lifetime;
use crate::agent::Datagram;
pub use crate::home_agent::placement::PlacementStep;
use crate::message::{
    AuthenticationKind, Extension, Identification, NameDefect, Named, Received, RegistrationReply,
    RegistrationRequest, RegistrationRevocation, ReplyCode, RequestFlags,
};
use crate::security::{Algorithm, MobilitySecurityAssociation, Spi};
use crate::shown::shown;

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Judge {
    /// The home agent of this address.
    HomeAgent(Ipv4Addr),
    /// The foreign agent of this care-of address.
    ForeignAgent(Ipv4Addr),
    /// No agent: it did not come so far.
    Nobody,
}

/// What the message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A registration request.
    Request,
    /// A home agent's reply to a foreign agent, or that it never came.
    Reply,
    /// Another agent's revocation of a registration (RFC 3543 §3.3).
    Revocation,
    /// Another agent's acknowledgement of ours (RFC 3543 §3.4).
    Acknowledgement,
}

/// How much is known of who sent it. It says what may be remembered of it: whoever
/// likes can send what is merely claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It names a node that is not known here.
    #[default]
    Unknown,
    /// It names a node that is known here, and has not shown to be from it.
    Claimed,
    /// It was made by the node, or about it by the agent at the other end, some time:
    /// perhaps this is a copy.
    Copied,
    /// It is from the node, or about it from the agent at the other end, and fresh.
    Authentic,
}

reasons! {
    /// Why there was no reply.
    Silence {
        NotOwed = "not-owed", "The protocol wants no reply to such a message, so that forgers learn nothing.";
        Longer = "longer", "The reply would have been longer than the request, and nobody may be flooded by means of us.";
        FromServer = "from-server", "The request came from the port of agents, and not from the care-of address: agents that answer each other would never end.";
        Rationed = "rationed", "The node had been given as many denials as it gets in that time.";
        ForeignAgentDistrusted = "foreign-agent-distrusted", "The foreign agent, too, did not show who it is.";
    }
}

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A reply with this code and lifetime went to the node.
    Replied {
        /// RFC 5944 §3.4.
        code: ReplyCode,
        /// Granted; without meaning in most denials.
        lifetime: Lifetime,
    },
    /// Nothing yet: the request went on to the home agent.
    Relayed,
    /// The revocation was acknowledged.
    Acknowledged,
    /// Nothing.
    Silent(Silence),
}

/// The extensions of a message: which kinds there were, and the SPIs of the
/// authentications, the first of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenExtensions {
    spis: [u32; 3],
    kinds: u32,
}

/// A kind of extension: a bit of [`SeenExtensions`], and its name.
const KINDS: [(u32, &str); 17] = [
    (MOBILE_HOME, "mobile-home authentication"),
    (MOBILE_FOREIGN, "mobile-foreign authentication"),
    (FOREIGN_HOME, "foreign-home authentication"),
    (1 << 3, "generalized authentication"),
    (1 << 4, "encapsulating delivery"),
    (1 << 5, "network access identifier"),
    (1 << 6, "challenge"),
    (1 << 7, "vendor"),
    (1 << 8, "message string"),
    (UDP_TUNNEL_REQUEST, "UDP tunnel request"),
    (1 << 10, "UDP tunnel reply"),
    (1 << 11, "GRE key"),
    (1 << 12, "mobile network"),
    (1 << 13, "unknown, skipped"),
    (1 << 14, "revocation support"),
    (1 << 15, "dynamic home agent"),
    (1 << 16, "session"),
];

const MOBILE_HOME: u32 = 1;
const MOBILE_FOREIGN: u32 = 1 << 1;
const FOREIGN_HOME: u32 = 1 << 2;
const UDP_TUNNEL_REQUEST: u32 = 1 << 9;

impl SeenExtensions {
    /// Those of a message, as far as it could be read.
    pub fn of<T>(received: &Received<'_, T>) -> Self {
        let mut seen = SeenExtensions::default();
        let [mobile_home, mobile_foreign, foreign_home] = &mut seen.spis;
        for located in received.extensions() {
            let bit = match located.extension {
                Extension::Authentication { kind, spi, .. } => {
                    let (bit, place) = match kind {
                        AuthenticationKind::MobileHome => (MOBILE_HOME, &mut *mobile_home),
                        AuthenticationKind::MobileForeign => (MOBILE_FOREIGN, &mut *mobile_foreign),
                        AuthenticationKind::ForeignHome => (FOREIGN_HOME, &mut *foreign_home),
                    };
                    if seen.kinds & bit == 0 {
                        *place = spi.0;
                    }
                    bit
                }
                Extension::GeneralizedAuthentication { .. } => 1 << 3,
                Extension::EncapsulatingDelivery => 1 << 4,
                Extension::NetworkAccessIdentifier(_) => 1 << 5,
                Extension::Challenge(_) => 1 << 6,
                Extension::NormalVendor { .. } | Extension::CriticalVendor { .. } => 1 << 7,
                Extension::SubNai(_)
                | Extension::CombinedSession { .. }
                | Extension::SessionRelease => 1 << 16,
                Extension::MessageString { .. } => 1 << 8,
                Extension::UdpTunnelRequest(_) => UDP_TUNNEL_REQUEST,
                Extension::UdpTunnelReply(_) => 1 << 10,
                Extension::GreKey(_) => 1 << 11,
                Extension::MobileNetworkRequest(_) | Extension::MobileNetworkAcknowledgement(_) => {
                    1 << 12
                }
                Extension::Unknown { .. } => 1 << 13,
                Extension::RevocationSupport(_) => 1 << 14,
                Extension::DynamicHomeAgent(_) => 1 << 15,
            };
            seen.kinds |= bit;
        }
        seen
    }

    /// The SPI of the first authentication of a kind.
    pub const fn spi(&self, kind: AuthenticationKind) -> Option<Spi> {
        let [mobile_home, mobile_foreign, foreign_home] = self.spis;
        let (bit, spi) = match kind {
            AuthenticationKind::MobileHome => (MOBILE_HOME, mobile_home),
            AuthenticationKind::MobileForeign => (MOBILE_FOREIGN, mobile_foreign),
            AuthenticationKind::ForeignHome => (FOREIGN_HOME, foreign_home),
        };
        if self.kinds & bit == 0 { None } else { Some(Spi(spi)) }
    }

    /// Whether a UDP tunnel was asked for (RFC 3519 §3.1).
    pub const fn asks_udp_tunnel(&self) -> bool {
        self.kinds & UDP_TUNNEL_REQUEST != 0
    }

    /// The names of the kinds that there were.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let kinds = self.kinds;
        KINDS.into_iter().filter(move |(bit, _)| kinds & bit != 0).map(|(_, name)| name)
    }
}

/// A sub-NAI for people: as much of it as a small value can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLabel {
    len: u8,
    bytes: [u8; SessionLabel::LEN],
}

impl SessionLabel {
    const LEN: usize = 22;

    /// That of a message; `None`: it names no session.
    pub fn of(naming: &Result<Option<Named<'_>>, NameDefect>) -> Option<Self> {
        let sub_nai = naming.ok()??.name.sub_nai;
        let len = u8::try_from(sub_nai.len()).ok().filter(|len| *len > 0)?;
        let mut label = SessionLabel { len, bytes: [0; SessionLabel::LEN] };
        label.bytes.iter_mut().zip(sub_nai).for_each(|(to, from)| *to = *from);
        Some(label)
    }
}

/// In one line, whatever its bytes are.
impl fmt::Display for SessionLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = usize::from(self.len).min(SessionLabel::LEN);
        f.write_str(&shown(self.bytes.get(..known).unwrap_or_default()))?;
        f.write_str(if usize::from(self.len) > known { "…" } else { "" })
    }
}

/// What an agent found out while it judged a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The rule that decided.
    pub cause: Cause,
    /// What is known of who sent it.
    pub standing: Standing,
    /// The association that it was judged by: its SPI and its algorithm.
    pub association: Option<(Spi, Algorithm)>,
    /// The node's clock less ours in whole seconds, positive when the node's is
    /// ahead, where its request carried a timestamp and was authentic. The time that
    /// the request was under way counts as behind.
    pub clock_offset: Option<i32>,
    /// A number that the cause needs: of [`Cause::MarkAhead`] the seconds, of
    /// [`Cause::UnknownExtension`] the extension's type, of [`Cause::Redirected`] the
    /// bits of the other home agent's address, of broken extensions the place in the
    /// message, in bytes. Else zero.
    pub detail: u32,
    /// Where the home address of a session came from, once it had one.
    pub step: Option<PlacementStep>,
    /// What was said.
    pub answer: Answer,
}

impl Default for Ruling {
    fn default() -> Self {
        Ruling {
            cause: Cause::NoAgentHere,
            standing: Standing::Unknown,
            association: None,
            clock_offset: None,
            detail: 0,
            step: None,
            answer: Answer::Silent(Silence::NotOwed),
        }
    }
}

impl Ruling {
    /// Judged by this association.
    pub(crate) const fn by(&mut self, association: &MobilitySecurityAssociation) {
        self.association = Some((association.spi, association.algorithm));
    }

    /// The sentence for people.
    pub const fn sentence(&self) -> Sentence<'_> {
        Sentence(self)
    }
}

/// One message, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whose message it was.
    pub tenant: TenantId,
    /// Who decided.
    pub judge: Judge,
    /// What the message was.
    pub subject: Subject,
    /// Where the node's request came from, or a reply that nobody waits for.
    pub source: Ipv4Addr,
    /// Its UDP port.
    pub source_port: u16,
    /// The port of the dataplane that it came in on.
    pub port: PortId,
    /// What the node asked for. Of a reply that nobody waits for, and of revocations,
    /// only addresses and identification are known, and no lifetime of the latter:
    /// they end a registration. Their identifier is the identification's high half.
    pub request: RegistrationRequest,
    /// The extensions of the message that was decided on.
    pub extensions: SeenExtensions,
    /// The session of the node's NAI, if the message named one.
    pub session: Option<SessionLabel>,
    /// What was found out, and said.
    pub ruling: Ruling,
}

impl Decision {
    /// Of a datagram with this fixed part; the judge and the ruling are open.
    pub(crate) fn open(
        datagram: &Datagram<'_>,
        request: RegistrationRequest,
        extensions: SeenExtensions,
    ) -> Self {
        Decision {
            tenant: datagram.tenant,
            judge: Judge::Nobody,
            subject: Subject::Request,
            source: datagram.source,
            source_port: datagram.source_port,
            port: datagram.port,
            request,
            extensions,
            session: None,
            ruling: Ruling::default(),
        }
    }

    /// Of a reply that nobody waits for; the judge is open.
    pub(crate) fn of_stray(
        datagram: &Datagram<'_>,
        received: &Received<'_, RegistrationReply>,
        cause: Cause,
    ) -> Self {
        let reply = &received.body;
        let request = RegistrationRequest {
            flags: RequestFlags::default(),
            lifetime: reply.lifetime,
            home_address: reply.home_address,
            home_agent: reply.home_agent,
            care_of_address: Ipv4Addr::UNSPECIFIED,
            identification: reply.identification,
        };
        let mut decision = Decision::open(datagram, request, SeenExtensions::of(received));
        decision.subject = Subject::Reply;
        decision.ruling.cause = cause;
        decision
    }

    /// Of a revocation, or of the acknowledgement of one; the judge is open.
    pub(crate) fn of_revocation(
        datagram: &Datagram<'_>,
        subject: Subject,
        revoked: &RegistrationRevocation,
        extensions: SeenExtensions,
    ) -> Self {
        let request = RegistrationRequest {
            flags: RequestFlags::default(),
            lifetime: Lifetime::ZERO,
            home_address: revoked.home_address,
            home_agent: revoked.home_agent,
            care_of_address: revoked.care_of_address,
            identification: Identification(u64::from(revoked.identifier) << 32),
        };
        Decision { subject, ..Decision::open(datagram, request, extensions) }
    }

    /// Whether it is about the end of a registration among agents.
    pub const fn is_of_revocation(&self) -> bool {
        matches!(self.subject, Subject::Revocation | Subject::Acknowledgement)
    }

    /// Whether there is a NAT between: the request came from another address than
    /// what the node calls its care-of address (RFC 3519 §4.6), and not from home.
    pub fn is_through_nat(&self) -> bool {
        !self.request.lifetime.is_zero()
            && matches!(self.judge, Judge::HomeAgent(_))
            && self.source != self.request.care_of_address
            && self.source != self.request.home_address
    }

    /// Whether the node says that it has the care-of address itself.
    pub const fn is_co_located(&self) -> bool {
        self.request.flags.contains(RequestFlags::CO_LOCATED)
    }
}
