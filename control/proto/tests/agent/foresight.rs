//! Looking ahead changes nothing, whatever it looks at.

use homeport_proto::Datagram;
use homeport_proto::message::RequestFlags;

use crate::support::*;

#[test]
fn a_request_that_was_foreseen_is_answered_as_it_would_be() {
    let (mut plain, mut ahead) = (World::home(|_| {}), World::home(|_| {}));
    let timestamp = plain.timestamp();
    ahead.timestamp();
    let known = request(timestamp);
    let mut stranger = known;
    stranger.home_address = CO_LOCATED;
    let mut forged = sign(&known);
    *forged.last_mut().unwrap() ^= 1;
    let mut home = request(plain.timestamp());
    ahead.timestamp();
    home.lifetime = homeport_proto::Lifetime::ZERO;
    home.flags = RequestFlags::REVERSE_TUNNEL;
    let messages = [forged, sign(&known), sign(&known), sign(&stranger), sign(&home)];
    for message in &messages {
        // Of all at once, as one who has them all.
        let mut about = Vec::new();
        let datagrams = messages.iter().map(|other| relayed(FOREIGN, other));
        ahead.agent.foresee(datagrams, |_, home_address| about.push(home_address));
        assert_eq!(about, [NODE, NODE, NODE, CO_LOCATED, NODE]);
        let expected = plain.relay(FOREIGN, message);
        assert_eq!(ahead.relay(FOREIGN, message), expected);
        assert_eq!(ahead.state(), plain.state());
        assert_eq!(ahead.counters(), plain.counters());
    }
}

#[test]
fn what_is_foreseen_is_whose_node_it_is_and_only_of_requests_to_a_home_agent_here() {
    let mut world = World::home(|_| {});
    let asked = request(world.timestamp());
    let message = sign(&asked);
    let foreseen = |datagram: Datagram<'_>| {
        let mut found = Vec::new();
        world.agent.foresee([datagram], |tenant, home_address| found.push((tenant, home_address)));
        found
    };
    assert_eq!(foreseen(relayed(FOREIGN, &message)), [(TENANT, NODE)]);
    let reply = reply_to(&asked, homeport_proto::message::ReplyCode::ACCEPTED, 60);
    assert_eq!(foreseen(relayed(FOREIGN, &reply)), []);
    assert_eq!(foreseen(relayed(FOREIGN, &message[..message.len().min(20)])), []);
    let mut elsewhere = asked;
    elsewhere.home_agent = STRANGER;
    let elsewhere = sign(&elsewhere);
    let datagram = Datagram { destination: STRANGER, ..relayed(FOREIGN, &elsewhere) };
    assert_eq!(foreseen(datagram), []);
}
