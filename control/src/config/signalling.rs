//! What agents and nodes say to each other beside plain registrations, as it is
//! written in a config file, and the checks of it.

use homeport_proto::config::ChallengePolicy;
use schemars::JsonSchema;
use serde::Serialize;
use toml::Spanned;
use toml::de::DeValue;

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

/// How many challenges of a link may be good at a time (RFC 4721 §9).
pub(super) const CHALLENGE_WINDOW: std::ops::RangeInclusive<usize> = 2..=64;

impl From<ChallengeName> for ChallengePolicy {
    fn from(name: ChallengeName) -> Self {
        match name {
            ChallengeName::Off => ChallengePolicy::Off,
            ChallengeName::Offered => ChallengePolicy::Offered,
            ChallengeName::Required => ChallengePolicy::Required,
        }
    }
}
