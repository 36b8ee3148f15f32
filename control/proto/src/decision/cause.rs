//! The rules that decide a registration message, each with what follows from it and
//! the words for it.

use homeport_wire::reasons;

use crate::event::DiscardReason as Discard;
use crate::message::ReplyCode as Code;

/// The table of causes: name, counter, the code of the denial, what it is counted as
/// when it is discarded, the few words and the sentence.
macro_rules! causes {
    ($($name:ident = $counter:literal, $code:expr, $discard:expr, $brief:literal, $text:literal;)*) => {
        reasons! {
            /// Which rule decided a registration message: finer than a reply's code,
            /// which several of them may share.
            Cause { $($name = $counter, $text;)* }
        }

        impl Cause {
            /// The code that it is denied with; none when it is accepted, relayed, or
            /// never answered.
            pub const fn code(self) -> Option<Code> {
                match self { $(Cause::$name => $code,)* }
            }

            /// What it is counted as, where the message was discarded, answered or not.
            pub const fn discarded_as(self) -> Option<Discard> {
                match self { $(Cause::$name => $discard,)* }
            }

            /// A few words, for a reply that has no room for the sentence.
            pub const fn brief(self) -> &'static str {
                match self { $(Cause::$name => $brief,)* }
            }
        }
    };
}

