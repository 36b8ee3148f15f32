//! Source-restricted routes: which way the packets of one visitor go, by their
//! destination. Visitors with the same routes share a list.

use std::num::NonZeroU32;

use super::lpm::{self, RouteReader, RouteWriter, Scope};

/// The number of a list of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteList(pub NonZeroU32);

/// The ways to the destinations of one prefix, each with its cost: the cheaper one
/// that can be gone is gone, and of two that cost the same the tunnel. Never empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRouteEntry {
    /// The cost of the reverse tunnel.
    pub tunnel: Option<u16>,
    /// The way by the routes of this box.
    pub local: Option<LocalWay>,
}

/// A way by the routes of this box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalWay {
    /// Its cost.
    pub cost: u16,
    /// The number of the NAPT that the visitor is hidden behind.
    pub napt: Option<u16>,
}

/// Writes source-restricted routes.
pub type SourceRouteWriter = RouteWriter<RouteList, SourceRouteEntry>;

/// Finds source-restricted routes.
pub type SourceRouteReader = RouteReader<RouteList, SourceRouteEntry>;

impl Scope for RouteList {
    #[inline(always)]
    fn number(self) -> u32 {
        self.0.get()
    }
}

/// Makes a table for at most `capacity` routes, as [`lpm::routes`] does.
pub fn source_routes(capacity: usize) -> SourceRouteWriter {
    lpm::routes(capacity)
}
