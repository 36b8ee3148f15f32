//! What may be done about a refusal: a sentence or two for each cause, which name the
//! config key or the command.

use homeport_proto::config::{ForeignAgentConfig, HomeAgentConfig, NatTraversal};
use homeport_proto::decision::{Cause, Decision};
use homeport_proto::message::AuthenticationKind;
use homeport_proto::security::Subscriber;

use super::AssociationView;

/// The agent that decided, as it is configured now.
#[derive(Clone, Copy, Debug)]
pub enum Agent<'a> {
    /// A home agent.
    Home(&'a str, &'a HomeAgentConfig),
    /// A foreign agent.
    Foreign(&'a str, &'a ForeignAgentConfig),
    /// None got to see it, or it is gone.
    None,
}

impl<'a> Agent<'a> {
    /// Its name in the config.
    pub const fn name(&self) -> &'a str {
        match self {
            Agent::Home(name, _) | Agent::Foreign(name, _) => name,
            Agent::None => "?",
        }
    }

    /// The section of the config file that is about it.
    fn section(&self) -> String {
        match self {
            Agent::Home(name, _) => format!("[[home_agent]] \"{name}\""),
            Agent::Foreign(name, _) => format!("[[foreign_agent]] \"{name}\""),
            Agent::None => "the config".into(),
        }
    }

    const fn max_bindings(&self) -> usize {
        match self {
            Agent::Home(_, config) => config.max_bindings,
            Agent::Foreign(_, config) => config.max_visitors,
            Agent::None => 0,
        }
    }

    fn max_sessions(&self) -> Option<u32> {
        if let Agent::Home(_, config) = self {
            Some(config.sessions.max_sessions_per_nai)
        } else {
            None
        }
    }

    fn max_simultaneous(&self) -> u8 {
        if let Agent::Home(_, config) = self { config.max_simultaneous } else { 0 }
    }
}

/// Put the new file into force.
const APPLY: &str = "then run `homeport config apply FILE`";

/// The SPIs, in words: `SPI 256`, `SPIs 256 and 300`.
fn spis(associations: &[AssociationView]) -> String {
    let numbers: Vec<String> = associations.iter().map(|one| one.spi.to_string()).collect();
    match numbers.as_slice() {
        [] => "no SPI".into(),
        [one] => format!("SPI {one}"),
        [first @ .., last] => format!("SPIs {} and {last}", first.join(", ")),
    }
}