causes! {
    // What is no refusal.
    Accepted = "accepted", None, None, "accepted", "The registration was accepted.";
    Deregistered = "deregistered", None, None, "deregistered", "The deregistration was accepted.";
    Repeated = "repeated", None, None, "answered again", "The same request came once more and got the same answer; nothing changed.";
    Relayed = "relayed", None, None, "relayed", "The foreign agent relayed the request; the home agent has not answered.";

    // Before anybody looked at the request.
    NoAgentHere = "no-agent-here", None, Some(Discard::WrongDestination), "no agent here", "No agent here serves the address that the message was sent to.";
    BadSource = "bad-source", None, Some(Discard::BadSource), "bad source", "Nobody can be answered at the address or port that the message came from.";
    OwnAddress = "own-address", None, Some(Discard::OwnAddress), "our own address", "The message came from an address of this agent itself.";
    RateLimited = "rate-limited", None, Some(Discard::RateLimited), "too many messages", "The network that the message came from had sent all that it may send in a second.";
    Truncated = "truncated", None, Some(Discard::Malformed), "poorly formed", "The message is too short or too long to be one.";
    UnexpectedReply = "unexpected-reply", None, Some(Discard::ReplyToReply), "not asked for", "A registration reply came to an agent that only answers requests.";
    LinkNotServed = "link-not-served", None, Some(Discard::NotServed), "link not served", "The foreign agent does not serve the link that the request came in on.";

    // Home agent: whose request it is.
    UnknownNode = "unknown-node", None, Some(Discard::NoSecurityAssociation), "node unknown", "The node is unknown: the home agent has no security association with this home address.";
    UnknownNai = "unknown-nai", None, Some(Discard::NoSecurityAssociation), "node unknown", "The node is unknown: the home agent has no security association with the NAI, and no home address was given.";
    UnknownSpi = "unknown-spi", None, Some(Discard::NoSecurityAssociation), "SPI unknown", "The node is known, but not under the SPI that it used.";
    WrongKey = "wrong-key", Some(Code::HA_MOBILE_NODE_FAILED_AUTHENTICATION), Some(Discard::BadMobileHomeAuthenticator), "wrong key", "The node and the home agent do not have the same key, or not the same algorithm.";
    TwoSignatures = "two-signatures", Some(Code::HA_MOBILE_NODE_FAILED_AUTHENTICATION), Some(Discard::BadMobileHomeAuthenticator), "signed twice", "The request is signed twice for the home agent, which the profile does not allow.";
    Unsigned = "unsigned", None, Some(Discard::NoAuthentication), "not signed", "The request is not signed for the home agent.";
    UnsignedDenied = "unsigned-denied", Some(Code::HA_MOBILE_NODE_FAILED_AUTHENTICATION), Some(Discard::BadMobileHomeAuthenticator), "not signed", "The request is not signed for the home agent, and this profile says so to the node.";
    UnsupportedAuthentication = "unsupported-authentication", None, Some(Discard::NoSecurityAssociation), "cannot be verified", "The request is signed for an AAA server, which this home agent does not ask.";
    UnknownForeignAgentSpi = "unknown-foreign-agent-spi", None, Some(Discard::NoSecurityAssociation), "foreign agent unknown", "The foreign agent signed with an SPI that the home agent does not share with it.";
    WrongForeignAgentKey = "wrong-foreign-agent-key", Some(Code::HA_FOREIGN_AGENT_FAILED_AUTHENTICATION), None, "foreign agent's key", "The foreign agent and the home agent do not have the same key, or not the same algorithm.";
    ForeignAgentUnsigned = "foreign-agent-unsigned", Some(Code::HA_FOREIGN_AGENT_FAILED_AUTHENTICATION), None, "foreign agent unsigned", "The foreign agent shares a key with the home agent but did not sign the request.";
    ForeignAgentNotTrusted = "foreign-agent-not-trusted", Some(Code::HA_FOREIGN_AGENT_FAILED_AUTHENTICATION), None, "foreign agent unknown", "The home agent takes requests only from foreign agents that it shares a key with.";

    // Home agent: when it was made.
    ClockOff = "clock-off", Some(Code::IDENTIFICATION_MISMATCH), None, "clock is wrong", "The node's clock and the home agent's are too far apart.";
    Replayed = "replayed", Some(Code::IDENTIFICATION_MISMATCH), None, "seen before", "This very request was accepted before: it is a copy.";
    OutOfOrder = "out-of-order", Some(Code::IDENTIFICATION_MISMATCH), None, "overtaken", "A later request of the node was accepted before this one came.";
    MarkAhead = "mark-ahead", Some(Code::IDENTIFICATION_MISMATCH), None, "clock was set back", "An earlier request of the node was dated later than it is now: its clock was set back, or ours was.";
    BeforeStart = "before-start", Some(Code::IDENTIFICATION_MISMATCH), None, "older than the agent", "The request was made before this home agent started.";
    NonceMismatch = "nonce-mismatch", Some(Code::IDENTIFICATION_MISMATCH), None, "out of step", "The node did not use the nonce that the home agent gave it last.";

    // Home agent: what it looks like.
    UnknownExtension = "unknown-extension", None, Some(Discard::UnknownExtension), "unknown extension", "The message has an extension that is unknown here and must not be skipped.";
    Malformed = "malformed", None, Some(Discard::Malformed), "poorly formed", "The extensions of the request cannot be read, and no signature was found before that.";
    BrokenExtensions = "broken-extensions", Some(Code::HA_POORLY_FORMED_REQUEST), None, "poorly formed", "The extensions behind the signature cannot be read.";
    ReservedFlags = "reserved-flags", Some(Code::HA_POORLY_FORMED_REQUEST), None, "reserved flag set", "The request has a flag set that must be zero.";
    MisplacedExtension = "misplaced-extension", Some(Code::HA_POORLY_FORMED_REQUEST), None, "extension misplaced", "A tunnel extension is there twice, or behind every signature.";
    BadTunnelRequest = "bad-tunnel-request", Some(Code::HA_POORLY_FORMED_REQUEST), None, "bad tunnel request", "The UDP tunnel request does not fit who wrote it, or has reserved bits set.";
    ImpossibleCareOfAddress = "impossible-care-of-address", Some(Code::HA_POORLY_FORMED_REQUEST), None, "bad care-of address", "The care-of address cannot be that of a host.";
    WrongHomeAgent = "wrong-home-agent", Some(Code::UNKNOWN_HOME_AGENT_ADDRESS), None, "wrong home agent", "The request names another home agent than the one that it came to.";
    Discovery = "discovery", Some(Code::UNKNOWN_HOME_AGENT_ADDRESS), None, "use this home agent", "The node asked everybody for a home agent and was told this one's address.";

    Redirected = "redirected", Some(Code::REDIRECTED_HOME_AGENT), None, "use another home agent", "The node left the choice of a home agent to the network, and was sent to another one.";

    // Home agent: sessions of a NAI.
    BadName = "bad-name", Some(Code::HA_POORLY_FORMED_REQUEST), None, "bad session name", "The NAI or the name of the session is empty, too long, or there twice.";
    SubNaiUnproven = "sub-nai-unproven", Some(Code::HA_FOREIGN_AGENT_FAILED_AUTHENTICATION), None, "session not signed", "A foreign agent named the session, and did not show who it is.";
    TooManySessions = "too-many-sessions", Some(Code::HA_INSUFFICIENT_RESOURCES), None, "too many sessions", "The NAI has as many sessions as a NAI may have.";
    PoolExhausted = "pool-exhausted", Some(Code::HA_INSUFFICIENT_RESOURCES), None, "no address is free", "The session asked for a home address, and no pool for its realm has a free one.";
    AddressNotTheirs = "address-not-theirs", Some(Code::HA_PROHIBITED), None, "not your address", "The session named a home address that its NAI may not have.";
    AddressHeld = "address-held", Some(Code::HA_PROHIBITED), None, "address in use", "The home address is another session's.";

    // Home agent: what it may have.
    OutsideHomeNetworks = "outside-home-networks", Some(Code::HA_PROHIBITED), None, "not a home address", "The home address is in none of the home agent's home networks.";
    Prohibited = "prohibited", Some(Code::HA_PROHIBITED), None, "not admitted", "The home agent admits nobody: it is switched off.";
    CareOfAddressAtHome = "care-of-address-at-home", Some(Code::HA_PROHIBITED), None, "bad care-of address", "The care-of address is in a home network, is an agent's own, or is the home address.";
    NatNotTraversed = "nat-not-traversed", Some(Code::HA_PROHIBITED), None, "no NAT traversal", "The node asked for a UDP tunnel, and the home agent has NAT traversal switched off.";
    ForcedUdpNotAllowed = "forced-udp-not-allowed", Some(Code::HA_PROHIBITED), None, "UDP not needed", "The node insists on a UDP tunnel though there is no NAT, which is not allowed here.";
    TableFull = "table-full", Some(Code::HA_INSUFFICIENT_RESOURCES), None, "home agent is full", "The home agent has as many bindings as it may hold.";
    TooManyCareOfAddresses = "too-many-care-of-addresses", Some(Code::TOO_MANY_SIMULTANEOUS_BINDINGS), None, "too many bindings", "The node has as many simultaneous bindings as a node may have.";
    ReverseTunnelRefused = "reverse-tunnel-refused", Some(Code::HA_REVERSE_TUNNEL_UNAVAILABLE), None, "no reverse tunnel", "The node asked for a reverse tunnel, and the home agent grants none.";
    ReverseTunnelMandatory = "reverse-tunnel-mandatory", Some(Code::HA_REVERSE_TUNNEL_MANDATORY), None, "reverse tunnel needed", "The home agent wants every node to ask for a reverse tunnel, and this one did not.";
    ReverseTunnelForProof = "reverse-tunnel-for-proof", Some(Code::HA_REVERSE_TUNNEL_MANDATORY), None, "reverse tunnel needed", "The node is behind a NAT, and without a reverse tunnel it cannot show that it is there.";
    EncapsulationRefused = "encapsulation-refused", Some(Code::HA_ENCAPSULATION_UNAVAILABLE), None, "encapsulation refused", "The home agent does not offer the encapsulation that the node asked for.";
    UdpRefused = "udp-refused", Some(Code::HA_UDP_ENCAPSULATION_UNAVAILABLE), None, "no UDP tunnels", "There is a NAT, or the node asked for UDP, and the home agent offers no UDP tunnels.";
    UdpEncapsulationUnknown = "udp-encapsulation-unknown", Some(Code::HA_UDP_ENCAPSULATION_UNAVAILABLE), None, "only IP in UDP", "The node asked for GRE or minimal encapsulation inside UDP; there is only IP in UDP.";
    ChallengeGiven = "challenge-given", Some(Code::HA_MOBILE_NODE_FAILED_AUTHENTICATION), None, "answer the challenge", "The node is behind a NAT and was given a challenge to answer from there.";
    NoMobileNetwork = "no-mobile-network", Some(Code::HA_MOBILE_NETWORK_ERROR), None, "not your networks", "None of the networks that the router named is one of its own.";
    NotMobileRouter = "not-mobile-router", Some(Code::HA_MOBILE_NETWORK_DISALLOWED), None, "no mobile router", "The node named networks behind it, but is no mobile router here.";

    // Foreign agent: a request.
    VisitorSaysRevocable = "visitor-says-revocable", None, Some(Discard::Malformed), "poorly formed", "The node says that its registration can be revoked, which only an agent, or a node by itself, may say.";
    StationUnknown = "station-unknown", None, Some(Discard::Malformed), "poorly formed", "The request came from a link-layer address that is no station's.";
    Duplicate = "duplicate", None, Some(Discard::Duplicate), "still pending", "The same request was relayed already, and the home agent has not answered.";
    VisitorWrongKey = "visitor-wrong-key", Some(Code::FA_MOBILE_NODE_FAILED_AUTHENTICATION), Some(Discard::BadMobileForeignAuthenticator), "wrong key", "The node and the foreign agent do not have the same key, or not the same SPI.";
    VisitorUnsigned = "visitor-unsigned", Some(Code::FA_MOBILE_NODE_FAILED_AUTHENTICATION), Some(Discard::BadMobileForeignAuthenticator), "not signed", "The node shares a key with the foreign agent but did not sign the request for it.";
    VisitorNotTrusted = "visitor-not-trusted", Some(Code::FA_MOBILE_NODE_FAILED_AUTHENTICATION), Some(Discard::BadMobileForeignAuthenticator), "visitor unknown", "The foreign agent takes only nodes that it shares a key with.";
    MissingChallenge = "missing-challenge", Some(Code::MISSING_CHALLENGE), None, "answer the challenge", "The foreign agent wants its challenge answered, and the request answers none.";
    UnknownChallenge = "unknown-challenge", Some(Code::UNKNOWN_CHALLENGE), None, "unknown challenge", "The node answered a challenge that the foreign agent did not give on this link, or that is too old.";
    StaleChallenge = "stale-challenge", Some(Code::STALE_CHALLENGE), None, "challenge used before", "The node answered a challenge that it had answered before, or one from before that.";
    TwoChallenges = "two-challenges", Some(Code::FA_POORLY_FORMED_REQUEST), None, "two challenges", "The request answers two challenges.";
    ChallengeUnsigned = "challenge-unsigned", None, Some(Discard::NoAuthentication), "answer not signed", "The node answered a challenge, and signed the answer for nobody.";
    ChallengeUnproven = "challenge-unproven", Some(Code::FA_MOBILE_NODE_FAILED_AUTHENTICATION), Some(Discard::BadMobileForeignAuthenticator), "answer not verifiable", "The foreign agent wants its challenge answered, and shares no key with the node to verify the answer.";
    AnswerersFull = "answerers-full", Some(Code::FA_INSUFFICIENT_RESOURCES), None, "no room for challenges", "The foreign agent remembers the challenges of as many nodes as it may, or of as many sessions of the NAI.";
    VisitorReservedFlags = "visitor-reserved-flags", Some(Code::FA_POORLY_FORMED_REQUEST), None, "reserved flag set", "The request has a flag set that must be zero.";
    HeaderCompression = "header-compression", Some(Code::FA_HEADER_COMPRESSION_UNAVAILABLE), None, "no compression", "The node asked for header compression, which there is not.";
    NoHomeAddress = "no-home-address", Some(Code::FA_POORLY_FORMED_REQUEST), None, "no home address", "The home address that the request names is no host's.";
    MissingNai = "missing-nai", Some(Code::MISSING_NAI), None, "send your NAI", "The request has neither a home address nor a network access identifier.";
    VisitorBadName = "visitor-bad-name", Some(Code::FA_POORLY_FORMED_REQUEST), None, "bad session name", "The network access identifier of the request, or the name of its session, is empty, too long, or there twice.";
    VisitorUnsignedForHome = "visitor-unsigned-for-home", Some(Code::FA_POORLY_FORMED_REQUEST), None, "not signed", "The request is not signed for the home agent.";
    VisitorBrokenExtensions = "visitor-broken-extensions", Some(Code::FA_POORLY_FORMED_REQUEST), None, "poorly formed", "The extensions of the request cannot be read.";
    DeliveryWithoutReverseTunnel = "delivery-without-reverse-tunnel", Some(Code::FA_POORLY_FORMED_REQUEST), None, "no T with delivery", "The node asked for encapsulating delivery without a reverse tunnel.";
    VisitorProhibited = "visitor-prohibited", Some(Code::FA_PROHIBITED), None, "not admitted", "The foreign agent admits nobody: it is switched off.";
    AddressTaken = "address-taken", Some(Code::FA_PROHIBITED), None, "address in use", "Another node visits with the same home address, and nothing would tell the two apart.";
    NoHomeAgent = "no-home-agent", Some(Code::NONZERO_HOME_AGENT_REQUIRED), None, "name a home agent", "The node left the choice of a home agent to the network, and the foreign agent knows none for it.";
    InvalidHomeAgent = "invalid-home-agent", Some(Code::INVALID_HOME_AGENT_ADDRESS), None, "invalid home agent", "The home agent that the request names is the foreign agent itself, or no host.";
    InvalidCareOfAddress = "invalid-care-of-address", Some(Code::INVALID_CARE_OF_ADDRESS), None, "bad care-of address", "The care-of address is not the foreign agent's, or is but was called the node's own.";
    LifetimeTooLong = "lifetime-too-long", Some(Code::LIFETIME_TOO_LONG), None, "lifetime too long", "The node asked for a longer lifetime than the foreign agent allows, and was told the longest.";
    VisitorEncapsulationRefused = "visitor-encapsulation-refused", Some(Code::FA_ENCAPSULATION_UNAVAILABLE), None, "encapsulation refused", "The foreign agent does not offer the encapsulation that the node asked for.";
    VisitorReverseTunnelRefused = "visitor-reverse-tunnel-refused", Some(Code::FA_REVERSE_TUNNEL_UNAVAILABLE), None, "no reverse tunnel", "The node asked for a reverse tunnel, and the foreign agent offers none.";
    VisitorReverseTunnelMandatory = "visitor-reverse-tunnel-mandatory", Some(Code::FA_REVERSE_TUNNEL_MANDATORY), None, "reverse tunnel needed", "The foreign agent wants visitors to ask for a reverse tunnel, and this one did not.";
    DeliveryStyleRefused = "delivery-style-refused", Some(Code::FA_DELIVERY_STYLE_NOT_SUPPORTED), None, "delivery not offered", "The foreign agent does not offer encapsulating delivery.";
    TooDistant = "too-distant", Some(Code::FA_MOBILE_NODE_TOO_DISTANT), None, "node too distant", "The node asked for a reverse tunnel from behind a router: it is not on the foreign agent's link.";
    VisitorsFull = "visitors-full", Some(Code::FA_INSUFFICIENT_RESOURCES), None, "no room for visitors", "The foreign agent has as many visitors as it may hold.";
    PendingFull = "pending-full", Some(Code::FA_INSUFFICIENT_RESOURCES), None, "too many pending", "As many requests wait for home agents' answers as may.";
    PendingOfNodeFull = "pending-of-node-full", Some(Code::FA_INSUFFICIENT_RESOURCES), None, "too many pending", "As many requests of this one node wait for an answer as may.";

    SessionsOfNaiFull = "sessions-of-nai-full", Some(Code::FA_INSUFFICIENT_RESOURCES), None, "too many sessions", "The network access identifier has as many visitors as one may have.";
    NaiRateLimited = "nai-rate-limited", Some(Code::FA_INSUFFICIENT_RESOURCES), None, "too many requests", "The node has sent as many requests with its network access identifier as it may in a minute.";

    // Foreign agent: a reply, or none.
    HomeAgentDenied = "home-agent-denied", None, None, "home agent denied", "The home agent denied the request, and the foreign agent relayed its answer.";
    HomeAgentSilent = "home-agent-silent", Some(Code::REGISTRATION_TIMEOUT), None, "home agent is silent", "The home agent did not answer in time.";
    HomeNetworkUnreachable = "home-network-unreachable", Some(Code::HOME_NETWORK_UNREACHABLE), None, "no route to home", "A router on the way said that the home agent's network cannot be reached.";
    HomeAgentHostUnreachable = "home-agent-host-unreachable", Some(Code::HOME_AGENT_HOST_UNREACHABLE), None, "home agent is down", "A router on the way said that the home agent's host cannot be reached.";
    HomeAgentPortUnreachable = "home-agent-port-unreachable", Some(Code::HOME_AGENT_PORT_UNREACHABLE), None, "no home agent there", "The host is there, but no home agent listens on it.";
    HomeAgentUnreachable = "home-agent-unreachable", Some(Code::HOME_AGENT_UNREACHABLE), None, "home unreachable", "A router on the way said that the home agent cannot be reached.";
    ReplyWrongKey = "reply-wrong-key", Some(Code::FA_HOME_AGENT_FAILED_AUTHENTICATION), Some(Discard::BadForeignHomeAuthenticator), "home agent's key", "The home agent's reply is not signed with the key that the foreign agent shares with it.";
    ReplyMalformed = "reply-malformed", Some(Code::FA_POORLY_FORMED_REPLY), Some(Discard::Malformed), "bad reply", "The home agent's reply cannot be read, or is not signed for the node.";
    ReplyWithoutNai = "reply-without-nai", Some(Code::MISSING_NAI), None, "no NAI in reply", "The home agent gave a home address and did not say to whose network access identifier.";
    ReplyWithoutHomeAgent = "reply-without-home-agent", Some(Code::MISSING_HOME_AGENT), None, "no home agent in reply", "The home agent's reply does not name it.";
    ReplyWithoutHomeAddress = "reply-without-home-address", Some(Code::MISSING_HOME_ADDRESS), None, "no address in reply", "The home agent accepted the request and gave no home address.";
    NotPending = "not-pending", None, Some(Discard::NotPending), "not asked for", "A reply came that answers no request that is pending.";
    ReplyOfAnother = "reply-of-another", None, Some(Discard::WrongHomeAgent), "not asked for", "The reply did not come from the home agent that was asked.";

    // Both: that a registration is no more (RFC 3543).
    Revoked = "revoked", None, None, "revoked", "The registration was revoked by the agent at its other end.";
    RevokedBefore = "revoked-before", None, None, "revoked before", "The agent at the other end revoked what was gone already, and was told so.";
    RevocationAcknowledged = "revocation-acknowledged", None, None, "revoked", "The agent at the other end acknowledged that we revoked the registration.";
    RevocationReflected = "revocation-reflected", None, Some(Discard::Reflected), "reflected", "The revocation is for an agent of the other kind: perhaps it is our own, sent back.";
    RevocationMalformed = "revocation-malformed", None, Some(Discard::Malformed), "poorly formed", "The extensions of what another agent said of a revocation cannot be read.";
    RevocationUnsigned = "revocation-unsigned", None, Some(Discard::NoAuthentication), "not signed", "What was said of a revocation is not signed by the agent at the other end.";
    RevocationUnknownSpi = "revocation-unknown-spi", None, Some(Discard::NoSecurityAssociation), "agent unknown", "What was said of a revocation is signed with an SPI that is not shared with its sender.";
    RevocationWrongKey = "revocation-wrong-key", None, Some(Discard::BadForeignHomeAuthenticator), "wrong key", "What was said of a revocation is not signed with the key that is shared with its sender.";
    RevocationOfAnother = "revocation-of-another", None, Some(Discard::WrongHomeAgent), "wrong home agent", "The revocation names another home agent than the one that it came to, or from.";
    RevocationElsewhere = "revocation-elsewhere", None, Some(Discard::WrongDestination), "wrong care-of address", "The revocation names a care-of address that is not this foreign agent's.";
    RevocationReplayed = "revocation-replayed", None, Some(Discard::Replay), "older than it", "The revocation is older than the registration, or came before: it is a copy.";
    RevocationNotAgreed = "revocation-not-agreed", None, Some(Discard::NotRegistered), "not agreed on", "The registration was made without an agreement on revocations with the sender.";
    RevocationNotRegistered = "revocation-not-registered", None, Some(Discard::NotRegistered), "not registered", "The revocation is of a registration that there is not.";
    AcknowledgementNotAwaited = "acknowledgement-not-awaited", None, Some(Discard::NotPending), "not asked for", "An acknowledgement came of no revocation that waits for one.";
}

impl Cause {
    /// Whether who sent it has what it asked for, or may still get it.
    pub const fn is_favourable(self) -> bool {
        matches!(self, Cause::Accepted | Cause::Deregistered | Cause::Repeated | Cause::Relayed)
            || self.is_of_revocation()
    }

    /// Whether a registration was revoked, by us or by the agent at its other end.
    pub const fn is_of_revocation(self) -> bool {
        matches!(self, Cause::Revoked | Cause::RevokedBefore | Cause::RevocationAcknowledged)
    }
}
