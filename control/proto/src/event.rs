//! What an operator is told: one event for each thing that happened to a
//! registration, with its reason in a form that counters and logs share.

use core::net::Ipv4Addr;
use homeport_wire::{TenantId, reasons};

use crate::Lifetime;
use crate::decision::Decision;
use serde::{Deserialize, Serialize};

reasons! {
    /// Why a message on UDP 434, or an ICMP message of discovery, was discarded
    /// without a reply.
    DiscardReason {
        Malformed = "malformed", "The message does not parse.";
        UnknownType = "unknown-type", "The message type is not one that this agent serves.";
        UnknownExtension = "unknown-extension", "An extension below 128 is unknown, so the whole message must be dropped (RFC 5944 1.8).";
        NoAuthentication = "no-authentication", "No authorization-enabling extension.";
        NoSecurityAssociation = "no-security-association", "No security association for this node and SPI.";
        BadMobileHomeAuthenticator = "bad-mobile-home-authenticator", "The mobile-home authenticator is wrong and no reply is owed.";
        BadMobileForeignAuthenticator = "bad-mobile-foreign-authenticator", "The mobile-foreign authenticator is wrong.";
        BadForeignHomeAuthenticator = "bad-foreign-home-authenticator", "The foreign-home authenticator is wrong.";
        NotPending = "not-pending", "A reply that answers no pending request.";
        WrongHomeAgent = "wrong-home-agent", "The Home Agent field or the source is not the expected home agent.";
        WrongDestination = "wrong-destination", "The destination is neither a served address nor one that a denial is owed to.";
        BadSource = "bad-source", "The source address or port is one that nobody can be answered at.";
        OwnAddress = "own-address", "The source is an address of this agent.";
        ReplyToReply = "reply-to-reply", "A reply arrived where only requests are served.";
        Duplicate = "duplicate", "A retransmission of a request that is still pending.";
        RateLimited = "rate-limited", "More than this source may send.";
        Replay = "replay", "A stale identification where no reply is owed.";
        BadTtl = "bad-ttl", "The TTL is not what the protocol demands.";
        NotServed = "not-served", "No agent here serves this link.";
        Reflected = "reflected", "A revocation of our own kind: of a home agent to a home agent, or of a foreign agent to a foreign agent (RFC 3543 3.5).";
        NotRegistered = "not-registered", "A revocation of what is not registered here, or not revocable by its sender.";
        StrayKeepalive = "stray-keepalive", "An echo message or data out of a UDP tunnel that nobody asked for (RFC 3519 4.6).";
    }
}

/// Something that happened to a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A home agent answered a request. A `code` of 0 or 1 accepted it.
    HomeRegistration {
        /// The virtual home agent.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
        /// Where it is.
        care_of_address: Ipv4Addr,
        /// The code of the reply (RFC 5944 §3.4).
        code: u8,
        /// The lifetime granted.
        lifetime: Lifetime,
    },
    /// A foreign agent relayed a home agent's answer, or gave its own.
    ForeignRegistration {
        /// The foreign agent's tenant.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
        /// Its home agent.
        home_agent: Ipv4Addr,
        /// The code of the reply.
        code: u8,
        /// The lifetime granted.
        lifetime: Lifetime,
    },
    /// A binding's lifetime ended without renewal.
    BindingExpired {
        /// The virtual home agent.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
        /// Where it was.
        care_of_address: Ipv4Addr,
    },
    /// A visitor's lifetime ended without renewal.
    VisitorExpired {
        /// The foreign agent's tenant.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
        /// Its home agent.
        home_agent: Ipv4Addr,
    },
    /// A foreign agent has revoked a registration (RFC 3543).
    BindingRevoked {
        /// The virtual home agent.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
        /// Where it was.
        care_of_address: Ipv4Addr,
    },
    /// A home agent has revoked a visitor's registration (RFC 3543).
    VisitorRevoked {
        /// The foreign agent's tenant.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
        /// Its home agent.
        home_agent: Ipv4Addr,
    },
    /// The first keepalive of a half-bound tunnel said which port it has (RFC
    /// 3519 §4.11).
    TunnelBound {
        /// The virtual home agent.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
        /// What it calls its care-of address.
        care_of_address: Ipv4Addr,
        /// Where its tunnel goes.
        address: Ipv4Addr,
        /// The port there.
        port: u16,
    },
    /// Nobody answered at the outer address that a registration came from: it has
    /// been removed.
    PathUnproven {
        /// The virtual home agent.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
        /// What it calls its care-of address.
        care_of_address: Ipv4Addr,
        /// Where its tunnel went.
        address: Ipv4Addr,
        /// The port there.
        port: u16,
    },
    /// A node's data comes from another port than its tunnel's: a NAT on the way
    /// has forgotten its mapping, and nothing is forwarded before the node
    /// registers anew.
    Rebound {
        /// The virtual home agent.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
        /// The outer address of its tunnel.
        address: Ipv4Addr,
        /// The port of its tunnel.
        port: u16,
        /// The port that its data came from.
        seen_port: u16,
    },
    /// A registration message was decided upon: why, and what was said. It is for people,
    /// who may be told more one day: it is not part of a recording.
    #[serde(skip)]
    Decision(Decision),
    /// A message was discarded.
    Discarded {
        /// Whose message it would have been.
        tenant: TenantId,
        /// Who sent it.
        source: Ipv4Addr,
        /// Why.
        reason: DiscardReason,
    },
}
