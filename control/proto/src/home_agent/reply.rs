//! How a home agent answers: fields, extensions and limits of its replies.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use homeport_wire::MOBILE_IP_PORT;

use super::extra::{Extras, Writer};
use super::{Asked, ForeignHome, HomeAgent, PACKET_HEADERS};
use crate::agent::Context;
use crate::config::Profile;
use crate::decision::{Answer, Cause, MAX_WORDS, Silence, Standing, Words};
use crate::event::Event;
use crate::identification::{Freshness, timestamp_reply};
use crate::limits::{DENIALS_PER_SECOND, FAILED_AUTHENTICATION_SPACING};
use crate::message::{
    AuthenticationKind, Extension, Identification, MessageString, MessageWriter, RegistrationReply,
    ReplyCode,
};
use crate::security::{ReplayProtection, Subscriber};
use crate::{Action, Lifetime, Payload, Transmit};

/// Time to live of replies.
const REPLY_TTL: u8 = 64;

impl HomeAgent {
    /// RFC 5944 §3.8.2.1 a: what a request with a wrong authenticator gets.
    pub(super) fn deny_failed_authentication(
        &mut self,
        asked: &Asked<'_, '_>,
        cause: Cause,
        context: &mut Context<'_>,
    ) {
        context.ruling.cause = cause;
        let datagram = asked.datagram;
        let code = ReplyCode::HA_MOBILE_NODE_FAILED_AUTHENTICATION;
        let silent = match asked.foreign_home {
            ForeignHome::Valid(_) => None,
            ForeignHome::Missing(_) | ForeignHome::Invalid(_) => {
                Some(Silence::ForeignAgentDistrusted)
            }
            ForeignHome::NotShared => {
                let signature = asked.association.extension_len();
                let reply_len = RegistrationReply::LEN + asked.echo_len() + signature;
                let from_server = datagram.source_port == MOBILE_IP_PORT
                    && datagram.source != asked.request.care_of_address;
                let amplifies =
                    reply_len > datagram.payload.len() && self.config.profile != Profile::Rfc2002;
                let server = from_server.then_some(Silence::FromServer);
                server.or(amplifies.then_some(Silence::Longer))
            }
        };
        if let Some(why) = silent {
            context.ruling.answer = Answer::Silent(why);
            return;
        }
        context.counters.count_denial(code);
        let now = context.now.monotonic;
        let node = self.node(asked.request.home_address);
        let spaced = node
            .more()
            .and_then(|more| more.last_failed_authentication)
            .is_none_or(|last| now.saturating_since(last) >= FAILED_AUTHENTICATION_SPACING);
        if !spaced {
            context.counters.denials_suppressed += 1;
            context.ruling.answer = Answer::Silent(Silence::Rationed);
            return;
        }
        node.make_more(now).last_failed_authentication = Some(now);
        let identification = asked.request.identification;
        let extras = Extras::default();
        self.transmit(asked, code, asked.request.lifetime, identification, &extras, context);
    }

    pub(super) fn deny(
        &mut self,
        asked: &Asked<'_, '_>,
        cause: Cause,
        extras: &Extras,
        context: &mut Context<'_>,
    ) {
        context.ruling.cause = cause;
        // Every cause that a request is denied for has its code.
        let Some(code) = cause.code() else { return };
        let freshness = if code == ReplyCode::IDENTIFICATION_MISMATCH {
            Freshness::Mismatch
        } else {
            Freshness::Fresh
        };
        context.counters.count_denial(code);
        let now = context.now.monotonic;
        let node = self.node(asked.request.home_address).make_more(now);
        if !node.denials.take(DENIALS_PER_SECOND, now) {
            context.counters.denials_suppressed += 1;
            context.ruling.answer = Answer::Silent(Silence::Rationed);
            return;
        }
        self.reply(asked, freshness, code, asked.request.lifetime, extras, context);
    }

    /// Answers; gives the bytes of the packet.
    pub(super) fn reply(
        &mut self,
        asked: &Asked<'_, '_>,
        freshness: Freshness,
        code: ReplyCode,
        lifetime: Lifetime,
        extras: &Extras,
        context: &mut Context<'_>,
    ) -> usize {
        if code.is_accepted() && freshness == Freshness::Fresh {
            match lifetime.is_zero() {
                true => context.counters.deregistrations_accepted += 1,
                false => context.counters.registrations_accepted += 1,
            }
        }
        let request = asked.request.identification;
        let identification = match asked.association.replay {
            ReplayProtection::Timestamps { .. } => {
                timestamp_reply(request, context.now.ntp, freshness)
            }
            ReplayProtection::Nonces => {
                let nonce = context.random();
                let node = self.node(asked.request.home_address);
                let nonces = &mut node.make_more(context.now.monotonic).nonces;
                nonces.entry(asked.association.spi).or_default().reply(request, nonce)
            }
        };
        self.transmit(asked, code, lifetime, identification, extras, context)
    }

