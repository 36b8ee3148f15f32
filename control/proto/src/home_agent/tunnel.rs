//! How the packets of a registration are tunnelled: what the request asks for,
//! what its outer header says, and what is allowed here (RFC 3519 §4.6, RFC 6245
//! §4.2).
//!
//! RFC 3519 says of Reserved 3 both that the extension is to be skipped (§3.1.3)
//! and that the request is to be denied with 134 (§4.6.1); here it is 134, which a
//! node can understand.

use core::net::Ipv4Addr;
use homeport_wire::IpProtocol;

use super::extra::{Extra, Extras, Writer};
use super::{Asked, ForeignHome, HomeAgent};
use crate::Encapsulation;
use crate::agent::Context;
use crate::config::{EncapsulationSet, NatTraversal};
use crate::decision::Cause;
use crate::message::extension::Located;
use crate::message::{
    AuthenticationKind, Extension, Received, RegistrationRequest, RequestFlags, UdpTunnelReply,
    UdpTunnelRequest,
};

/// What a request's extensions say about its tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TunnelWish {
    /// The UDP tunnel request, and who put it there.
    pub(super) udp: Option<(Writer, UdpTunnelRequest)>,
    gre_key: Option<(Writer, u32)>,
    /// Whether one of them is there twice, or where nothing may be.
    malformed: bool,
}

/// How a registration is tunnelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tunnel {
    /// The effective care-of address.
    pub(super) address: Ipv4Addr,
    pub(super) encapsulation: Encapsulation,
    /// Whether `address` and port are not yet shown to be the node's.
    pub(super) unproven: bool,
    /// Whether a challenge must be answered before there is a tunnel.
    pub(super) challenged: bool,
}

impl TunnelWish {
    pub(super) fn of(received: &Received<'_, RegistrationRequest>) -> Self {
        let mut wish = TunnelWish::default();
        let mobile_home = received.mobile_home_authentication().map(|one| one.offset);
        let foreign_home = received.authentications(AuthenticationKind::ForeignHome).last();
        for Located { offset, extension, .. } in received.extensions() {
            let (udp, gre_key) = match extension {
                Extension::UdpTunnelRequest(udp) => (Some(*udp), None),
                Extension::GreKey(key) => (None, Some(*key)),
                _ => continue,
            };
            // RFC 5944 §3.6.1.3, §3.7.2.2: the node's stand in front of its
            // authentication, the foreign agent's behind that and in front of its
            // own.
            let writer = match mobile_home {
                Some(authentication) if *offset < authentication => Writer::MobileNode,
                _ => Writer::ForeignAgent,
            };
            let unsigned = foreign_home.is_some_and(|one| *offset > one.offset);
            let twice =
                udp.is_some() && wish.udp.is_some() || gre_key.is_some() && wish.gre_key.is_some();
            wish.malformed |= unsigned || twice;
            wish.udp = wish.udp.or(udp.map(|udp| (writer, udp)));
            wish.gre_key = wish.gre_key.or(gre_key.map(|key| (writer, key)));
        }
        wish
    }
}

impl HomeAgent {
    /// The foreign agent that relayed a request: its source, unless that is the
    /// node itself, at home, at its co-located care-of address, or behind a NAT.
    pub(super) fn relaying_agent(&self, asked: &Asked<'_, '_>) -> Option<Ipv4Addr> {
        let (source, request) = (asked.datagram.source, &asked.request);
        let co_located = request.flags.contains(RequestFlags::CO_LOCATED);
        let through_nat = match self.config.nat.traversal {
            // RFC 3519 §4.4: without R, a node that asks for a UDP tunnel of its own
            // registers with us directly.
            NatTraversal::Rfc3519 | NatTraversal::Off => matches!(
                asked.wish.udp,
                Some((Writer::MobileNode, udp)) if !udp.registration_required
            ),
            // Nor does a node answer a challenge for a foreign agent that we know.
            NatTraversal::Challenge => matches!(asked.foreign_home, ForeignHome::NotShared),
        };
        let is_node = source == request.home_address
            || co_located && (source == request.care_of_address || through_nat);
        (!is_node).then_some(source)
    }

