//! Mobile networks: the prefixes that a registration brings along (RFC 5177 §6).
//!
//! A router that names prefixes gets those of them that the prefix table has for
//! it, and no other (explicit mode); one that names none gets all that the table
//! has (implicit mode). Who has none in the table is no mobile router.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::extra::{Extra, Extras, Writer};
use super::{Asked, HomeAgent};
use crate::config::Prefix;
use crate::decision::Cause;
use crate::message::{
    Extension, MobileNetworkAcknowledgement, MobileNetworkCode, MobileNetworkMode,
    MobileNetworkRequest,
};

impl HomeAgent {
    /// The networks of a registration, and what its reply says of them.
    pub(super) fn mobile_networks(
        &self,
        asked: &Asked<'_, '_>,
        extras: &mut Extras,
    ) -> Result<Vec<Prefix>, Cause> {
        // Only what the router has signed is its wish.
        let wanted: Vec<MobileNetworkRequest> = asked
            .signed_extensions()
            .filter_map(|extension| match extension {
                Extension::MobileNetworkRequest(request) => Some(request),
                _ => None,
            })
            .collect();
        let allowed = self.prefix_table(asked.request.home_address);
        if wanted.is_empty() {
            for prefix in &allowed {
                let mode = MobileNetworkMode::Implicit;
                let (code, prefix_len) = (MobileNetworkCode::SUCCESS, prefix.prefix_len());
                let prefix = prefix.address();
                let answer = MobileNetworkAcknowledgement { mode, code, prefix_len, prefix };
                extras.add(Writer::MobileNode, Extra::MobileNetwork(answer));
            }
            return Ok(allowed);
        }
        // §6.1: "not permitted to act as a Mobile Router".
        if allowed.is_empty() {
            return Err(Cause::NotMobileRouter);
        }
        let mut granted = Vec::new();
        for MobileNetworkRequest { prefix_len, prefix } in wanted {
            // §6.6.
            let code = match Prefix::new(prefix, prefix_len).filter(|one| one.prefix_len() > 0) {
                None => MobileNetworkCode::INVALID_PREFIX_LEN,
                Some(one) if !allowed.contains(&one) => MobileNetworkCode::UNAUTHORIZED,
                Some(one) => {
                    if !granted.contains(&one) {
                        granted.push(one);
                    }
                    MobileNetworkCode::SUCCESS
                }
            };
            let mode = MobileNetworkMode::Explicit;
            let answer = MobileNetworkAcknowledgement { mode, code, prefix_len, prefix };
            extras.add(Writer::MobileNode, Extra::MobileNetwork(answer));
        }
        // §6.3: accepted for one that is right, denied when there is none.
        if granted.is_empty() {
            return Err(Cause::NoMobileNetwork);
        }
        Ok(granted)
    }

    /// What the prefix table (§6.2.2) has for a router, ordered.
    pub(super) fn prefix_table(&self, mobile_router: Ipv4Addr) -> Vec<Prefix> {
        let networks = self.config.mobile_networks.iter();
        let mut prefixes: Vec<Prefix> = networks
            .filter(|network| network.mobile_router == mobile_router)
            .map(|network| network.prefix)
            .collect();
        prefixes.sort_unstable();
        prefixes
    }
}
