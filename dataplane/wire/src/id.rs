//! Identifiers that cross every seam between dataplane and control.

use core::fmt;
use serde::{Deserialize, Serialize};

/// A virtual home agent, and with it the tenant that owns it.
///
/// It is part of every table key, every message between the planes and every
/// counter that belongs to a tenant. Agents that serve no tenant of their own
/// (a foreign agent of the box) have an identifier all the same.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct TenantId(pub u32);

/// A port of the dataplane: its index in the configuration.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct PortId(pub u16);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
