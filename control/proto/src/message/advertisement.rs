//! Agent advertisement and agent solicitation: ICMP router discovery (RFC 1256)
//! with the extensions of RFC 5944 §2.1 and RFC 4721 §2.

use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;
use homeport_wire::WireError;
use homeport_wire::icmpv4::{
    Icmpv4Header, Icmpv4Packet, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION,
};
use zerocopy::IntoBytes;

use crate::Lifetime;

/// Flags of the mobility agent extension: the byte behind the registration
/// lifetime, then the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AgentFlags(pub u16);

impl AgentFlags {
    /// Registration through a foreign agent is required.
    pub const REGISTRATION_REQUIRED: AgentFlags = AgentFlags(0x8000);
    /// The foreign agent takes no more registrations.
    pub const BUSY: AgentFlags = AgentFlags(0x4000);
    /// A home agent.
    pub const HOME_AGENT: AgentFlags = AgentFlags(0x2000);
    /// A foreign agent.
    pub const FOREIGN_AGENT: AgentFlags = AgentFlags(0x1000);
    /// Takes minimal encapsulation.
    pub const MINIMAL: AgentFlags = AgentFlags(0x0800);
    /// Takes GRE.
    pub const GRE: AgentFlags = AgentFlags(0x0400);
    /// Takes reverse tunnelling (RFC 3024 §3.1).
    pub const REVERSE_TUNNEL: AgentFlags = AgentFlags(0x0100);
    /// Takes UDP tunnelling (RFC 3519 §3.3).
    pub const UDP_TUNNEL: AgentFlags = AgentFlags(0x0080);
    /// Takes part in revocations (flag X, RFC 3543 §3.1).
    pub const REVOCATION: AgentFlags = AgentFlags(0x0040);

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: AgentFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and those.
    #[must_use]
    pub const fn with(self, flags: AgentFlags) -> Self {
        AgentFlags(self.0 | flags.0)
    }
}

/// The mobility agent advertisement extension, type 16.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MobilityAgent {
    /// Counts advertisements since the agent started: 0 to 0xffff, then from 256.
    pub sequence: u16,
    /// The longest lifetime that a foreign agent accepts.
    pub registration_lifetime: Lifetime,
    /// What the agent is and offers.
    pub flags: AgentFlags,
    /// The foreign agent's care-of addresses.
    pub care_of_addresses: Vec<Ipv4Addr>,
}

/// An agent advertisement, or a plain router advertisement without `mobility`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentAdvertisement {
    /// 0: also routes ordinary traffic; 16: does not (RFC 5944 §2.1).
    pub code: u8,
    /// Seconds that the advertised addresses are good for.
    pub lifetime: u16,
    /// Router addresses with their preference.
    pub routers: Vec<(Ipv4Addr, i32)>,
    /// The mobility agent extension.
    pub mobility: Option<MobilityAgent>,
    /// Prefix lengths of the router addresses, in their order (type 19).
    pub prefix_lengths: Vec<u8>,
    /// The challenge (type 24, RFC 4721 §2).
    pub challenge: Option<Vec<u8>>,
}

const PAD: u8 = 0;
const MOBILITY_AGENT: u8 = 16;
const PREFIX_LENGTHS: u8 = 19;
const CHALLENGE: u8 = 24;

/// Why an ICMP message is no advertisement or solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryError {
    /// It is no ICMP message.
    Wire(WireError),
    /// Its type or code is another.
    Type,
    /// Its addresses or an extension reach past the message, or are too short.
    Length,
    /// An extension below 128 is unknown: discard (RFC 5944 §1.8).
    UnknownExtension(u8),
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiscoveryError::Wire(error) => error.fmt(f),
            DiscoveryError::Type => f.write_str("not an ICMP type and code of router discovery"),
            DiscoveryError::Length => f.write_str("a length disagrees with the message"),
            DiscoveryError::UnknownExtension(number) => {
                write!(f, "extension type {number} is unknown and not skippable")
            }
        }
    }
}

impl core::error::Error for DiscoveryError {}

