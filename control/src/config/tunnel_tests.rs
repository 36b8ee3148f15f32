//! What the file says of tunnels is what the agents are told. (B-04, B-08, B-10)

use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_proto::Lifetime;
use homeport_proto::config::{
    EncapsulationSet, MobileNetwork, NatPolicy, NatTraversal, Prefix, Profile, SessionInsertion,
    TunnelPolicy, UdpTunnelling,
};

use crate::config::Config;
use crate::config::tests::{GOOD, Room, says};

const HOME: &str = "max_bindings = 1000";
const FOREIGN: &str = "encapsulating_delivery = false";
const NETWORK: &str = "[[home_agent.home_network]]";

/// The good file with more keys.
fn parse(home: &str, networks: &str, foreign: &str) -> Config {
    let with = |line: &str, more: &str| format!("{line}\n{more}");
    let text = GOOD
        .replace(HOME, &with(HOME, home))
        .replace(NETWORK, &format!("{networks}\n{NETWORK}"))
        .replace(FOREIGN, &with(FOREIGN, foreign));
    Room::new().parse(&text).unwrap()
}

#[test]
fn every_key_of_tunnels_has_its_default_and_its_meaning() {
    let config = parse("", "", "");
    let agent = &config.home_agents[0].config;
    assert_eq!((agent.tunnels, agent.nat), (TunnelPolicy::default(), NatPolicy::default()));
    assert_eq!(agent.tunnels.encapsulations, EncapsulationSet::ALL);
    let agent = &config.foreign_agents[0].config;
    assert_eq!((agent.tunnels, agent.udp_tunnel), (TunnelPolicy::default(), UdpTunnelling::Off));

    let config = parse(
        "encapsulations = [\"ip-in-ip\", \"gre\", \"udp\"]\nnat_traversal = \"rfc3519\"\n\
         forced_udp = true\nkeepalive = \"30s\"\npath_validation = false\n\
         tunnel_df = \"set\"\nmss_clamp = true\n",
        "[[home_agent.mobile_network]]\nmobile_router = \"10.1.0.10\"\nprefix = \"10.9.0.0/24\"\n",
        "encapsulations = [\"ip-in-ip\", \"minimal\", \"udp\"]\nudp_tunnel = \"forced\"\n\
         tunnel_df = \"set\"\nmss_clamp = true\n",
    );
    let agent = &config.home_agents[0].config;
    let encapsulations = EncapsulationSet::GRE.with(EncapsulationSet::UDP);
    let tunnels = TunnelPolicy { encapsulations, set_df: true, clamp_mss: true };
    assert_eq!(agent.tunnels, tunnels);
    let nat = NatPolicy {
        traversal: NatTraversal::Rfc3519,
        forced_udp: true,
        keepalive: Duration::from_secs(30),
        path_validation: false,
    };
    assert_eq!(agent.nat, nat);
    let prefix = Prefix::new(Ipv4Addr::new(10, 9, 0, 0), 24).unwrap();
    let mobile_router = Ipv4Addr::new(10, 1, 0, 10);
    assert_eq!(agent.mobile_networks, [MobileNetwork { mobile_router, prefix }]);
    let agent = &config.foreign_agents[0].config;
    let encapsulations = EncapsulationSet::MINIMAL.with(EncapsulationSet::UDP);
    assert_eq!(agent.tunnels, TunnelPolicy { encapsulations, ..tunnels });
    assert_eq!(agent.udp_tunnel, UdpTunnelling::Forced);
    // Advertised are M and U, on the foreign agent's link alone.
    let [visited, home] = &config.advertisers[..] else { panic!("two advertisers") };
    assert!(visited.udp_tunnel && !home.udp_tunnel);
    assert_eq!(visited.encapsulations, encapsulations);

    for (word, traversal) in [("challenge", NatTraversal::Challenge), ("off", NatTraversal::Off)] {
        let config = parse(&format!("nat_traversal = \"{word}\""), "", "");
        assert_eq!(config.home_agents[0].config.nat.traversal, traversal);
    }
}

/// B-10: what today's routers ask for is granted, unless something else is written.
#[test]
fn the_dmnr_profile_grants_65534_seconds_unless_the_file_says_less() {
    let lifetime = |profile: &str, line: &str| {
        let text = GOOD
            .replace("profile = \"rfc2002\"", &format!("profile = \"{profile}\""))
            .replace("max_lifetime = \"600s\"", line);
        let config = Room::new().parse(&text).unwrap();
        let agent = &config.home_agents[0].config;
        (agent.profile, agent.max_lifetime)
    };
    assert_eq!(lifetime("dmnr", ""), (Profile::Dmnr, Lifetime(65_534)));
    assert_eq!(lifetime("dmnr", "max_lifetime = \"1h\""), (Profile::Dmnr, Lifetime(3_600)));
    assert_eq!(lifetime("rfc5944", ""), (Profile::Rfc5944, Lifetime(36_000)));
}

