//! tshark and scapy agree with us on every message and extension that they know.

use std::net::Ipv4Addr;

use homeport_proto::Lifetime;
use homeport_proto::message::advertisement::AgentFlags;
use homeport_proto::message::{
    AgentAdvertisement, AgentSolicitation, AuthenticationKind, DynamicHomeAgent,
    DynamicHomeAgentFraming, DynamicHomeAgentKind, Extension, Identification, Message,
    MessageString, MessageWriter, MobileNetworkAcknowledgement, MobileNetworkCode,
    MobileNetworkMode, MobileNetworkRequest, MobilityAgent, RegistrationReply, RegistrationRequest,
    RegistrationRevocation, ReplyCode, RequestFlags, RevocationAcknowledgement, RevocationSupport,
    UdpTunnelReply, UdpTunnelRequest,
};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, Spi,
};
use homeport_tests::decoder::{Capture, fields, hex, scapy, unhex};
use homeport_tests::frame;
use homeport_wire::{IpProtocol, MacAddress};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const CARE_OF: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const MACS: (MacAddress, MacAddress) =
    (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2]));

/// tshark's severity of a warning; errors and malformed frames are above it.
const EXPERT_WARNING: u32 = 0x0060_0000;

fn association(spi: u32, algorithm: Algorithm) -> MobilitySecurityAssociation {
    MobilitySecurityAssociation {
        spi: Spi(spi),
        algorithm,
        key: Key::new(b"a key of sixteen".to_vec()),
        replay: ReplayProtection::default(),
    }
}

fn request(flags: u8, lifetime: u16) -> RegistrationRequest {
    RegistrationRequest {
        flags: RequestFlags(flags),
        lifetime: Lifetime(lifetime),
        home_address: NODE,
        home_agent: AGENT,
        care_of_address: CARE_OF,
        identification: Identification(0xed00_0000_8000_0000),
    }
}

fn reply(code: ReplyCode) -> RegistrationReply {
    RegistrationReply {
        code,
        lifetime: Lifetime(300),
        home_address: NODE,
        home_agent: AGENT,
        identification: Identification(0xed00_0000_8000_0000),
    }
}

fn on_the_wire(message: &[u8]) -> Vec<u8> {
    frame::ethernet(MACS.0, MACS.1, &frame::udp((NODE, 1434), (AGENT, 434), 64, message))
}

fn discovery(icmp: &[u8]) -> Vec<u8> {
    frame::ethernet(
        MacAddress::BROADCAST,
        MACS.1,
        &frame::ipv4(AGENT, Ipv4Addr::BROADCAST, IpProtocol::ICMP, 1, icmp),
    )
}

/// What tshark found in the only frame, after checking that it found no fault.
fn judged(name: &str, frame: Vec<u8>) -> serde_json::Value {
    let layers = Capture::write(name, &[frame]).tshark().remove(0);
    // Notes, such as the one about a TTL of 1, are below a warning.
    let severities = fields(&layers, "_ws.expert.severity");
    assert!(severities.iter().all(|severity| number(severity) < EXPERT_WARNING), "{layers:#}");
    assert!(layers.get("_ws.malformed").is_none(), "{layers:#}");
    layers
}

#[track_caller]
fn assert_fields(layers: &serde_json::Value, expected: &[(&str, &[&str])]) {
    for (name, values) in expected {
        assert_eq!(fields(layers, name), *values, "{name} in {layers:#}");
    }
}

/// Row B-01.
#[test]
fn tshark_reads_the_flags_and_fields_of_a_request() {
    for bit in 0..8 {
        let layers = judged(&format!("request-{bit}"), on_the_wire(&request(1 << bit, 600).emit()));
        let names = ["mip.x", "mip.t", "mip.v", "mip.g", "mip.m", "mip.d", "mip.b", "mip.s"];
        for (at, name) in names.iter().enumerate() {
            assert_eq!(
                fields(&layers, name),
                [if at == bit { "1" } else { "0" }],
                "{name}, bit {bit}"
            );
        }
        assert_fields(
            &layers,
            &[
                ("mip.type", &["1"]),
                ("mip.life", &["600"]),
                ("mip.homeaddr", &["10.1.0.10"]),
                ("mip.haaddr", &["10.0.1.2"]),
                ("mip.coa", &["10.0.2.2"]),
            ],
        );
        let ident = fields(&layers, "mip.ident");
        assert!(ident[0].contains("Dec 31, 2025 20:03:12.5"), "{ident:?}");
    }
}

