//! What AF_XDP ports take from the kernel: the claims of all that is installed.
//!
//! On such ports the kernel keeps whatever is not claimed, so a binding, a visitor, an
//! agent's address or a NAPT works there only once it is claimed. A claim is written
//! before the table entry and taken away after it: a packet that comes in between is
//! forwarded by the dataplane as the kernel would.
//!
//! Nodes are claimed one by one, up to a limit; beyond it their home networks are
//! claimed whole, and the dataplane also forwards what is for nodes at home.
//!
//! **Not done:** to go back to single claims when there are few nodes again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use homeport_dataplane::napt::NaptConfig;
use homeport_dataplane::port::af_xdp::{Claims, LocalClaim, NodeClaim};
use homeport_dataplane::table::local::LocalEntry;
use homeport_dataplane::table::visitor::VisitorKey;
use homeport_proto::config::{AgentConfig, HomeNetwork, Prefix};
use homeport_proto::{PortId, TenantId};

use super::BoundAddress;

/// Keeps the claims as the tables are. Without AF_XDP ports it does nothing.
#[derive(Default)]
pub struct ClaimKeeper {
    inner: Option<Inner>,
}

struct Inner {
    claims: Arc<Claims>,
    /// How many bound nodes are claimed one by one.
    most: usize,
    /// Bound nodes that are claimed, with their home link.
    bound: HashMap<BoundAddress, Option<PortId>>,
    /// Visitors by tenant, home address and home agent, and whether packets to their
    /// home address may be delivered here as well.
    visitors: BTreeMap<(TenantId, Ipv4Addr, Ipv4Addr), bool>,
    translated: BTreeMap<Ipv4Addr, RangeInclusive<u16>>,
    home_networks: Vec<(TenantId, HomeNetwork)>,
    /// Whether home networks are claimed whole.
    whole: bool,
    /// Whether the kernel refused one: it is told once.
    refused: bool,
}

impl ClaimKeeper {
    /// Keeps these claims, of at most `most` bound nodes one by one.
    pub fn new(claims: Arc<Claims>, most: usize, napts: &[NaptConfig]) -> Self {
        let translated = napts
            .iter()
            .flat_map(|napt| napt.addresses.iter().map(|address| (*address, napt.ports.clone())))
            .collect();
        ClaimKeeper {
            inner: Some(Inner {
                claims,
                most,
                bound: HashMap::new(),
                visitors: BTreeMap::new(),
                translated,
                home_networks: Vec::new(),
                whole: false,
                refused: false,
            }),
        }
    }

    /// A node is bound; it has this home link.
    pub(super) fn bind(&mut self, node: BoundAddress, home_link: Option<PortId>) {
        let Some(inner) = &mut self.inner else { return };
        if inner.bound.get(&node) == Some(&home_link) {
            return;
        }
        if inner.bound.len() >= inner.most && !inner.bound.contains_key(&node) {
            inner.claim_whole();
            if inner.is_in_a_home_network(node) {
                return;
            }
        }
        inner.bound.insert(node, home_link);
        inner.claim(node);
    }

    /// A node is bound no more.
    pub(super) fn unbind(&mut self, node: BoundAddress) {
        if let Some(inner) = &mut self.inner
            && inner.bound.remove(&node).is_some()
        {
            inner.claim(node);
        }
    }

    /// A node visits; `reached` says whether packets to it may be delivered here
    /// without the tunnel.
    pub(super) fn visit(&mut self, key: VisitorKey, reached: bool) {
        let Some(inner) = &mut self.inner else { return };
        let visitor = (key.tenant, key.home_address, key.home_agent);
        if inner.visitors.insert(visitor, reached) != Some(reached) {
            inner.claim((key.tenant, key.home_address));
        }
    }

    /// A node visits no more.
    pub(super) fn leave(&mut self, key: VisitorKey) {
        let Some(inner) = &mut self.inner else { return };
        inner.visitors.remove(&(key.tenant, key.home_address, key.home_agent));
        inner.claim((key.tenant, key.home_address));
    }