/// What may be done about a decision of `agent`, which shares `associations` with the
/// node, which is known there by its NAI (as it is shown) if it has one; nothing, where
/// nothing need be done.
pub fn remedy(
    decision: &Decision,
    agent: &Agent<'_>,
    associations: &[AssociationView],
    nai: Option<&str>,
) -> Option<String> {
    let request = &decision.request;
    let node = match (Subscriber::in_place_of(request.home_address), nai) {
        (None, _) => request.home_address.to_string(),
        (Some(_), nai) => nai.unwrap_or("the node").to_owned(),
    };
    let peer = match nai {
        Some(nai) => format!("nai = \"{nai}\""),
        None => format!("mobile_node = \"{node}\""),
    };
    let (name, section) = (agent.name(), agent.section());
    let used = decision.extensions.spi(AuthenticationKind::MobileHome);
    let used = used.map_or_else(|| "an SPI".into(), |spi| format!("SPI {spi}"));
    let judged = decision.ruling.association.map(|(spi, algorithm)| (spi, algorithm.name()));
    let source = decision.source;
    let (home_agent, care_of) = (request.home_agent, request.care_of_address);
    let network = "10.1.0.0/24";
    Some(match decision.ruling.cause {
        Cause::Accepted | Cause::Deregistered | Cause::Repeated | Cause::Discovery => return None,
        Cause::Revoked | Cause::RevokedBefore => format!("Nothing, if the node has registered anew. Who took it away tells why: on the box of {source}, an operator (`homeport clear`), a new config, or another registration of the node."),
        Cause::RevocationAcknowledged => return None,
        Cause::Relayed => format!("Wait for the answer of {home_agent}. If none comes, the node is told so with code 78 after pending_timeout."),
        Cause::NoAgentHere => "Look at which address and port the message was sent to (`tshark -i IF -Y mip`): it must be the address of a [[home_agent]], or that of a link in the ports of a [[foreign_agent]].".into(),
        Cause::BadSource => format!("Something on the way, or the node itself, writes {source} as source, which is no address that can be answered. Look for it with `tshark -i IF -Y mip`."),
        Cause::OwnAddress => format!("Another host has taken our address {source}, or our own messages come back in a loop: look for both on the link."),
        Cause::RateLimited => format!("Either somebody floods from the network of {source} (then there is nothing to do here), or many nodes are behind it: then raise registrations_per_prefix, or registrations_per_known_prefix if nodes are registered from there, in [dataplane]. It takes a restart."),
        Cause::Truncated => "The sender is no Mobile IP program, or something cuts its messages: look with `tshark -i IF -Y mip`.".into(),
        Cause::UnexpectedReply => "Nothing is to be done here: some agent answered to the wrong address.".into(),
        Cause::LinkNotServed => format!("Add the port that it came in on to ports of {section}, {APPLY}."),

        Cause::UnknownNode => format!("If the node is yours, share a key with it: add a [[home_agent.security_association]] with mobile_node = \"{node}\" to \"{name}\", or a line for it in the file that its subscribers names, {APPLY}. If it is not, nothing is to be done: strangers get no answer."),
        Cause::UnknownNai => format!("If the node is yours, share a key with it: add a [[home_agent.security_association]] with nai = \"…\" to \"{name}\", or a line for it in the file that its subscribers names, {APPLY}. `tshark -i IF -Y mip` shows the NAI that it sends. If it is not, nothing is to be done: strangers get no answer."),
        Cause::BadName => "Let the node name one NAI of 1 to 253 bytes and one session of 1 to 247: `tshark -i IF -Y mip` shows the extensions 131 and 134 of the request.".into(),
        Cause::SubNaiUnproven => format!("Share a key with the foreign agent: add a [[home_agent.security_association]] with foreign_agent = \"{source}\" to \"{name}\" and one with home_agent = \"{home_agent}\" there; or let the node name its sessions itself (insert_sessions = \"off\" at the foreign agent)."),
        Cause::TooManySessions => format!("See which sessions it has (`homeport show sessions{}`) and whether they should have been given back. Raise max_sessions_per_nai of {section}{}, {APPLY}. Sessions that were given back or lost count for a while too.", nai.map_or(String::new(), |nai| format!(" --nai '{nai}'")), agent.max_sessions().map_or(String::new(), |most| format!(" (now {most})"))),
        Cause::PoolExhausted => format!("See who has the addresses (`homeport show pools`, `homeport show sessions`). Add ranges to a [[home_agent.pool]] of \"{name}\" for the node's realm, {APPLY}; or shorten session_sticky, if most are sticky."),
        Cause::AddressNotTheirs => format!("The node should ask for an address (home address 0.0.0.0), or name one of a pool for its realm. To give it this one always, add a [[home_agent.reservation]] with its nai, session and home_address to \"{name}\", {APPLY}."),
        Cause::AddressHeld => "See whose it is: `homeport show sessions`. The node should ask for another one (home address 0.0.0.0); it may have kept this one longer than it was kept for it.".into(),
        Cause::UnknownSpi => format!("The node signs with {used}; \"{name}\" knows it by {}. Set the node to that, or add a [[home_agent.security_association]] with {peer} and the node's SPI, {APPLY}.", spis(associations)),
        Cause::WrongKey => {
            let (spi, algorithm) = judged.map_or_else(|| (used, ""), |(spi, algorithm)| (format!("SPI {spi}"), algorithm));
            format!("Compare the key of {spi} on both sides, byte for byte: the key_file of the association of \"{name}\" with {} (or its line among the subscribers), and the node's own. The algorithm must be the same too: here it is {algorithm}. Did anybody change the key on one side only?", nai.unwrap_or(&node))
        }
        Cause::TwoSignatures => "Let the node sign once, or write profile = \"rfc5944\".".into(),
        Cause::Unsigned | Cause::UnsignedDenied | Cause::VisitorUnsignedForHome => format!("Give the node the key that it shares with its home agent: \"{name}\" wants every request signed with it."),
        Cause::UnsupportedAuthentication => "Let the node sign with a key that it shares with the home agent itself.".into(),
        Cause::UnknownForeignAgentSpi => format!("Add a [[home_agent.security_association]] with foreign_agent = \"{source}\" and the SPI that it uses to \"{name}\", {APPLY}; or take the foreign agent's association with {home_agent} away."),
        Cause::WrongForeignAgentKey => format!("Compare the key and the algorithm that \"{name}\" and the foreign agent {source} share, on both sides: key_file of [[home_agent.security_association]] with foreign_agent = \"{source}\" here, with home_agent = \"{home_agent}\" there."),
        Cause::ForeignAgentUnsigned => format!("Give the foreign agent {source} the key that \"{name}\" has for it, or take the association with foreign_agent = \"{source}\" away here, {APPLY}."),
        Cause::ForeignAgentNotTrusted => format!("Share a key with the foreign agent: add a [[home_agent.security_association]] with foreign_agent = \"{source}\" to \"{name}\"; or write require_foreign_home_authentication = false, {APPLY}."),

        Cause::ClockOff => {
            let tolerance = associations.iter().find(|one| judged.is_none_or(|(spi, _)| one.spi == spi.0)).and_then(|one| one.tolerance_seconds);
            let tolerance = tolerance.map_or(String::new(), |seconds| format!(" (now {seconds} s)"));
            format!("Set the node's clock, and keep it set (NTP); see that this box's own is right too (`timedatectl`). A node that learns the time from the reply comes right by itself at its next try. Where clocks cannot be better, raise tolerance{tolerance} in its security association. If the node's clock is right, somebody sends a copy of an old request: it does no harm.")
        }
        Cause::Replayed => "One copy does no harm: the network doubled it, or the node sends the same request twice. If it goes on from another place than the node's, somebody replays what he has heard: he gets nothing by it.".into(),
        Cause::OutOfOrder => "Nothing, if it is seldom: requests overtook each other on the way. If it is each request, two devices use the same home address and key, or the node's clock goes backwards: give each its own, or set its clock.".into(),
        Cause::MarkAhead => "Wait until our clock has passed that time; the node is accepted again by itself. Keep its clock, and this box's, from jumping: use NTP that slews.".into(),
        Cause::BeforeStart => "Nothing: the node asks again, and its next request is newer. If it is each request, its clock is a little behind: set it (NTP).".into(),
        Cause::NonceMismatch => "Nothing, if it is once: the reply told the node the right nonce. If it is each request, the node does not use nonces: write replay = \"timestamps\" in its security association, or set the node to nonces.".into(),

        Cause::UnknownExtension => "Let the sender leave this extension out: the protocol wants such a message to be ignored by who does not know it.".into(),
        Cause::Malformed | Cause::BrokenExtensions | Cause::VisitorBrokenExtensions => "The sender's program is at fault, or something on the way cuts its messages: `tshark -i IF -Y mip` shows the request field by field.".into(),
        Cause::ReservedFlags | Cause::VisitorReservedFlags => "The node speaks the older RFC 2002: write profile = \"rfc2002\" for the agent, or bring the node up to date.".into(),
        Cause::MisplacedExtension | Cause::BadTunnelRequest => "The sender's program is at fault (RFC 3519, 4.6.1). Switch NAT traversal off on the node or foreign agent, or bring it up to date.".into(),
        Cause::ImpossibleCareOfAddress => format!("The node registers {care_of}, which is no host's address: look where it got that from (DHCP, or the advertisements of its foreign agent)."),
        Cause::WrongHomeAgent => format!("The node names the home agent {home_agent}, but its message came to another. Set home_agent on the node to the address of \"{name}\", as `homeport show status` has it."),

        Cause::Redirected => format!("Nothing, if the node follows: it then asks the home agent that it was told. If it is to be taken here, write redirect = \"when-full\", or take redirect_to away in {section}, {APPLY}."),

        Cause::OutsideHomeNetworks => format!("Add a [[home_agent.home_network]] with a prefix that {node} is in to \"{name}\", as in prefix = \"{network}\", {APPLY}; or give the node a home address that is in one."),
        Cause::Prohibited | Cause::VisitorProhibited => format!("Write administratively_prohibited = false in {section}, {APPLY}. Somebody has switched it off on purpose."),
        Cause::CareOfAddressAtHome => format!("The node is at home, or believes to have got {care_of} elsewhere: no tunnel can end there. Let it deregister at home; away, give it an address of the network that it visits."),
        Cause::NatNotTraversed => format!("Write nat_traversal = \"rfc3519\" in {section}, {APPLY}; \"udp\" must be in its encapsulations. Or take the NAT out of the way: the node calls itself {care_of}, and its request came from {source}."),
        Cause::ForcedUdpNotAllowed => format!("Write forced_udp = true in {section}, {APPLY}; or do not let the node insist (encapsulation = \"udp\" of homeport-mn)."),
        Cause::TableFull => format!("All places of \"{name}\" are taken: its max_bindings is {}. Raise it and restart the daemon, as the tables are made at the start; or see who need not be there (`homeport show bindings`, `homeport clear binding HOME_ADDRESS`). A shorter max_lifetime lets those go that have left.", agent.max_bindings()),
        Cause::TooManyCareOfAddresses => format!("A node may have {} bindings at a time here: raise max_simultaneous in {section} (4 at most), {APPLY}; or do not let the node ask to keep the earlier ones. They end by themselves with their lifetimes.", agent.max_simultaneous()),
        Cause::ReverseTunnelRefused | Cause::VisitorReverseTunnelRefused => format!("Write reverse_tunnel = true in {section}, {APPLY}; or do not let the node ask for one (reverse_tunnel = \"none\" of homeport-mn)."),
        Cause::ReverseTunnelMandatory => format!("Let the node ask for a reverse tunnel (reverse_tunnel = \"direct\" of homeport-mn); or write require_reverse_tunnel = false in {section}, {APPLY}."),
        Cause::VisitorReverseTunnelMandatory => format!("Let the node ask for a reverse tunnel (reverse_tunnel = \"direct\" of homeport-mn); or write require_reverse_tunnel = false in {section}, and udp_tunnel = \"off\" if it has that, {APPLY}."),
        Cause::ReverseTunnelForProof => format!("Let the node ask for a reverse tunnel (reverse_tunnel = \"direct\" of homeport-mn); or, if you trust whatever is between, write path_validation = false in {section}, {APPLY}."),
        Cause::EncapsulationRefused | Cause::VisitorEncapsulationRefused => format!("Add what the node asks for to encapsulations in {section}, as in encapsulations = [\"ip-in-ip\", \"gre\", \"minimal\", \"udp\"], {APPLY}; or let the node ask for plain IP in IP."),
        Cause::UdpRefused => format!("Add \"udp\" to encapsulations in {section}, {APPLY}."),
        Cause::UdpEncapsulationUnknown => "Let the node ask for IP in IP inside the UDP tunnel, without GRE or minimal encapsulation.".into(),
        Cause::ChallengeGiven => format!("Nothing, if the next registration was accepted: this is how a node behind a NAT shows where it is. If each is refused so, the node does not know challenges: write nat_traversal = \"rfc3519\" in {section}, {APPLY}."),
        Cause::NoMobileNetwork | Cause::NotMobileRouter => format!("Add a [[home_agent.mobile_network]] with mobile_router = \"{node}\" and the network's prefix to \"{name}\", {APPLY}; or do not let the node name networks."),

        Cause::VisitorSaysRevocable => "The node's program is at fault (RFC 3543, 3.2): let it leave the revocation support extension out, or register with a care-of address of its own.".into(),
        Cause::MissingChallenge => format!("Nothing, if the next request is accepted: the denial carries a challenge to answer. If each is refused so, the node knows no challenges: write challenge = \"offered\" or \"off\" in {section}, {APPLY}."),
        Cause::UnknownChallenge => format!("Nothing, if the next request is accepted: the denial carries a new challenge. If it is often, challenges grow too old before they are answered: raise challenge_window in {section}, {APPLY}; or see that the node hears the advertisements of this link."),
        Cause::StaleChallenge => "Nothing, if the next request is accepted: the denial carries a new challenge. If it is each request, the node's program does not take the challenge of the last reply; or somebody replays its requests, and gets nothing by it.".into(),
        Cause::TwoChallenges => "The node's program is at fault (RFC 4721, 3.1): let it answer one challenge only.".into(),
        Cause::ChallengeUnsigned | Cause::ChallengeUnproven => format!("Share a key with the node: add a [[foreign_agent.security_association]] with mobile_node = \"{node}\" to \"{name}\" (with the nai of one that has sessions), and give the node the same; or write challenge = \"off\" in {section}, {APPLY}."),
        Cause::AnswerersFull => format!("As many nodes have answered a challenge here lately as max_visitors and max_pending allow together, or sessions of this NAI half as many (with max_sessions_per_nai, at most twice that). Raise max_visitors of \"{name}\" and restart the daemon, as the tables are made at the start."),
        Cause::StationUnknown => "Something on the link sends with a group address as its own: look with `tshark -e eth.src -Y mip`.".into(),
        Cause::Duplicate => format!("Wait: {home_agent} has not answered the first one yet."),
        Cause::VisitorWrongKey | Cause::VisitorUnsigned => format!("Compare the key, the SPI and the algorithm that \"{name}\" and the node share on both sides ({} here); or take the [[foreign_agent.security_association]] with mobile_node = \"{node}\" away, {APPLY}.", spis(associations)),
        Cause::VisitorNotTrusted => format!("Add a [[foreign_agent.security_association]] with mobile_node = \"{node}\" to \"{name}\" (with the nai of one that has sessions, and the same nai at the node), or write require_mobile_foreign_authentication = false, {APPLY}."),
        Cause::HeaderCompression => "Do not let the node ask for Van Jacobson header compression.".into(),
        Cause::NoHomeAddress => format!("Give the node a home address that is a host's: {node} is none."),
        Cause::MissingNai => "Give the node a home address, or a NAI to be known by (nai = \"…\" of homeport-mn): it has sent neither.".into(),
        Cause::VisitorBadName => "The node's program is at fault (RFC 2794, 3): let it send one NAI of 1 to 253 bytes, and at most one sub-NAI of 1 to 247.".into(),
        Cause::SessionsOfNaiFull => format!("See which sessions the NAI has here (`homeport show visitors`), and end those that need not be. Or raise max_sessions_per_nai in {section}, {APPLY}; 0 is no limit."),
        Cause::NaiRateLimited => format!("Nothing, if the next request is accepted: the node asks again later. If it is often, see why it asks so much (its sessions come and go, or are denied), or raise requests_per_minute_per_nai in {section}, {APPLY}; 0 is no limit."),
        Cause::ReplyWithoutNai | Cause::ReplyWithoutHomeAgent | Cause::ReplyWithoutHomeAddress => format!("The program of the home agent {home_agent} is at fault (RFC 2794, 3): bring it up to date, or give the node a home address of its own."),
        Cause::DeliveryWithoutReverseTunnel => "Let the node ask for a reverse tunnel too, or for no encapsulating delivery.".into(),
        Cause::AddressTaken => format!("See who it is (`homeport show visitors`). If the two are nodes of different home networks, write overlapping_addresses = true in {section}, {APPLY}; if not, one of them has the wrong home address."),
        Cause::NoHomeAgent => format!("Set home_agent on the node; or write the home agent that such nodes get as assigned_home_agent in {section}, {APPLY}."),
        Cause::InvalidHomeAgent => format!("Set home_agent on the node to its home agent's address: {home_agent} cannot be one from here. If it is to be one on this box, add a [[home_agent]] with this address."),
        Cause::InvalidCareOfAddress => format!("The node has an old advertisement, or belongs to another foreign agent on this link: it registers {care_of}. Let it listen to \"{name}\" (see that there is an [[advertiser]])."),
        Cause::LifetimeTooLong => {
            let longest = match agent {
                Agent::Foreign(_, config) => config.max_lifetime.to_string(),
                _ => "the longest".into(),
            };
            format!("Nothing, if the node asks again for less: the reply said how much. Else set the node's lifetime to at most max_lifetime of \"{name}\" (now {longest}), or raise that, {APPLY}.")
        }
        Cause::DeliveryStyleRefused => format!("Write encapsulating_delivery = true in {section}, {APPLY}; or let the node use direct delivery (reverse_tunnel = \"direct\" of homeport-mn)."),
        Cause::TooDistant => "The node must be on the foreign agent's own link to have a reverse tunnel. Take the router out of the way that is between, or its program does not send with TTL 255.".into(),
        Cause::VisitorsFull => format!("All places of \"{name}\" are taken: its max_visitors is {}. Raise it and restart the daemon, as the tables are made at the start.", agent.max_bindings()),
        Cause::PendingFull => format!("The home agents do not answer fast enough, or somebody sends forged requests: `homeport show visitors` has those that wait. Raise max_pending in {section}, {APPLY}."),
        Cause::PendingOfNodeFull => format!("{home_agent} does not answer, and the node asks again and again: see that it can be reached. max_pending_per_node of {section} is how many may wait."),

        Cause::HomeAgentDenied => format!("Ask the home agent: run `homeport explain {node}` on the box of {home_agent}. The reply's code tells the rest."),
        Cause::HomeAgentSilent => format!("See that {home_agent} can be reached from {} by UDP port 434 and back, and what it says (`homeport explain {node}` there). A home agent is silent to whom it does not know. If it does not know GRE keys, write gre_keys = false in {section}.", match agent { Agent::Foreign(_, config) => config.care_of_address.to_string(), _ => "here".into() }),
        Cause::HomeNetworkUnreachable | Cause::HomeAgentHostUnreachable | Cause::HomeAgentUnreachable => format!("Look at the route to {home_agent} (`homeport show routes`), and try `ping {home_agent}` from this box. Is the node's home agent set right?"),
        Cause::HomeAgentPortUnreachable => format!("Start the home agent on {home_agent}, or set the node's home_agent to where it is."),
        Cause::ReplyWrongKey => format!("Compare the key, the SPI and the algorithm that \"{name}\" and the home agent {home_agent} share, on both sides; or take the [[foreign_agent.security_association]] with home_agent = \"{home_agent}\" away, {APPLY}."),
        Cause::ReplyMalformed => format!("The program of the home agent {home_agent} is at fault, or something on the way cuts its replies: look with `tshark -i IF -Y mip`."),
        Cause::RevocationReflected => "Nothing: it changed nothing. Somebody sends our own messages back, or takes this agent for one of the other kind.".into(),
        Cause::RevocationMalformed => format!("The program of the agent {source} is at fault, or something on the way cuts its messages: look with `tshark -i IF -Y mip`."),
        Cause::RevocationUnsigned => format!("If {source} is an agent of yours, let it sign with the key that it shares with \"{name}\"; else somebody forges revocations, and gets nothing by it."),
        Cause::RevocationUnknownSpi | Cause::RevocationWrongKey => format!("If {source} is an agent of yours, compare the key, the SPI and the algorithm that it shares with \"{name}\" on both sides (key_file of the security_association with home_agent or foreign_agent = the other's address); else somebody forges revocations, and gets nothing by it."),
        Cause::RevocationOfAnother | Cause::RevocationElsewhere => format!("The agent {source} names what is not here: see how the home agent {home_agent} and the foreign agent {care_of} are written in both configs."),
        Cause::RevocationReplayed => format!("Nothing, if it is seldom: it came twice, or too late. If the agent {source} revokes and is not heard, see that its clock goes forward (`timedatectl`)."),
        Cause::RevocationNotAgreed => format!("Write revocation = true in {section}, {APPLY}, and the same at {source}; the node's next registration agrees on it. Until then, `homeport clear` takes it away here."),
        Cause::RevocationNotRegistered => "Nothing: there is no such registration here any more.".into(),
        Cause::AcknowledgementNotAwaited => "Nothing, if it is seldom: an acknowledgement came twice, or too late.".into(),
        Cause::NotPending | Cause::ReplyOfAnother => "Nothing, if it is seldom: a reply came twice, or too late. Else somebody forges replies; they change nothing.".into(),
    })
}