#[test]
fn what_cannot_be_right_about_tunnels_says_what_to_write() {
    let room = Room::new();
    let problem = |at: &str, line: &str, wrong: &str| {
        let text = format!("{at}\n{line}");
        room.only_problem(at, &text, wrong)
    };
    says(
        &problem(HOME, "encapsulations = [\"ip-in-ip\", \"grey\"]", "\"grey\""),
        "\"grey\" is not known here",
        "did you mean \"gre\"?",
    );
    says(
        &problem(HOME, "encapsulations = [\"ip-in-ip\", \"udp\", \"udp\"]", "\"udp\"]"),
        "\"udp\" stands here twice",
        "name it once",
    );
    says(
        &problem(FOREIGN, "encapsulations = [\"gre\"]", "[\"gre\"]"),
        "every agent must support IP in IP (RFC 5944 §1)",
        "add \"ip-in-ip\"",
    );
    let no_udp = "encapsulations = [\"ip-in-ip\"]\n";
    says(
        &problem(HOME, &format!("{no_udp}nat_traversal = \"challenge\""), "\"challenge\""),
        "who answers the challenge gets a UDP tunnel, and there is none",
        "add \"udp\" to encapsulations",
    );
    says(
        &problem(HOME, &format!("{no_udp}forced_udp = true"), "true"),
        "there is no UDP to be forced",
        "add \"udp\" to encapsulations",
    );
    says(
        &problem(HOME, "nat_traversal = \"off\"\nforced_udp = true", "true"),
        "only RFC 3519 knows how to force UDP",
        "write nat_traversal = \"rfc3519\", or forced_udp = false",
    );
    for value in ["\"9s\"", "\"500ms\"", "\"20h\"", "\"10500ms\""] {
        let problem = problem(HOME, &format!("keepalive = {value}"), value);
        assert!(problem.message.starts_with("a keepalive interval is"), "{problem}");
    }
    says(
        &problem(FOREIGN, &format!("{no_udp}udp_tunnel = \"on\""), "\"on\""),
        "this foreign agent has no UDP tunnels to ask for",
        "add \"udp\" to encapsulations",
    );
    says(
        &problem(FOREIGN, "reverse_tunnel = false\nudp_tunnel = \"on\"", "\"on\""),
        "behind a NAT visitors need reverse tunnels (RFC 3519 §4.5)",
        "write reverse_tunnel = true",
    );
}

#[test]
fn a_mobile_network_has_one_router_which_can_register() {
    let room = Room::new();
    let problem = |router: &str, prefix: &str, wrong: &str| {
        let text = format!(
            "[[home_agent.mobile_network]]\nmobile_router = \"{router}\"\nprefix = \"{prefix}\"\n\
             {NETWORK}"
        );
        room.only_problem(NETWORK, &text, wrong)
    };
    let alone = "write the network that is behind this mobile router alone";
    says(
        &problem("10.2.0.10", "10.9.0.0/24", "\"10.2.0.10\""),
        "10.2.0.10 is in no home network of this home agent",
        "write the mobile router's home address",
    );
    says(
        &problem("10.1.0.99", "10.9.0.0/24", "\"10.1.0.99\""),
        "10.1.0.99 has no security association, so it cannot register",
        "add a security_association with mobile_node = \"10.1.0.99\"",
    );
    for prefix in ["10.1.0.0/24", "10.0.0.0/8", "10.1.0.8/29"] {
        says(
            &problem("10.1.0.10", prefix, &format!("\"{prefix}\"")),
            &format!("{prefix} has home addresses in it, which have bindings of their own"),
            alone,
        );
    }
    says(
        &problem("10.1.0.10", "0.0.0.0/0", "\"0.0.0.0/0\""),
        "0.0.0.0/0 is no network: it is all of them",
        alone,
    );
    let one = "[[home_agent.mobile_network]]\nmobile_router = \"10.1.0.10\"\nprefix = ";
    let twice = format!("{one}\"10.9.0.0/24\"\n{one}\"10.9.0.0/24\" \n{NETWORK}");
    says(
        &room.only_problem(NETWORK, &twice, "\"10.9.0.0/24\" "),
        "10.9.0.0/24 is behind two mobile routers",
        alone,
    );
    let mut many = String::new();
    for third in 0..=32 {
        many.push_str(&format!("{one}\"10.9.{third}.0/24\"\n"));
    }
    let errors = room.parse(&GOOD.replace(NETWORK, &format!("{many}{NETWORK}"))).unwrap_err();
    assert_eq!(errors.problems.len(), 1, "{errors}");
    assert_eq!(errors.problems[0].message, "10.1.0.10 has more than 32 networks");
}

// S1-04, S1-11.
#[test]
fn what_visitors_may_do_by_name_is_what_the_foreign_agent_is_told() {
    let agent = parse("", "", "").foreign_agents.remove(0).config;
    assert_eq!((agent.max_sessions_per_nai, agent.requests_per_minute_per_nai), (0, 0));
    assert_eq!(agent.session_insertion, SessionInsertion::None);
    let shared = "[[foreign_agent.security_association]]\nhome_agent = \"10.0.1.2\"\n\
                  spi = 300\nkey_file = \"keys/mn1.key\"\n";
    let named = "max_sessions_per_nai = 7\nrequests_per_minute_per_nai = 90\n\
                 insert_sessions = \"mac\"\n";
    let agent = parse("", "", &format!("{named}{shared}")).foreign_agents.remove(0).config;
    assert_eq!((agent.max_sessions_per_nai, agent.requests_per_minute_per_nai), (7, 90));
    assert_eq!(agent.session_insertion, SessionInsertion::Mac);
    let text = format!("{FOREIGN}\ninsert_sessions = \"mac\"");
    says(
        &Room::new().only_problem(FOREIGN, &text, "\"mac\""),
        "no home agent would believe it: this foreign agent shares a key with none",
        "add a [[foreign_agent.security_association]] with home_agent = \"…\", or write \"off\"",
    );
}