    /// The tunnel that an authentic registration gets, and what its reply says of
    /// it.
    pub(super) fn negotiate(
        &self,
        asked: &Asked<'_, '_>,
        extras: &mut Extras,
        context: &mut Context<'_>,
    ) -> Result<Tunnel, Cause> {
        if asked.wish.malformed {
            return Err(Cause::MisplacedExtension);
        }
        // RFC 3519 §4.6: this mismatch, and nothing else, indicates a NAT.
        let mismatch = asked.datagram.source != asked.request.care_of_address;
        if let Some((writer, udp)) = asked.wish.udp {
            check_form(asked, writer, udp)?;
            match self.config.nat.traversal {
                NatTraversal::Rfc3519 => {
                    let tunnel = self.udp_tunnel(asked, writer, udp, mismatch, extras, context)?;
                    if let Some(tunnel) = tunnel {
                        return Ok(tunnel);
                    }
                }
                // §4.6.1: not allowed here, though understood.
                NatTraversal::Off if mismatch || udp.forced => {
                    return Err(Cause::NatNotTraversed);
                }
                NatTraversal::Off | NatTraversal::Challenge => {}
            }
        }
        let co_located = asked.request.flags.contains(RequestFlags::CO_LOCATED);
        let direct = co_located && self.relaying_agent(asked).is_none();
        if self.config.nat.traversal == NatTraversal::Challenge && mismatch && direct {
            return self.plain_udp_tunnel(asked, context);
        }
        Ok(Tunnel {
            address: asked.request.care_of_address,
            encapsulation: self.ip_tunnel(asked, extras, context)?,
            unproven: false,
            challenged: false,
        })
    }

    /// RFC 3519 §4.6: the UDP tunnel that the extension asks for, or none because
    /// it is not needed.
    fn udp_tunnel(
        &self,
        asked: &Asked<'_, '_>,
        writer: Writer,
        udp: UdpTunnelRequest,
        mismatch: bool,
        extras: &mut Extras,
        context: &Context<'_>,
    ) -> Result<Option<Tunnel>, Cause> {
        let policy = &self.config.nat;
        let needed = mismatch || udp.registration_required;
        if !needed && !udp.forced {
            let reply = UdpTunnelReply { code: UdpTunnelReply::DECLINED, ..Default::default() };
            extras.add(writer, Extra::UdpTunnelReply(reply));
            return Ok(None);
        }
        if !needed && !policy.forced_udp {
            return Err(Cause::ForcedUdpNotAllowed);
        }
        // §4.1: the encapsulation that is asked for, or 142. Zero leaves it to M and
        // G, and there is only IP in UDP here.
        let ip_in_udp = match udp.encapsulation {
            Some(protocol) => protocol == IpProtocol::IP_IN_IP,
            None => !asked.wants_gre() && !asked.wants(RequestFlags::MINIMAL),
        };
        self.check_udp(ip_in_udp)?;
        let (address, source_port) = (asked.datagram.source, asked.datagram.source_port);
        // §4.11: with R, the request's port is the foreign agent's.
        let peer_port = if udp.registration_required { 0 } else { source_port };
        let encapsulation = Encapsulation::Udp { peer_port };
        // The port of a half-bound tunnel is not known before its first keepalive.
        let known = peer_port != 0 && self.is_known_path(asked, context);
        let unproven = policy.path_validation && mismatch && !known;
        let reply = UdpTunnelReply {
            code: UdpTunnelReply::ASSENT,
            forced: udp.forced && policy.forced_udp,
            keepalive: self.keepalive_seconds(),
        };
        extras.add(writer, Extra::UdpTunnelReply(reply));
        Ok(Some(Tunnel { address, encapsulation, unproven, challenged: false }))
    }

