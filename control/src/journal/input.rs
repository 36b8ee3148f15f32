//! What the agents can be told: as it is handed over, and as it is kept.

use std::net::Ipv4Addr;

use homeport_proto::agent::{Agent, Datagram};
use homeport_proto::config::AgentConfig;
use homeport_proto::{MacAddress, Now, PortId, StoredSession, TenantId, TunnelledEcho};
use serde::{Deserialize, Serialize};

/// One input of the agents.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A datagram to port 434.
    Datagram(Datagram<'a>),
    /// An agent solicitation.
    Solicitation {
        /// The tenant of the link.
        tenant: TenantId,
        /// The link.
        port: PortId,
        /// The station that asks.
        source_mac: MacAddress,
        /// Its address.
        source: Ipv4Addr,
        /// Time to live as it arrived.
        ttl: u8,
        /// The message from its type.
        icmp: &'a [u8],
    },
    /// An ICMP error.
    Unreachable {
        /// The tenant of the port that it came in on.
        tenant: TenantId,
        /// Who sent it.
        source: Ipv4Addr,
        /// The message from its type.
        icmp: &'a [u8],
    },
    /// An echo message out of a UDP tunnel.
    Keepalive(TunnelledEcho<'a>),
    /// Data from another port than the tunnel's.
    Rebound {
        /// The tenant.
        tenant: TenantId,
        /// The node, or who is behind it.
        inner_source: Ipv4Addr,
        /// The outer address.
        source: Ipv4Addr,
        /// The outer port.
        source_port: u16,
    },
    /// An operator removes a binding.
    ClearBinding {
        /// The tenant.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
    },
    /// An operator takes a visitor away.
    ClearVisitor {
        /// The tenant.
        tenant: TenantId,
        /// The node.
        home_address: Ipv4Addr,
    },
    /// A session from before the start.
    RestoreSession {
        /// The tenant.
        tenant: TenantId,
        /// The home agent.
        home_agent: Ipv4Addr,
        /// Which address is whose.
        session: StoredSession,
    },
    /// A config comes into force.
    Config(AgentConfig),
    /// A timer is due.
    Timeout,
}

impl Input<'_> {
    /// Hands it to the agents. Returns whether an input that may find nothing has
    /// found something.
    pub fn apply(self, agent: &mut Agent, now: Now) -> bool {
        match self {
            Input::Datagram(datagram) => agent.handle_datagram(&datagram, now),
            Input::Solicitation { tenant, port, source_mac, source, ttl, icmp } => {
                agent.handle_solicitation(tenant, port, source_mac, source, ttl, icmp, now);
            }
            Input::Unreachable { tenant, source, icmp } => {
                agent.handle_unreachable(tenant, source, icmp, now);
            }
            Input::Keepalive(echo) => agent.handle_keepalive(&echo, now),
            Input::Rebound { tenant, inner_source, source, source_port } => {
                agent.handle_rebound(tenant, inner_source, source, source_port, now);
            }
            Input::ClearBinding { tenant, home_address } => {
                return agent.clear_binding(tenant, home_address, now);
            }
            Input::ClearVisitor { tenant, home_address } => {
                return agent.clear_visitor(tenant, home_address, now) > 0;
            }
            Input::RestoreSession { tenant, home_agent, session } => {
                return agent.restore_session(tenant, home_agent, &session, now);
            }
            Input::Config(config) => agent.handle_config(config, now),
            Input::Timeout => agent.handle_timeout(now),
        }
        true
    }
}

/// The same, as it is kept. A config is kept in a file of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields of `Input`")]
pub enum Stored {
    /// A datagram to port 434.
    Datagram {
        tenant: TenantId,
        port: PortId,
        source_mac: MacAddress,
        destination_mac: MacAddress,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        source_port: u16,
        destination_port: u16,
        ttl: u8,
        #[serde(with = "homeport_proto::hex")]
        payload: Vec<u8>,
    },
    /// An agent solicitation.
    Solicitation {
        tenant: TenantId,
        port: PortId,
        source_mac: MacAddress,
        source: Ipv4Addr,
        ttl: u8,
        #[serde(with = "homeport_proto::hex")]
        icmp: Vec<u8>,
    },
    /// An ICMP error.
    Unreachable {
        tenant: TenantId,
        source: Ipv4Addr,
        #[serde(with = "homeport_proto::hex")]
        icmp: Vec<u8>,
    },
    /// An echo message out of a UDP tunnel.
    Keepalive {
        tenant: TenantId,
        source: Ipv4Addr,
        source_port: u16,
        destination: Ipv4Addr,
        inner_source: Ipv4Addr,
        inner_destination: Ipv4Addr,
        plain: bool,
        #[serde(with = "homeport_proto::hex")]
        icmp: Vec<u8>,
    },
    /// Data from another port than the tunnel's.
    Rebound { tenant: TenantId, inner_source: Ipv4Addr, source: Ipv4Addr, source_port: u16 },
    /// An operator removes a binding.
    ClearBinding { tenant: TenantId, home_address: Ipv4Addr },
    /// An operator removes a visitor.
    ClearVisitor { tenant: TenantId, home_address: Ipv4Addr },
    /// A session from before the start.
    RestoreSession { tenant: TenantId, home_agent: Ipv4Addr, session: StoredSession },
    /// A config comes into force.
    Config(StoredConfig),
    /// A timer is due.
    Timeout,
}

