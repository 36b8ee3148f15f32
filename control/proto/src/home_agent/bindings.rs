//! What an accepted request changes, and time after it (RFC 5944 §3.8.2.2).

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::path::{new_proof, port_of};
use super::tunnel::Tunnel;
use super::{Asked, Grant, HomeAgent};
use crate::action::CareOf;
use crate::agent::{Context, Token};
use crate::binding::{MobilityBinding, PathProof, Registration, Registrations};
use crate::event::Event;
use crate::message::RequestFlags;
use crate::security::Subscriber;
use crate::{Action, Lifetime};

impl HomeAgent {
    /// Changes the binding as §3.8.2.2 says and gives the lifetime granted.
    pub(super) fn apply(
        &mut self,
        asked: &Asked<'_, '_>,
        grant: Option<Grant>,
        context: &mut Context<'_>,
    ) -> Lifetime {
        match grant {
            None => {
                self.deregister(asked, context);
                Lifetime::ZERO
            }
            Some(grant) => self.register(asked, grant, context),
        }
    }

    fn register(
        &mut self,
        asked: &Asked<'_, '_>,
        grant: Grant,
        context: &mut Context<'_>,
    ) -> Lifetime {
        let request = &asked.request;
        let (home_address, care_of_address) = (request.home_address, request.care_of_address);
        let now = context.now.monotonic;
        let security = &self.config.security;
        let limit = security.max_lifetime(asked.owner.key, asked.association.spi);
        let granted = request.lifetime.min(self.config.max_lifetime).min(limit);
        let Tunnel { address, encapsulation, unproven, .. } = grant.tunnel;
        let care_of = CareOf {
            address,
            registered: care_of_address,
            encapsulation,
            reverse_tunnel: asked.wants(RequestFlags::REVERSE_TUNNEL),
            co_located: asked.wants(RequestFlags::CO_LOCATED),
            broadcast: asked.wants(RequestFlags::BROADCAST),
            unproven,
            lifetime: granted,
        };
        let port = port_of(encapsulation);
        let registration = Registration {
            care_of,
            flags: request.flags,
            identification: request.identification,
            registered_at: now,
            expires: granted.duration().map(|duration| now + duration),
            foreign_agent: self.relaying_agent(asked),
            keepalive: port.map(|_| self.config.nat.keepalive),
            proof: self.proof_of(home_address, &care_of, context),
        };
        if let (Some(port), false) = (port.filter(|port| *port != 0), unproven) {
            self.remember_path(home_address, address, port, context);
        }
        let keeps_earlier = self.keeps_earlier(request);
        #[cfg(feature = "planted-bugs")]
        let keeps_earlier = keeps_earlier
            || crate::planted::is(crate::planted::Bug::OldCareOfAddressKept)
                && request.flags.contains(RequestFlags::CO_LOCATED);
        let home_link = self.home_network(home_address).and_then(|network| network.link);
        let (tenant, home_agent) = self.key();
        let number = self.nodes.make(home_address);
        let before = self.nodes.binding(number, (tenant, home_agent));
        let was_home = before.is_none();
        let mut binding = before.unwrap_or_else(|| MobilityBinding {
            tenant,
            home_address,
            home_agent,
            home_link,
            mobile_networks: Vec::new(),
            set_df: false,
            clamp_mss: false,
            since: now,
            registrations: Registrations::new(),
        });
        (binding.set_df, binding.clamp_mss) =
            (self.config.tunnels.set_df, self.config.tunnels.clamp_mss);
        // RFC 5177 §6.3: those that are not named any more are gone.
        binding.mobile_networks = grant.mobile_networks;
        if !keeps_earlier {
            self.revoke(home_address, false, context, |one| {
                one.care_of.registered != care_of_address
            });
            binding.registrations.retain(|one| one.care_of.registered == care_of_address);
        }
        binding.put(registration);
        let ends = binding.next_expiry();
        context.push(Action::InstallBinding(binding.state()));
        self.nodes.set_binding(number, binding, now);
        self.expiries.set(&mut self.nodes, number, ends, now);
        if !keeps_earlier {
            self.tidy_agreements(home_address);
        }
        // RFC 5944 §4.6: a node that was at home until now.
        if let (true, Some(port)) = (was_home, home_link) {
            self.announce(home_address, port, None, context);
        }
        granted
    }