    /// A network is, or is no more, behind a bound mobile router.
    pub(super) fn route(&mut self, tenant: TenantId, prefix: Prefix, is_behind: bool) {
        let claim = NodeClaim { destination: is_behind, ..NodeClaim::default() };
        if let Some(inner) = &mut self.inner {
            let result = inner.claims.set_prefix(tenant, parts(prefix), claim);
            inner.told(result);
        }
    }

    /// What an address of this box is.
    pub(super) fn local(&mut self, address: Ipv4Addr, entry: Option<&LocalEntry>) {
        let Some(inner) = &mut self.inner else { return };
        let translated = inner.translated.get(&address).cloned();
        let claim = entry.map(|entry| LocalClaim {
            agent: entry.home_agent || entry.care_of_address || entry.agent,
            tunnel_end: entry.home_agent || entry.care_of_address,
            broadcast: entry.broadcast,
            translated,
        });
        let result = inner.claims.set_local(address, claim.as_ref());
        inner.told(result);
    }

    /// The home networks are those of this config.
    pub(super) fn configure(&mut self, config: &AgentConfig) {
        let Some(inner) = &mut self.inner else { return };
        let wanted = config
            .home_agents
            .iter()
            .flat_map(|agent| agent.home_networks.iter().map(|network| (agent.tenant, *network)))
            .collect();
        let before = std::mem::replace(&mut inner.home_networks, wanted);
        if inner.whole {
            for (tenant, network) in before {
                let prefix = parts(network.prefix);
                let result = inner.claims.set_prefix(tenant, prefix, NodeClaim::default());
                inner.told(result);
            }
            inner.claim_home_networks();
        }
    }
}

impl Inner {
    /// Makes the claim of a node what is known of it.
    fn claim(&mut self, node: BoundAddress) {
        let (tenant, address) = node;
        let bound = self.bound.get(&node);
        let least = (tenant, address, Ipv4Addr::UNSPECIFIED);
        let visits = self.visitors.range(least..=(tenant, address, Ipv4Addr::BROADCAST));
        let (visits, reached) =
            visits.fold((false, false), |(_, any), (_, reached)| (true, any || *reached));
        let claim = NodeClaim {
            destination: bound.is_some() || reached,
            source: visits,
            home_link: bound.copied().flatten(),
        };
        let result = self.claims.set_node(tenant, address, claim);
        self.told(result);
    }

    fn is_in_a_home_network(&self, (tenant, address): BoundAddress) -> bool {
        self.home_networks
            .iter()
            .any(|(owner, network)| *owner == tenant && network.prefix.contains(address))
    }

    fn claim_whole(&mut self) {
        if !self.whole {
            tracing::warn!(
                exact_claims = self.most,
                "more nodes than are claimed one by one: home networks are claimed whole, and \
                 nodes at home are forwarded to by the dataplane"
            );
            self.whole = true;
            self.claim_home_networks();
        }
    }

    fn claim_home_networks(&mut self) {
        for (tenant, network) in self.home_networks.clone() {
            let claim = NodeClaim { destination: true, source: false, home_link: network.link };
            let result = self.claims.set_prefix(tenant, parts(network.prefix), claim);
            self.told(result);
        }
    }

    fn told(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && !std::mem::replace(&mut self.refused, true)
        {
            tracing::error!(
                %error,
                "the kernel takes no more claims: on af_xdp ports packets go past the dataplane"
            );
        }
    }
}