/// Row B-01.
#[test]
fn tshark_knows_every_reply_code_that_it_has_a_name_for() {
    let frames: Vec<Vec<u8>> =
        ReplyCode::ALL.iter().map(|code| on_the_wire(&reply(*code).emit())).collect();
    let decoded = Capture::write("replies", &frames).tshark();
    assert_eq!(decoded.len(), ReplyCode::ALL.len());
    for (layers, code) in decoded.iter().zip(ReplyCode::ALL) {
        assert!(layers.get("_ws.malformed").is_none());
        assert_fields(
            layers,
            &[("mip.type", &["3"]), ("mip.code", &[&code.to_string()]), ("mip.life", &["300"])],
        );
    }
}

/// Row B-02.
// Shows 5944-1.6-a.
#[test]
fn tshark_reads_every_authentication_with_spi_and_authenticator() {
    let algorithms =
        [Algorithm::HmacMd5, Algorithm::KeyedMd5, Algorithm::HmacSha1, Algorithm::HmacSha256];
    for (index, algorithm) in algorithms.into_iter().enumerate() {
        let mut writer = MessageWriter::request(&request(0, 600));
        writer.authenticate(AuthenticationKind::MobileHome, &association(256, algorithm));
        writer
            .authenticate(AuthenticationKind::MobileForeign, &association(0xffff_ffff, algorithm));
        writer.authenticate(AuthenticationKind::ForeignHome, &association(0x1234_5678, algorithm));
        let message = writer.finish();
        let Ok(Message::Request(parsed)) = Message::parse(&message) else { panic!("a request") };
        let authenticators: Vec<String> = parsed
            .extensions()
            .iter()
            .map(|located| match located.extension {
                Extension::Authentication { authenticator, .. } => hex(authenticator),
                ref other => panic!("{other:?}"),
            })
            .collect();
        let layers = judged(&format!("authentication-{index}"), on_the_wire(&message));
        assert_fields(&layers, &[("mip.ext.type", &["32", "33", "34"])]);
        let spis: Vec<u32> =
            fields(&layers, "mip.auth.spi").iter().map(|text| number(text)).collect();
        assert_eq!(spis, [256, 0xffff_ffff, 0x1234_5678]);
        let seen: Vec<String> =
            fields(&layers, "mip.auth.auth").iter().map(|text| hex(&unhex(text))).collect();
        assert_eq!(seen, authenticators, "{algorithm:?}");
    }
}

fn number(text: &str) -> u32 {
    text.strip_prefix("0x")
        .map_or_else(|| text.parse(), |digits| u32::from_str_radix(digits, 16))
        .expect("a number")
}

#[test]
fn tshark_reads_every_other_extension_that_it_knows() {
    let mut writer = MessageWriter::request(&request(RequestFlags::REVERSE_TUNNEL.0, 600));
    let extensions = [
        Extension::NetworkAccessIdentifier(b"node@example.org"),
        Extension::NormalVendor { vendor: 32473, vendor_type: 9, value: &[1, 2, 3] },
        Extension::CriticalVendor { vendor: 32473, vendor_type: 8, value: &[4, 5, 6, 7] },
        Extension::MessageString { subtype: 1, text: b"clock is 12 s behind" },
        Extension::GeneralizedAuthentication {
            subtype: 1,
            spi: Spi(2),
            authenticator: &[0xab; 16],
        },
        Extension::Challenge(&[7; 8]),
        Extension::EncapsulatingDelivery,
    ];
    for extension in &extensions {
        writer.extension(extension).expect("it fits");
    }
    let layers = judged("extensions", on_the_wire(&writer.finish()));
    assert_fields(
        &layers,
        &[
            ("mip.ext.type", &["131", "134", "38", "145", "36", "132", "130"]),
            ("mip.nai", &["node@example.org"]),
            ("mip.ext.nvse.vendor_id", &["32473"]),
            ("mip.ext.nvse.vendor_type", &["9"]),
            ("mip.ext.nvse.vendor_value", &["01:02:03"]),
            ("mip.ext.cvse.vendor_id", &["32473"]),
            ("mip.ext.cvse.vendor_type", &["0x0008"]),
            ("mip.ext.cvse.vendor_value", &["04:05:06:07"]),
            ("mip.ext.msgstr.subtype", &["1"]),
            ("mip.ext.msgstr.text", &["clock is 12 s behind"]),
            ("mip.ext.auth.subtype", &["1"]),
        ],
    );
}