    /// What is asked of an unproven tunnel: what it is being asked already, for a
    /// renewal wins no time; nothing yet of a half-bound one.
    fn proof_of(
        &self,
        home_address: Ipv4Addr,
        care_of: &CareOf,
        context: &mut Context<'_>,
    ) -> Option<PathProof> {
        if !care_of.unproven || port_of(care_of.encapsulation) == Some(0) {
            return None;
        }
        let before = self
            .binding(home_address)
            .and_then(|binding| binding.registration(care_of.registered).copied())
            .filter(|before| {
                before.care_of.address == care_of.address
                    && before.care_of.encapsulation == care_of.encapsulation
            });
        before.and_then(|before| before.proof).or_else(|| Some(new_proof(context)))
    }

    fn deregister(&mut self, asked: &Asked<'_, '_>, context: &mut Context<'_>) {
        let request = &asked.request;
        let home_address = request.home_address;
        if Subscriber::in_place_of(home_address).is_some() {
            return;
        }
        let all = request.care_of_address == home_address;
        // Who relayed this will see its reply.
        self.revoke(home_address, false, context, |one| {
            (all || one.care_of.registered == request.care_of_address)
                && one.foreign_agent != Some(asked.datagram.source)
        });
        self.retain_registrations(home_address, context, |registration| {
            !all && registration.care_of.registered != request.care_of_address
        });
        // RFC 5944 §4.6: the node is home again.
        if let (true, Some((port, mac))) = (all, self.home_station(asked)) {
            self.announce(home_address, port, Some(mac), context);
        }
    }

    /// Keeps what `keep` wants of a node's registrations and brings forwarding
    /// state and timer in line. Whether something went.
    pub(super) fn retain_registrations(
        &mut self,
        home_address: Ipv4Addr,
        context: &mut Context<'_>,
        mut keep: impl FnMut(&Registration) -> bool,
    ) -> bool {
        let key = self.key();
        let now = context.now.monotonic;
        let Some(number) = self.nodes.find(home_address) else { return false };
        let Some(mut binding) = self.nodes.binding(number, key) else { return false };
        let before = binding.registrations.len();
        #[cfg(feature = "planted-bugs")]
        let expired = binding.next_expiry().is_some_and(|end| end <= now);
        binding.registrations.retain(|one| keep(one));
        if binding.registrations.iter().all(|one| one.proof.is_none()) {
            context.timers.stop(Token::Proof(key, home_address));
        }
        let after = binding.registrations.len();
        let (ends, state) = (binding.next_expiry(), binding.state());
        self.nodes.set_binding(number, binding, now);
        self.expiries.set(&mut self.nodes, number, ends, now);
        self.tidy_agreements(home_address);
        if after == 0 {
            if let Some(node) = self.nodes.get_mut(number) {
                node.tidy(now);
            }
            self.stop_announcing(home_address, context);
            #[cfg(feature = "planted-bugs")]
            if self.planted(number, expired) {
                return true;
            }
            context.push(Action::RemoveBinding { tenant: key.0, home_address });
            self.session_unbound(home_address, context);
            return true;
        }
        if after == before {
            return false;
        }
        context.push(Action::InstallBinding(state));
        true
    }

    /// Whether the entry of the table stays.
    #[cfg(feature = "planted-bugs")]
    fn planted(&mut self, number: u32, expired: bool) -> bool {
        use crate::planted::{Bug, is};
        if is(Bug::MarkLostWithBinding)
            && let Some(node) = self.nodes.get_mut(number)
        {
            node.timestamps = crate::identification::TimestampHistory::default();
        }
        is(Bug::ExpiryKeepsEntry) && expired
    }

    /// A care-of address of the binding has reached its end.
    pub(crate) fn handle_expiry(&mut self, home_address: Ipv4Addr, context: &mut Context<'_>) {
        let now = context.now.monotonic;
        let tenant = self.config.tenant;
        let mut expired = Vec::new();
        self.retain_registrations(home_address, context, |registration| {
            let ended = registration.expires.is_some_and(|expires| expires <= now);
            if ended {
                expired.push(registration.care_of.registered);
            }
            !ended
        });
        for care_of_address in expired {
            context.counters.bindings_expired += 1;
            let event = Event::BindingExpired { tenant, home_address, care_of_address };
            context.push(Action::Event(event));
        }
    }

    /// Forgets a node's binding, but not its identifications, and revokes what can be
    /// revoked. Whether it had one.
    pub(crate) fn clear(&mut self, home_address: Ipv4Addr, context: &mut Context<'_>) -> bool {
        self.revoke(home_address, true, context, |_| true);
        self.retain_registrations(home_address, context, |_| false)
    }
}