    /// Sends a reply with the fields and in the order of RFC 5944 §3.8.3.
    pub(super) fn transmit(
        &self,
        asked: &Asked<'_, '_>,
        code: ReplyCode,
        lifetime: Lifetime,
        identification: Identification,
        extras: &Extras,
        context: &mut Context<'_>,
    ) -> usize {
        let (datagram, request) = (asked.datagram, &asked.request);
        let reply = RegistrationReply {
            code,
            lifetime,
            home_address: asked.told_address(code.is_accepted()),
            home_agent: self.config.address,
            identification,
        };
        let mut writer = MessageWriter::reply(&reply);
        let foreign_home = asked.foreign_home.association();
        let signers = core::iter::once(&asked.association).chain(foreign_home.map(Arc::as_ref));
        let mut blanks = context.blanks(signers);
        let (names, inserted) = asked.echo();
        for extension in names.into_iter().flatten() {
            // It fits as it did in the request.
            let _ = writer.extension(&extension);
        }
        for extension in extras.of(Writer::MobileNode) {
            // None of them is longer than its length can say.
            let _ = writer.extension(&extension);
        }
        if !code.is_accepted()
            && self.config.message_strings
            && let Some(words) = words(asked, writer.len(), extras, context)
        {
            let text = words.as_bytes();
            let _ = writer
                .extension(&Extension::MessageString { subtype: MessageString::HOME_AGENT, text });
        }
        let (kind, association) = (AuthenticationKind::MobileHome, &asked.association);
        context.authenticate_reply(&mut writer, kind, association, blanks.as_mut());
        for extension in extras.of(Writer::ForeignAgent).chain(asked.foreign_challenge()) {
            let _ = writer.extension(&extension);
        }
        if let Some(extension) = inserted {
            let _ = writer.extension(&extension);
        }
        if let Some(association) = foreign_home {
            let kind = AuthenticationKind::ForeignHome;
            context.authenticate_reply(&mut writer, kind, association, blanks.as_mut());
        }
        let data = writer.finish();
        let sent = PACKET_HEADERS + data.len();
        context.ruling.answer = Answer::Replied { code, lifetime };
        let to_us = context.is_local(datagram.destination);
        // As a foreign agent does (RFC 5944 §3.7.2.3): a station without address gets the
        // reply at the one that it is given, or with everybody's.
        let destination = match (datagram.source, reply.home_address) {
            (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED) => Ipv4Addr::BROADCAST,
            (Ipv4Addr::UNSPECIFIED, home_address) => home_address,
            (source, _) => source,
        };
        let packet = Transmit {
            tenant: self.config.tenant,
            link: self.home_station(asked),
            source: if to_us { datagram.destination } else { self.config.address },
            destination,
            ttl: REPLY_TTL,
            payload: Payload::Udp {
                source_port: MOBILE_IP_PORT,
                destination_port: datagram.source_port,
                data,
            },
        };
        context.send(packet, blanks.unwrap_or_default());
        context.push(Action::Event(Event::HomeRegistration {
            tenant: self.config.tenant,
            home_address: match Subscriber::in_place_of(request.home_address) {
                Some(_) => reply.home_address,
                None => request.home_address,
            },
            care_of_address: request.care_of_address,
            code: code.0,
            lifetime,
        }));
        sent
    }
}

/// What a denial tells the node's user (RFC 4917). A reply that may go to somebody who
/// never asked gets no longer than its request by it: when the request is not
/// authentic, or is perhaps a copy from elsewhere than the care-of address that its
/// node has signed.
fn words(
    asked: &Asked<'_, '_>,
    so_far: usize,
    extras: &Extras,
    context: &Context<'_>,
) -> Option<Words> {
    let ruling = &context.ruling;
    let (source, request) = (asked.datagram.source, &asked.request);
    let bounded = match ruling.standing {
        Standing::Unknown | Standing::Claimed => true,
        Standing::Copied => source != request.care_of_address && source != request.home_address,
        Standing::Authentic => false,
    };
    if !bounded {
        return Words::fitting(ruling, MAX_WORDS);
    }
    let mut behind = Vec::new();
    for extension in extras.of(Writer::ForeignAgent).chain(asked.foreign_challenge()) {
        let _ = extension.emit(&mut behind);
    }
    let foreign_home = asked.foreign_home.association().map_or(0, |one| one.extension_len());
    let signatures = asked.association.extension_len() + foreign_home;
    let len = so_far + behind.len() + signatures + MessageString::HEADER_LEN;
    Words::fitting(ruling, asked.datagram.payload.len().checked_sub(len)?)
}
