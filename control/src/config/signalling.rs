//! What agents and nodes say to each other beside plain registrations, as it is
//! written in a config file, and the checks of it.

use homeport_proto::config::{ChallengePolicy, HomeAgentAssignment, Redirection, SessionInsertion};
use homeport_proto::message::DynamicHomeAgentFraming;
use homeport_proto::security::SecurityAssociations;
use schemars::JsonSchema;
use serde::Serialize;
use toml::Spanned;
use toml::de::DeValue;

use super::check::Checker;
use super::file::{ForeignAgentSection, HomeAgentSection};
use super::problem::Problems;
use super::read::{FromToml, nearest};
use super::value::{text, words};

words! {
    /// Whether a foreign agent challenges its visitors.
    ChallengeName {
        /// It does not.
        Off = "off",
        /// Who answers must answer right.
        Offered = "offered",
        /// Everybody must answer.
        Required = "required",
    }
}

words! {
    /// Whether a foreign agent makes sessions of nodes that name none.
    InsertionName {
        /// It does not.
        Off = "off",
        /// A node's link-layer address tells its session.
        Mac = "mac",
    }
}

words! {
    /// Whether a mobile node lets the network choose its home agent.
    DynamicHomeAgentName {
        /// It does not.
        Off = "off",
        /// It does, and writes as RFC 4433 draws it.
        Rfc4433 = "rfc4433",
        /// It does, and writes as other skippable extensions are.
        Short = "short",
    }
}

words! {
    /// How a home agent writes where a node is sent.
    FramingName {
        /// As RFC 4433 draws it.
        Rfc4433 = "rfc4433",
        /// As other skippable extensions are.
        Short = "short",
    }
}

words! {
    /// When a home agent sends nodes to another one.
    RedirectName {
        /// When it is full.
        WhenFull = "when-full",
        /// Always.
        Always = "always",
    }
}

/// How many challenges of a link may be good at a time (RFC 4721 §9).
pub(super) const CHALLENGE_WINDOW: std::ops::RangeInclusive<usize> = 2..=64;

impl From<DynamicHomeAgentName> for Option<DynamicHomeAgentFraming> {
    fn from(name: DynamicHomeAgentName) -> Self {
        match name {
            DynamicHomeAgentName::Off => None,
            DynamicHomeAgentName::Rfc4433 => Some(DynamicHomeAgentFraming::Rfc4433),
            DynamicHomeAgentName::Short => Some(DynamicHomeAgentFraming::Short),
        }
    }
}

impl Checker<'_> {
    /// Nodes that leave it to the network which home agent they get.
    pub(super) fn assignment(&mut self, section: &HomeAgentSection) -> HomeAgentAssignment {
        if let Some(to) = &section.redirect_to {
            let host = !to.is_unspecified() && !to.is_multicast() && !to.is_broadcast();
            if **to == *section.address || !host {
                let help = "write the address of another home agent";
                self.problems.add(to.span(), "nodes cannot be sent there", help);
            }
            if !*section.dynamic_assignment {
                let message = "without dynamic_assignment no node is sent anywhere";
                let help = "add dynamic_assignment = true, or take this key away";
                self.problems.add(to.span(), message, help);
            }
        } else if *section.redirect == RedirectName::Always {
            let help = "add redirect_to = \"…\", the address of another home agent";
            self.problems.add(section.redirect.span(), "it is not said where to", help);
        }
        HomeAgentAssignment {
            assigns: *section.dynamic_assignment,
            redirect_to: section.redirect_to.as_deref().copied(),
            redirection: match *section.redirect {
                RedirectName::WhenFull => Redirection::WhenFull,
                RedirectName::Always => Redirection::Always,
            },
            framing: match *section.redirect_framing {
                FramingName::Rfc4433 => DynamicHomeAgentFraming::Rfc4433,
                FramingName::Short => DynamicHomeAgentFraming::Short,
            },
        }
    }
}

impl Checker<'_> {
    /// The sessions that a foreign agent makes of nodes that name none.
    pub(super) fn insertion(
        &mut self,
        section: &ForeignAgentSection,
        security: &SecurityAssociations,
    ) -> SessionInsertion {
        match *section.insert_sessions {
            InsertionName::Off => SessionInsertion::None,
            InsertionName::Mac => {
                if security.agents().next().is_none() {
                    let message = "no home agent would believe it: this foreign agent shares a \
                                   key with none";
                    let help = "add a [[foreign_agent.security_association]] with home_agent = \
                                \"…\", or write \"off\"";
                    self.problems.add(section.insert_sessions.span(), message, help);
                }
                SessionInsertion::Mac
            }
        }
    }
}

impl From<ChallengeName> for ChallengePolicy {
    fn from(name: ChallengeName) -> Self {
        match name {
            ChallengeName::Off => ChallengePolicy::Off,
            ChallengeName::Offered => ChallengePolicy::Offered,
            ChallengeName::Required => ChallengePolicy::Required,
        }
    }
}