/// Row B-11: a home agent's denial in words under its signature, and a foreign agent's
/// behind it.
#[test]
fn tshark_reads_the_message_strings_of_both_agents() {
    let home = "The node's clock is 60 s ahead of the home agent's.";
    let foreign = "No room for visitors.";
    let mut writer = MessageWriter::reply(&reply(ReplyCode::IDENTIFICATION_MISMATCH));
    let says =
        |subtype, text: &'static str| Extension::MessageString { subtype, text: text.as_bytes() };
    writer.extension(&says(MessageString::HOME_AGENT, home)).expect("it fits");
    writer.authenticate(AuthenticationKind::MobileHome, &association(256, Algorithm::HmacMd5));
    writer.extension(&says(MessageString::FOREIGN_AGENT, foreign)).expect("it fits");
    let longest = "x".repeat(MessageString::MAX_LEN);
    let text = longest.as_bytes();
    writer.extension(&Extension::MessageString { subtype: 2, text }).expect("it fits");
    let layers = judged("message-strings", on_the_wire(&writer.finish()));
    assert_fields(
        &layers,
        &[
            ("mip.code", &["133"]),
            // In its JSON, those of one name stand together.
            ("mip.ext.type", &["145", "145", "145", "32"]),
            ("mip.ext.msgstr.subtype", &["1", "2", "2"]),
            ("mip.ext.msgstr.text", &[home, foreign, longest.as_str()]),
        ],
    );
}