/// A config that is handed to the thread that writes, or the name of its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StoredConfig {
    /// The name of its file.
    File(String),
    /// Itself.
    #[serde(skip)]
    Whole(Box<AgentConfig>),
}

impl From<&Input<'_>> for Stored {
    fn from(input: &Input<'_>) -> Self {
        match *input {
            Input::Datagram(Datagram {
                tenant,
                port,
                source_mac,
                destination_mac,
                source,
                destination,
                source_port,
                destination_port,
                ttl,
                payload,
            }) => Stored::Datagram {
                tenant,
                port,
                source_mac,
                destination_mac,
                source,
                destination,
                source_port,
                destination_port,
                ttl,
                payload: payload.to_vec(),
            },
            Input::Solicitation { tenant, port, source_mac, source, ttl, icmp } => {
                let icmp = icmp.to_vec();
                Stored::Solicitation { tenant, port, source_mac, source, ttl, icmp }
            }
            Input::Unreachable { tenant, source, icmp } => {
                Stored::Unreachable { tenant, source, icmp: icmp.to_vec() }
            }
            Input::Keepalive(TunnelledEcho {
                tenant,
                source,
                source_port,
                destination,
                inner_source,
                inner_destination,
                plain,
                icmp,
            }) => Stored::Keepalive {
                tenant,
                source,
                source_port,
                destination,
                inner_source,
                inner_destination,
                plain,
                icmp: icmp.to_vec(),
            },
            Input::Rebound { tenant, inner_source, source, source_port } => {
                Stored::Rebound { tenant, inner_source, source, source_port }
            }
            Input::ClearBinding { tenant, home_address } => {
                Stored::ClearBinding { tenant, home_address }
            }
            Input::ClearVisitor { tenant, home_address } => {
                Stored::ClearVisitor { tenant, home_address }
            }
            Input::RestoreSession { tenant, home_agent, ref session } => {
                Stored::RestoreSession { tenant, home_agent, session: session.clone() }
            }
            Input::Config(ref config) => {
                Stored::Config(StoredConfig::Whole(Box::new(config.clone())))
            }
            Input::Timeout => Stored::Timeout,
        }
    }
}

impl Stored {
    /// As it is handed over; `read` reads a config by the name of its file.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) fn input<E>(
        &self,
        read: impl FnOnce(&str) -> Result<AgentConfig, E>,
    ) -> Result<Input<'_>, E> {
        Ok(match *self {
            Stored::Datagram {
                tenant,
                port,
                source_mac,
                destination_mac,
                source,
                destination,
                source_port,
                destination_port,
                ttl,
                ref payload,
            } => Input::Datagram(Datagram {
                tenant,
                port,
                source_mac,
                destination_mac,
                source,
                destination,
                source_port,
                destination_port,
                ttl,
                payload,
            }),
            Stored::Solicitation { tenant, port, source_mac, source, ttl, ref icmp } => {
                Input::Solicitation { tenant, port, source_mac, source, ttl, icmp }
            }
            Stored::Unreachable { tenant, source, ref icmp } => {
                Input::Unreachable { tenant, source, icmp }
            }
            Stored::Keepalive {
                tenant,
                source,
                source_port,
                destination,
                inner_source,
                inner_destination,
                plain,
                ref icmp,
            } => Input::Keepalive(TunnelledEcho {
                tenant,
                source,
                source_port,
                destination,
                inner_source,
                inner_destination,
                plain,
                icmp,
            }),
            Stored::Rebound { tenant, inner_source, source, source_port } => {
                Input::Rebound { tenant, inner_source, source, source_port }
            }
            Stored::ClearBinding { tenant, home_address } => {
                Input::ClearBinding { tenant, home_address }
            }
            Stored::ClearVisitor { tenant, home_address } => {
                Input::ClearVisitor { tenant, home_address }
            }
            Stored::RestoreSession { tenant, home_agent, ref session } => {
                Input::RestoreSession { tenant, home_agent, session: session.clone() }
            }
            Stored::Config(StoredConfig::File(ref name)) => Input::Config(read(name)?),
            Stored::Config(StoredConfig::Whole(ref config)) => Input::Config((**config).clone()),
            Stored::Timeout => Input::Timeout,
        })
    }
}
