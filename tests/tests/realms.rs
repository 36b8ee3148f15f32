//! Two home networks with the same private addresses, and a node of each with one
//! home address: they roam between the same foreign agents.

use std::time::Duration;

use homeport_proto::ReverseTunnel;
use homeport_proto::mobile_node::Phase;
use homeport_tests::realms::{FOREIGN_AGENTS, HOST_MAC, RealmWorld, network_of, node_mac, number};
use homeport_tests::world::{HOME_ADDRESS, Plan};
use homeport_wire::EthernetHeader;
use zerocopy::FromBytes;

const SECOND: Duration = Duration::from_secs(1);

/// Row S3-11: every datagram of a network reaches its own node or nobody, whichever
/// foreign agents the nodes are at, together or apart, in both delivery styles.
#[test]
fn nodes_with_one_home_address_roam_and_none_gets_the_others_packets() {
    for style in [ReverseTunnel::Direct, ReverseTunnel::Encapsulating] {
        let mut world = RealmWorld::new(&Plan { reverse_tunnel: style, ..Plan::default() });
        let [one, two] = FOREIGN_AGENTS;
        world.run_for(SECOND, false);
        // Together at the first, apart, changed over, together at the second.
        for (stage, places) in
            [[one, one], [one, two], [two, one], [two, two], [one, one]].into_iter().enumerate()
        {
            for (network, place) in places.into_iter().enumerate() {
                if world.realms[network].at != Some(place) {
                    world.move_node(network, place);
                }
            }
            let before: Vec<(usize, usize)> = world
                .realms
                .iter()
                .map(|realm| (realm.node.arrivals.len(), realm.at_home.len()))
                .collect();
            world.run_for(2 * SECOND, true);
            for (network, realm) in world.realms.iter().enumerate() {
                let what = format!("{style:?}, stage {stage}, network {network}");
                assert_eq!(realm.node.machine.phase(), Phase::Registered, "{what}");
                // All but what the registration took, each way.
                let (to_node, to_host) = before[network];
                assert!(realm.node.arrivals.len() > to_node + 1_900, "{what}");
                assert!(realm.at_home.len() > to_host + 1_900, "{what}");
                let numbers = realm.node.arrivals.iter().map(|(_, number)| number);
                let strange =
                    numbers.chain(&realm.at_home).filter(|number| network_of(**number) != network);
                assert_eq!(strange.count(), 0, "{what}: of the other network");
            }
            if places[0] == places[1] {
                let visitors = world.boxes[places[0]].agent.visitors();
                assert!(visitors.filter(|one| one.state.home_address == HOME_ADDRESS).count() == 2);
            }
        }
        // Not even on a link is one addressed to the other's station.
        for (index, bytes) in &world.on_links {
            let (ethernet, packet) = EthernetHeader::ref_from_prefix(bytes).expect("a frame");
            let Some(number) = number(ethernet, packet) else { continue };
            let network = network_of(number);
            let of_its_own = [node_mac(network), HOST_MAC];
            let is_right =
                of_its_own.contains(&ethernet.source) || of_its_own.contains(&ethernet.destination);
            assert!(is_right, "on the link of box {index}: {ethernet:?}");
            assert!(*index == network || FOREIGN_AGENTS.contains(index), "box {index}");
        }
    }
}