/// Row B-04: what tshark 4.0 knows. It does not know the GRE key extension.
#[test]
fn tshark_reads_the_udp_tunnel_request_and_reply() {
    for (index, (forced, registration_required, encapsulation)) in [
        (false, false, None),
        (true, false, Some(IpProtocol::IP_IN_IP)),
        (false, true, Some(IpProtocol::GRE)),
        (true, true, Some(IpProtocol::MINIMAL)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut writer = MessageWriter::request(&request(RequestFlags::CO_LOCATED.0, 600));
        let asked = UdpTunnelRequest { forced, registration_required, encapsulation, reserved: 0 };
        writer.extension(&Extension::UdpTunnelRequest(asked)).expect("it fits");
        let layers = judged(&format!("udp-request-{index}"), on_the_wire(&writer.finish()));
        let bit = |set| if set { "1" } else { "0" };
        let protocol = encapsulation.map_or(0, |protocol| protocol.0).to_string();
        assert_fields(
            &layers,
            &[
                ("mip.ext.type", &["144"]),
                ("mip.ext.len", &["6"]),
                ("mip.ext.utrq.subtype", &["0"]),
                ("mip.ext.utrq.f", &[bit(forced)]),
                ("mip.ext.utrq.r", &[bit(registration_required)]),
                ("mip.ext.utrq.encaptype", &[&protocol]),
                ("mip.ext.utrq.reserved1", &["0x00"]),
                ("mip.ext.utrq.reserved2", &["0x00"]),
                ("mip.ext.utrq.reserved3", &["0x0000"]),
            ],
        );
    }
    for (index, (code, forced, keepalive)) in
        [(0, false, 110), (0, true, 0), (64, false, 0xffff)].into_iter().enumerate()
    {
        let mut writer = MessageWriter::reply(&reply(ReplyCode::ACCEPTED));
        let answer = UdpTunnelReply { code, forced, keepalive };
        writer.extension(&Extension::UdpTunnelReply(answer)).expect("it fits");
        let layers = judged(&format!("udp-reply-{index}"), on_the_wire(&writer.finish()));
        assert_fields(
            &layers,
            &[
                ("mip.ext.type", &["44"]),
                ("mip.ext.utrp.subtype", &["0"]),
                ("mip.ext.utrp.code", &[&code.to_string()]),
                ("mip.ext.utrp.f", &[if forced { "1" } else { "0" }]),
                ("mip.ext.utrp.reserved", &["0x0000"]),
                ("mip.ext.utrp.keepalive", &[&keepalive.to_string()]),
            ],
        );
    }
}

/// Row B-10.
#[test]
fn tshark_reads_mobile_networks_in_requests_and_replies() {
    let prefix = Ipv4Addr::new(10, 9, 0, 0);
    let mut writer = MessageWriter::request(&request(RequestFlags::REVERSE_TUNNEL.0, 65534));
    for prefix_len in [24, 16] {
        let asked = MobileNetworkRequest { prefix_len, prefix };
        writer.extension(&Extension::MobileNetworkRequest(asked)).expect("it fits");
    }
    let layers = judged("mobile-network-request", on_the_wire(&writer.finish()));
    assert_fields(
        &layers,
        &[
            ("mip.ext.type", &["148", "148"]),
            ("mip.ext.mne.subtype", &["0", "0"]),
            ("mip.ext.mne.prefix_length", &["24", "16"]),
            ("mip.ext.mne.prefix", &["10.9.0.0", "10.9.0.0"]),
        ],
    );
    let mut writer = MessageWriter::reply(&reply(ReplyCode::ACCEPTED));
    for (mode, code) in [
        (MobileNetworkMode::Explicit, MobileNetworkCode::SUCCESS),
        (MobileNetworkMode::Implicit, MobileNetworkCode::FORWARDING_SETUP_FAILED),
    ] {
        let answer = MobileNetworkAcknowledgement { mode, code, prefix_len: 24, prefix };
        writer.extension(&Extension::MobileNetworkAcknowledgement(answer)).expect("it fits");
    }
    let layers = judged("mobile-network-acknowledgement", on_the_wire(&writer.finish()));
    assert_fields(
        &layers,
        &[
            ("mip.ext.mne.subtype", &["1", "2"]),
            ("mip.ext.mne.code", &["0", "3"]),
            ("mip.ext.mne.prefix_length", &["24", "24"]),
            ("mip.ext.mne.reserved", &["0x00", "0x00"]),
            ("mip.ext.mne.prefix", &["10.9.0.0", "10.9.0.0"]),
        ],
    );
}

/// Row B-11.
#[test]
fn tshark_reads_revocations_and_their_acknowledgements() {
    let foreign_home = association(300, Algorithm::HmacMd5);
    for (index, (from_home_agent, inform)) in
        [(false, false), (true, false), (false, true), (true, true)].into_iter().enumerate()
    {
        let bit = |set| if set { "1" } else { "0" };
        let revocation = RegistrationRevocation {
            from_home_agent,
            inform,
            home_address: NODE,
            home_agent: AGENT,
            care_of_address: CARE_OF,
            identifier: 0xed00_0000,
        };
        let mut writer = MessageWriter::revocation(&revocation);
        writer.authenticate(AuthenticationKind::ForeignHome, &foreign_home);
        let layers = judged(&format!("revocation-{index}"), on_the_wire(&writer.finish()));
        assert_fields(
            &layers,
            &[
                ("mip.type", &["7"]),
                ("mip.rev.a", &[bit(from_home_agent)]),
                ("mip.rev.i", &[bit(inform)]),
                ("mip.homeaddr", &["10.1.0.10"]),
                ("mip.rev.hda", &["10.0.1.2"]),
                ("mip.rev.fda", &["10.0.2.2"]),
                ("mip.ext.type", &["34"]),
                ("mip.auth.spi", &["0x0000012c"]),
            ],
        );
        let identifier = fields(&layers, "mip.revid");
        let acknowledgement =
            RevocationAcknowledgement { inform, home_address: NODE, identifier: 0xed00_0000 };
        let mut writer = MessageWriter::acknowledgement(&acknowledgement);
        writer.authenticate(AuthenticationKind::ForeignHome, &foreign_home);
        let layers = judged(&format!("acknowledgement-{index}"), on_the_wire(&writer.finish()));
        assert_fields(
            &layers,
            &[
                ("mip.type", &["15"]),
                ("mip.ack.i", &[bit(inform)]),
                ("mip.homeaddr", &["10.1.0.10"]),
                ("mip.ext.type", &["34"]),
            ],
        );
        assert_eq!(fields(&layers, "mip.revid"), identifier);
        let mut writer = MessageWriter::request(&request(0, 600));
        let support = RevocationSupport { inform, timestamp: 0xed00_0000 };
        writer.extension(&Extension::RevocationSupport(support)).expect("it fits");
        let layers = judged(&format!("revocation-support-{index}"), on_the_wire(&writer.finish()));
        assert_fields(
            &layers,
            &[
                ("mip.ext.type", &["137"]),
                ("mip.ext.len", &["6"]),
                ("mip.ext.rev.i", &[bit(inform)]),
            ],
        );
        assert_eq!(fields(&layers, "mip.ext.rev.tstamp").len(), 1);
    }
}

/// Row B-11: in the framing that tshark has too; in RFC 4433's own it reads the first
/// byte of the length as all there is.
#[test]
fn tshark_reads_which_home_agent_is_asked_for_and_which_is_named() {
    for (kind, subtype) in
        [(DynamicHomeAgentKind::Requested, "1"), (DynamicHomeAgentKind::Redirected, "2")]
    {
        let framing = DynamicHomeAgentFraming::Short;
        let extension = DynamicHomeAgent { kind, address: AGENT, framing };
        let mut writer = MessageWriter::request(&request(0, 600));
        writer.extension(&Extension::DynamicHomeAgent(extension)).expect("it fits");
        writer.authenticate(AuthenticationKind::MobileHome, &association(256, Algorithm::HmacMd5));
        let name = format!("dynamic-home-agent-{subtype}");
        let layers = judged(&name, on_the_wire(&writer.finish()));
        assert_fields(
            &layers,
            &[
                ("mip.ext.type", &["139", "32"]),
                ("mip.ext.dynha.subtype", &[subtype]),
                ("mip.ext.dynha.ha", &["10.0.1.2"]),
            ],
        );
    }
}

/// Rows B-03, B-04 and B-11: the flags M, G, U and X, one at a time.
#[test]
fn tshark_reads_what_an_agent_offers_to_tunnel_with() {
    for (flag, name) in [
        (AgentFlags::MINIMAL, "icmp.mip.m"),
        (AgentFlags::GRE, "icmp.mip.g"),
        (AgentFlags::UDP_TUNNEL, "icmp.mip.u"),
        (AgentFlags::REVOCATION, "icmp.mip.x"),
    ] {
        let advertisement = AgentAdvertisement {
            code: 16,
            lifetime: 3,
            routers: vec![(AGENT, 0)],
            mobility: Some(MobilityAgent {
                sequence: 1,
                registration_lifetime: Lifetime(300),
                flags: AgentFlags::FOREIGN_AGENT.with(flag),
                care_of_addresses: vec![CARE_OF],
            }),
            prefix_lengths: Vec::new(),
            challenge: None,
        };
        let layers = judged(&format!("offer-{name}"), discovery(&advertisement.emit()));
        for other in ["icmp.mip.m", "icmp.mip.g", "icmp.mip.u", "icmp.mip.x"] {
            assert_eq!(fields(&layers, other), [if other == name { "1" } else { "0" }], "{name}");
        }
    }
}

/// Row B-03.
#[test]
fn tshark_reads_advertisement_and_solicitation() {
    let advertisement = AgentAdvertisement {
        code: 0,
        lifetime: 3,
        routers: vec![(AGENT, 0)],
        mobility: Some(MobilityAgent {
            sequence: 258,
            registration_lifetime: Lifetime(300),
            flags: AgentFlags::FOREIGN_AGENT
                .with(AgentFlags::REVERSE_TUNNEL)
                .with(AgentFlags::BUSY),
            care_of_addresses: vec![CARE_OF, AGENT],
        }),
        prefix_lengths: vec![24],
        challenge: Some(vec![9; 8]),
    };
    let layers = judged("advertisement", discovery(&advertisement.emit()));
    assert_fields(
        &layers,
        &[
            ("icmp.type", &["9"]),
            ("icmp.mip.type", &["16", "19", "24"]),
            ("icmp.mip.seq", &["258"]),
            ("icmp.mip.life", &["300"]),
            ("icmp.mip.r", &["0"]),
            ("icmp.mip.b", &["1"]),
            ("icmp.mip.h", &["0"]),
            ("icmp.mip.f", &["1"]),
            ("icmp.mip.rt", &["1"]),
            ("icmp.mip.u", &["0"]),
            ("icmp.mip.coa", &["10.0.2.2", "10.0.1.2"]),
            ("icmp.mip.prefixlength", &["24"]),
            ("icmp.mip.challenge", &["09:09:09:09:09:09:09:09"]),
            ("icmp.checksum.status", &["1"]),
        ],
    );
    let layers = judged("solicitation", discovery(&AgentSolicitation.emit()));
    assert_fields(&layers, &[("icmp.type", &["10"]), ("icmp.checksum.status", &["1"])]);
}

/// scapy emits, we parse: random fields, then the same bytes from us.
#[test]
fn scapy_and_we_emit_the_same_bytes() {
    let program = "
import random
random.seed(434)
for i in range(200):
    f = {k: random.randrange(n) for k, n in (('flags', 256), ('lifetime', 65536), ('id', 1 << 64), ('ha', 1 << 32), ('coa', 1 << 32), ('home', 1 << 32), ('code', 256))}
    dot = lambda n: '.'.join(str(n >> s & 255) for s in (24, 16, 8, 0))
    q = MobileIP()/MobileIPRRQ(flags=f['flags'], lifetime=f['lifetime'], homeaddr=dot(f['home']), haaddr=dot(f['ha']), coaddr=dot(f['coa']), id=f['id'])
    p = MobileIP()/MobileIPRRP(code=f['code'], lifetime=f['lifetime'], homeaddr=dot(f['home']), haaddr=dot(f['ha']), id=f['id'])
    print(json.dumps([f, bytes(q).hex(), bytes(p).hex()]))
";
    let lines = scapy(program, "");
    assert_eq!(lines.lines().count(), 200);
    for line in lines.lines() {
        let (values, request_hex, reply_hex): (serde_json::Value, String, String) =
            serde_json::from_str(line).expect("JSON");
        let at = |name: &str| values[name].as_u64().expect("a number");
        let address = |name: &str| Ipv4Addr::from_bits(u32::try_from(at(name)).expect("32 bits"));
        let request = RegistrationRequest {
            flags: RequestFlags(u8::try_from(at("flags")).expect("8 bits")),
            lifetime: Lifetime(u16::try_from(at("lifetime")).expect("16 bits")),
            home_address: address("home"),
            home_agent: address("ha"),
            care_of_address: address("coa"),
            identification: Identification(at("id")),
        };
        let reply = RegistrationReply {
            code: ReplyCode(u8::try_from(at("code")).expect("8 bits")),
            lifetime: request.lifetime,
            home_address: request.home_address,
            home_agent: request.home_agent,
            identification: request.identification,
        };
        assert_eq!(hex(&request.emit()), request_hex);
        assert_eq!(hex(&reply.emit()), reply_hex);
        assert_eq!(RegistrationRequest::parse(&unhex(&request_hex)), Ok(request));
        assert_eq!(RegistrationReply::parse(&unhex(&reply_hex)), Ok(reply));
    }
}