fn parts(prefix: Prefix) -> (Ipv4Addr, u8) {
    (prefix.address(), prefix.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(3);
    const LINK: PortId = PortId(2);

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, 0, last)
    }

    fn visitor(home_agent: u8) -> VisitorKey {
        let home_agent = Ipv4Addr::new(10, 0, home_agent, 2);
        VisitorKey { tenant: TENANT, home_address: address(10), home_agent }
    }

    /// A keeper of real claims, and these; `None`, with the reason printed, where this
    /// process may not make maps.
    fn keeper(most: usize, napts: &[NaptConfig]) -> Option<(ClaimKeeper, Arc<Claims>)> {
        match Claims::new(16) {
            Ok(claims) => {
                let claims = Arc::new(claims);
                Some((ClaimKeeper::new(Arc::clone(&claims), most, napts), claims))
            }
            Err(error) => {
                println!("skipped: cannot make maps: {error}");
                None
            }
        }
    }

    fn bound() -> NodeClaim {
        NodeClaim { destination: true, source: false, home_link: Some(LINK) }
    }

    #[test]
    fn a_node_that_is_bound_and_visits_is_claimed_until_both_end() {
        let Some((mut keeper, claims)) = keeper(8, &[]) else { return };
        let of = || claims.of_node(TENANT, address(10));
        keeper.bind((TENANT, address(10)), Some(LINK));
        assert_eq!(of(), bound());
        keeper.visit(visitor(1), false);
        keeper.visit(visitor(2), true);
        assert_eq!(of(), NodeClaim { source: true, ..bound() });
        keeper.unbind((TENANT, address(10)));
        assert_eq!(of(), NodeClaim { destination: true, source: true, home_link: None });
        keeper.leave(visitor(2));
        assert_eq!(of(), NodeClaim { source: true, ..NodeClaim::default() });
        keeper.leave(visitor(1));
        assert!(of().is_empty());
        assert!(claims.of_node(TenantId(4), address(10)).is_empty());
    }

    #[test]
    fn beyond_the_limit_the_home_network_is_claimed_whole() {
        let Some((mut keeper, claims)) = keeper(2, &[]) else { return };
        let network =
            HomeNetwork { prefix: Prefix::new(address(0), 24).unwrap(), link: Some(LINK) };
        keeper.inner.as_mut().unwrap().home_networks = vec![(TENANT, network)];
        for last in [10, 11] {
            keeper.bind((TENANT, address(last)), Some(LINK));
        }
        assert!(claims.of_node(TENANT, address(12)).is_empty());
        keeper.bind((TENANT, address(12)), Some(LINK));
        // The third, and with it all of the network.
        assert_eq!(claims.of_node(TENANT, address(12)), bound());
        assert_eq!(claims.of_node(TENANT, address(99)), bound());
        // Outside of all home networks there is no other way than one by one.
        let outside = Ipv4Addr::new(10, 2, 0, 1);
        keeper.bind((TENANT, outside), None);
        assert!(claims.of_node(TENANT, outside).destination);
        keeper.unbind((TENANT, address(10)));
        assert_eq!(claims.of_node(TENANT, address(10)), bound());
    }

    #[test]
    fn an_address_of_ours_is_what_its_entry_and_the_napts_say() {
        let napt = NaptConfig::new("out", Vec::new(), PortId(0), vec![address(1)]);
        let Some((mut keeper, claims)) = keeper(2, &[napt]) else { return };
        let entry = LocalEntry { home_agent: true, ..LocalEntry::default() };
        keeper.local(address(1), Some(&entry));
        keeper.local(address(2), Some(&LocalEntry::default()));
        let translated = Some(16384..=32767);
        let expected = LocalClaim { agent: true, tunnel_end: true, broadcast: false, translated };
        assert_eq!(claims.of_local(address(1)), Some(expected));
        assert_eq!(claims.of_local(address(2)), Some(LocalClaim::default()));
        keeper.local(address(1), None);
        assert_eq!(claims.of_local(address(1)), None);
    }

    #[test]
    fn networks_behind_a_router_are_claimed_while_it_is_bound() {
        let Some((mut keeper, claims)) = keeper(2, &[]) else { return };
        let prefix = Prefix::new(Ipv4Addr::new(10, 9, 0, 0), 16).unwrap();
        let inside = || claims.of_node(TENANT, Ipv4Addr::new(10, 9, 8, 7)).destination;
        keeper.route(TENANT, prefix, true);
        assert!(inside());
        keeper.route(TENANT, prefix, false);
        assert!(!inside());
    }
}