    /// The tunnel of who has answered the challenge: to where it was answered from.
    fn plain_udp_tunnel(
        &self,
        asked: &Asked<'_, '_>,
        context: &Context<'_>,
    ) -> Result<Tunnel, Cause> {
        self.check_udp(!asked.wants_gre() && !asked.wants(RequestFlags::MINIMAL))?;
        let address = asked.datagram.source;
        let encapsulation = Encapsulation::PlainUdp { peer_port: asked.datagram.source_port };
        let challenged =
            !self.is_known_path(asked, context) && !self.answers_challenge(asked, context);
        Ok(Tunnel { address, encapsulation, unproven: false, challenged })
    }

    /// Whether there are UDP tunnels, and of what is asked to be in them.
    fn check_udp(&self, ip_in_udp: bool) -> Result<(), Cause> {
        if !self.config.tunnels.encapsulations.contains(EncapsulationSet::UDP) {
            return Err(Cause::UdpRefused);
        }
        if ip_in_udp { Ok(()) } else { Err(Cause::UdpEncapsulationUnknown) }
    }

    /// What flags M and G and a GRE key ask for, as far as it is allowed.
    fn ip_tunnel(
        &self,
        asked: &Asked<'_, '_>,
        extras: &mut Extras,
        context: &mut Context<'_>,
    ) -> Result<Encapsulation, Cause> {
        let allowed = self.config.tunnels.encapsulations;
        let (gre, minimal) = (asked.wants_gre(), asked.wants(RequestFlags::MINIMAL));
        if gre && allowed.contains(EncapsulationSet::GRE) {
            let key = asked.wish.gre_key.map(|(writer, key)| {
                let key = self.gre_key(asked, key, context);
                extras.add(writer, Extra::GreKey(key));
                key
            });
            return Ok(Encapsulation::Gre { key });
        }
        // RFC 6245 §4.2: a key is a request for GRE and nothing else.
        let must_be_gre = asked.wish.gre_key.is_some() || gre && !minimal;
        if minimal && !must_be_gre && allowed.contains(EncapsulationSet::MINIMAL) {
            return Ok(Encapsulation::Minimal);
        }
        if gre || minimal {
            return Err(Cause::EncapsulationRefused);
        }
        Ok(Encapsulation::IpInIp)
    }

    /// RFC 6245 §4.2: the key that is asked for, or one of ours when that is zero;
    /// the same in both directions, and the same at a renewal.
    fn gre_key(&self, asked: &Asked<'_, '_>, wanted: u32, context: &mut Context<'_>) -> u32 {
        if wanted != 0 {
            return wanted;
        }
        let before = self
            .binding(asked.request.home_address)
            .and_then(|binding| binding.registration(asked.request.care_of_address).copied())
            .map(|registration| registration.care_of.encapsulation);
        match before {
            Some(Encapsulation::Gre { key: Some(key) }) => key,
            _ => context.random().max(1),
        }
    }

    pub(super) fn keepalive_seconds(&self) -> u16 {
        u16::try_from(self.config.nat.keepalive.as_secs()).unwrap_or(u16::MAX)
    }
}

impl<'b> Asked<'_, 'b> {
    /// The extensions that the node has signed, in order.
    pub(super) fn signed_extensions(&self) -> impl Iterator<Item = Extension<'b>> {
        let end = self.received.mobile_home_authentication().map_or(0, |one| one.offset);
        let extensions = self.received.extensions().iter();
        extensions.take_while(move |one| one.offset < end).map(|one| one.extension)
    }

    pub(super) const fn wants(&self, flag: RequestFlags) -> bool {
        self.request.flags.contains(flag)
    }

    fn wants_gre(&self) -> bool {
        self.wants(RequestFlags::GRE) || self.wish.gre_key.is_some()
    }
}

/// RFC 3519 §4.6.1: what makes an extension a poorly formed request.
fn check_form(asked: &Asked<'_, '_>, writer: Writer, udp: UdpTunnelRequest) -> Result<(), Cause> {
    let co_located = asked.wants(RequestFlags::CO_LOCATED);
    // Only a node can say that it registers through a foreign agent (§3.1.2).
    let wrong = match writer {
        Writer::MobileNode => !co_located,
        Writer::ForeignAgent => co_located || udp.registration_required,
    };
    if wrong || udp.reserved != 0 {
        return Err(Cause::BadTunnelRequest);
    }
    Ok(())
}