/// What is not well though the registration was accepted.
pub fn warning(decision: &Decision, agent: &Agent<'_>) -> Option<String> {
    let Agent::Home(name, config) = agent else { return None };
    let through_nat = decision.ruling.cause == Cause::Accepted && decision.is_through_nat();
    if !through_nat
        || config.nat.traversal == NatTraversal::Challenge
        || decision.extensions.asks_udp_tunnel()
    {
        return None;
    }
    let (source, care_of) = (decision.source, decision.request.care_of_address);
    Some(format!(
        "There is a NAT: the request came from {source}, but the tunnel goes to {care_of}, and \
         packets will hardly arrive. Let the node (or its foreign agent) ask for a UDP tunnel: \
         nat_traversal = true of homeport-mn, udp_tunnel = \"on\" of a [[foreign_agent]]. For \
         nodes that cannot, write nat_traversal = \"challenge\" in [[home_agent]] \"{name}\"."
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use homeport_proto::decision::{Judge, Ruling, SeenExtensions, Standing, Subject};
    use homeport_proto::message::{Identification, RegistrationRequest, RequestFlags};
    use homeport_proto::{Lifetime, PortId, TenantId};

    use super::*;

    fn decision(cause: Cause) -> Decision {
        let address = Ipv4Addr::new(10, 0, 1, 2);
        Decision {
            tenant: TenantId(0),
            judge: Judge::HomeAgent(address),
            subject: Subject::Request,
            source: Ipv4Addr::new(203, 0, 113, 7),
            source_port: 434,
            port: PortId(0),
            request: RegistrationRequest {
                flags: RequestFlags::default(),
                lifetime: Lifetime(60),
                home_address: Ipv4Addr::new(10, 1, 0, 10),
                home_agent: address,
                care_of_address: Ipv4Addr::new(192, 168, 1, 2),
                identification: Identification(1),
            },
            extensions: SeenExtensions::default(),
            session: None,
            ruling: Ruling { cause, standing: Standing::Authentic, ..Ruling::default() },
        }
    }

    #[test]
    fn every_refusal_has_a_remedy_that_names_no_placeholder() {
        let mut remedies = BTreeSet::new();
        for cause in Cause::ALL {
            let remedy = remedy(&decision(*cause), &Agent::None, &[], None);
            let wanted = !cause.is_favourable() && *cause != Cause::Discovery
                || matches!(cause, Cause::Relayed | Cause::Revoked | Cause::RevokedBefore);
            assert_eq!(remedy.is_some(), wanted, "{cause:?}");
            let Some(remedy) = remedy else { continue };
            assert!(remedy.ends_with('.') || remedy.ends_with('?'), "{cause:?}: {remedy}");
            assert!(!remedy.contains("0x") && !remedy.contains("  "), "{cause:?}: {remedy}");
            remedies.insert(remedy);
        }
        assert!(remedies.len() > 60, "{}", remedies.len());
    }

    /// A node that is known by NAI has no address in an association, and what stands in
    /// for one is nobody's business.
    #[test]
    fn remedies_for_nais_name_the_nai_and_never_what_stands_in_for_it() {
        for cause in Cause::ALL {
            for nai in [Some("phone@train.example"), None] {
                let mut decision = decision(*cause);
                decision.request.home_address = Ipv4Addr::new(0, 0, 0, 9);
                let remedy = remedy(&decision, &Agent::None, &[], nai).unwrap_or_default();
                assert!(!remedy.contains("0.0.0.9"), "{cause:?}: {remedy}");
            }
        }
        let remedy = |nai| remedy(&decision(Cause::UnknownSpi), &Agent::None, &[], nai).unwrap();
        assert!(remedy(None).contains("mobile_node = \"10.1.0.10\""));
        assert!(remedy(Some("phone@x")).contains("nai = \"phone@x\""));
    }

    /// A config key that a remedy names is one that the reader knows.
    #[test]
    fn remedies_name_keys_that_there_are() {
        let schema = serde_json::to_string(&crate::config::schema()).unwrap();
        for key in [
            "administratively_prohibited",
            "assigned_home_agent",
            "challenge",
            "challenge_window",
            "encapsulating_delivery",
            "encapsulations",
            "forced_udp",
            "gre_keys",
            "key_file",
            "max_bindings",
            "max_lifetime",
            "max_pending",
            "max_pending_per_node",
            "max_sessions_per_nai",
            "requests_per_minute_per_nai",
            "max_simultaneous",
            "max_visitors",
            "mobile_router",
            "nat_traversal",
            "overlapping_addresses",
            "path_validation",
            "pending_timeout",
            "registrations_per_known_prefix",
            "registrations_per_prefix",
            "redirect",
            "redirect_to",
            "require_foreign_home_authentication",
            "require_mobile_foreign_authentication",
            "require_reverse_tunnel",
            "reverse_tunnel",
            "revocation",
            "session_sticky",
            "subscribers",
            "tolerance",
            "udp_tunnel",
        ] {
            let named = Cause::ALL
                .iter()
                .filter_map(|cause| remedy(&decision(*cause), &Agent::None, &[], None));
            assert!(named.into_iter().any(|remedy| remedy.contains(key)), "{key} is in no remedy");
            assert!(schema.contains(&format!("\"{key}\"")), "{key} is no key");
        }
    }
}