impl AgentAdvertisement {
    /// The advertisement in an ICMP message, from its type to its end.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub fn parse(icmp: &[u8]) -> Result<Self, DiscoveryError> {
        let packet = Icmpv4Packet::new_checked(icmp).map_err(DiscoveryError::Wire)?;
        let header = packet.header();
        if header.message_type != ROUTER_ADVERTISEMENT || !matches!(header.code, 0 | 16) {
            return Err(DiscoveryError::Type);
        }
        let [count, words_per_entry, high, low] = header.rest;
        // Later versions may have longer entries; what is behind address and
        // preference is not ours to read (RFC 1256 §4.2).
        let entry_len = usize::from(words_per_entry) * 4;
        if entry_len < 8 {
            return Err(DiscoveryError::Length);
        }
        let split = usize::from(count) * entry_len;
        let (entries, mut rest) =
            packet.body().split_at_checked(split).ok_or(DiscoveryError::Length)?;
        let mut advertisement = AgentAdvertisement {
            code: header.code,
            lifetime: u16::from_be_bytes([high, low]),
            routers: Vec::with_capacity(usize::from(count)),
            mobility: None,
            prefix_lengths: Vec::new(),
            challenge: None,
        };
        for entry in entries.chunks_exact(entry_len) {
            let (address, preference) =
                entry.split_first_chunk::<4>().ok_or(DiscoveryError::Length)?;
            let preference = preference.first_chunk::<4>().ok_or(DiscoveryError::Length)?;
            advertisement.routers.push((Ipv4Addr::from(*address), i32::from_be_bytes(*preference)));
        }
        while let Some((&extension_type, behind)) = rest.split_first() {
            if extension_type == PAD {
                rest = behind;
                continue;
            }
            let (&len, behind) = behind.split_first().ok_or(DiscoveryError::Length)?;
            let (data, behind) =
                behind.split_at_checked(usize::from(len)).ok_or(DiscoveryError::Length)?;
            advertisement.take_extension(extension_type, data)?;
            rest = behind;
        }
        Ok(advertisement)
    }

    fn take_extension(&mut self, extension_type: u8, data: &[u8]) -> Result<(), DiscoveryError> {
        match extension_type {
            MOBILITY_AGENT => {
                let (fixed, addresses) =
                    data.split_first_chunk::<6>().ok_or(DiscoveryError::Length)?;
                let [a, b, c, d, e, f] = *fixed;
                let (addresses, []) = addresses.as_chunks::<4>() else {
                    return Err(DiscoveryError::Length);
                };
                self.mobility = Some(MobilityAgent {
                    sequence: u16::from_be_bytes([a, b]),
                    registration_lifetime: Lifetime(u16::from_be_bytes([c, d])),
                    flags: AgentFlags(u16::from_be_bytes([e, f])),
                    care_of_addresses: addresses
                        .iter()
                        .map(|octets| Ipv4Addr::from(*octets))
                        .collect(),
                });
            }
            PREFIX_LENGTHS => self.prefix_lengths = data.to_vec(),
            CHALLENGE => self.challenge = Some(data.to_vec()),
            128..=255 => {}
            other => return Err(DiscoveryError::UnknownExtension(other)),
        }
        Ok(())
    }

    /// The ICMP message, checksum included. Lists longer than their length
    /// fields can say are cut: 255 routers and prefix lengths, 62 care-of
    /// addresses, 255 bytes of challenge.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "every count is bounded by take() just before"
    )]
    pub fn emit(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let routers = self.routers.iter().take(255);
        let count = routers.len() as u8;
        for (address, preference) in routers {
            body.extend_from_slice(&address.octets());
            body.extend_from_slice(&preference.to_be_bytes());
        }
        if let Some(mobility) = &self.mobility {
            let addresses = mobility.care_of_addresses.iter().take(62);
            body.extend_from_slice(&[MOBILITY_AGENT, 6 + 4 * addresses.len() as u8]);
            body.extend_from_slice(&mobility.sequence.to_be_bytes());
            body.extend_from_slice(&mobility.registration_lifetime.0.to_be_bytes());
            body.extend_from_slice(&mobility.flags.0.to_be_bytes());
            body.extend(addresses.flat_map(|address| address.octets()));
        }
        if !self.prefix_lengths.is_empty() {
            let lengths = self.prefix_lengths.iter().take(255);
            body.extend_from_slice(&[PREFIX_LENGTHS, lengths.len() as u8]);
            body.extend(lengths);
        }
        if let Some(challenge) = &self.challenge {
            let bytes = challenge.iter().take(255);
            body.extend_from_slice(&[CHALLENGE, bytes.len() as u8]);
            body.extend(bytes);
        }
        let [high, low] = self.lifetime.to_be_bytes();
        icmp(ROUTER_ADVERTISEMENT, self.code, [count, 2, high, low], &body)
    }
}

/// An agent solicitation: a router solicitation (RFC 5944 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentSolicitation;

impl AgentSolicitation {
    /// The solicitation in an ICMP message.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub fn parse(icmp: &[u8]) -> Result<Self, DiscoveryError> {
        let packet = Icmpv4Packet::new_checked(icmp).map_err(DiscoveryError::Wire)?;
        let header = packet.header();
        let is_solicitation = header.message_type == ROUTER_SOLICITATION && header.code == 0;
        if is_solicitation { Ok(AgentSolicitation) } else { Err(DiscoveryError::Type) }
    }

    /// The ICMP message, checksum included.
    pub fn emit(&self) -> Vec<u8> {
        icmp(ROUTER_SOLICITATION, 0, [0; 4], &[])
    }
}

fn icmp(message_type: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let header = Icmpv4Header::new(message_type, code, rest, body);
    let mut message = Vec::with_capacity(Icmpv4Header::LEN + body.len());
    message.extend_from_slice(header.as_bytes());
    message.extend_from_slice(body);
    message
}
