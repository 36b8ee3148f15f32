use super::extension::ExtensionError;
use super::*;
use crate::Lifetime;
use crate::security::{Algorithm, Key, ReplayProtection, Spi};
use alloc::vec;
use core::net::Ipv4Addr;
use homeport_wire::IpProtocol;
use proptest::prelude::*;

fn association(spi: u32) -> MobilitySecurityAssociation {
    MobilitySecurityAssociation {
        spi: Spi(spi),
        algorithm: Algorithm::HmacMd5,
        key: Key::new(b"0123456789abcdef".to_vec()),
        replay: ReplayProtection::default(),
    }
}

fn request() -> RegistrationRequest {
    RegistrationRequest {
        flags: RequestFlags::SIMULTANEOUS.with(RequestFlags::REVERSE_TUNNEL),
        lifetime: Lifetime(600),
        home_address: Ipv4Addr::new(10, 1, 0, 10),
        home_agent: Ipv4Addr::new(10, 0, 1, 2),
        care_of_address: Ipv4Addr::new(10, 0, 2, 2),
        identification: Identification(0x0102_0304_0506_0708),
    }
}

fn signed_request() -> Vec<u8> {
    let mut writer = MessageWriter::request(&request());
    writer.extension(&Extension::NetworkAccessIdentifier(b"user@example.org")).unwrap();
    writer.authenticate(AuthenticationKind::MobileHome, &association(256));
    writer.extension(&Extension::EncapsulatingDelivery).unwrap();
    writer.authenticate(AuthenticationKind::MobileForeign, &association(300));
    writer.finish()
}

fn parse_request(bytes: &[u8]) -> Received<'_, RegistrationRequest> {
    match Message::parse(bytes).unwrap() {
        Message::Request(received) => received,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_field_stands_where_rfc_5944_draws_it() {
    let bytes = request().emit();
    assert_eq!(bytes[..4], [1, 0x82, 0x02, 0x58]);
    assert_eq!(bytes[4..8], [10, 1, 0, 10]);
    assert_eq!(bytes[8..12], [10, 0, 1, 2]);
    assert_eq!(bytes[12..16], [10, 0, 2, 2]);
    assert_eq!(bytes[16..], [1, 2, 3, 4, 5, 6, 7, 8]);
    let reply = RegistrationReply {
        code: ReplyCode::IDENTIFICATION_MISMATCH,
        lifetime: Lifetime(1),
        home_address: Ipv4Addr::new(1, 2, 3, 4),
        home_agent: Ipv4Addr::new(5, 6, 7, 8),
        identification: Identification::from_halves(9, 10),
    };
    assert_eq!(reply.emit(), [3, 133, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9, 0, 0, 0, 10]);
}

// Shows 5944-3.5.1-b.
#[test]
fn a_signed_request_is_read_back_and_verifies() {
    let bytes = signed_request();
    let received = parse_request(&bytes);
    assert_eq!(received.body, request());
    assert_eq!(received.defect(), None);
    assert_eq!(received.extensions().len(), 4);
    let mobile_home = received.mobile_home_authentication().unwrap();
    assert!(received.verify(mobile_home, &association(256)));
    assert!(!received.verify(mobile_home, &association(257)));
    let mobile_foreign =
        received.authentications(AuthenticationKind::MobileForeign).next().unwrap();
    assert!(received.verify(mobile_foreign, &association(300)));
}

// Shows 5944-3.5.1-a.
#[test]
fn a_flipped_bit_anywhere_under_the_authenticator_is_found() {
    let bytes = signed_request();
    let end = parse_request(&bytes).mobile_home_authentication().unwrap().end;
    for bit in 0..end * 8 {
        let mut broken = bytes.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        let Ok(Message::Request(received)) = Message::parse(&broken) else { continue };
        let verified = received
            .authentications(AuthenticationKind::MobileHome)
            .any(|located| received.verify(located, &association(256)));
        assert!(!verified, "bit {bit}");
    }
}

// Shows attack-12.
#[test]
fn a_message_cut_at_any_byte_is_an_error_or_a_defect() {
    let bytes = signed_request();
    let boundaries: Vec<usize> =
        parse_request(&bytes).extensions().iter().map(|located| located.offset).collect();
    for len in 0..bytes.len() {
        match Message::parse(&bytes[..len]) {
            Err(error) => {
                assert!(len < RegistrationRequest::LEN && error == MessageError::Truncated)
            }
            Ok(Message::Request(received)) => {
                assert_eq!(received.defect().is_none(), boundaries.contains(&len), "at {len}")
            }
            other => panic!("{other:?}"),
        }
    }
}

// Shows 3543-3.2-e, 3543-3.3-a, 3543-3.3-e, 3543-3.4-a, 3543-3.4-d.
#[test]
fn revocation_stands_where_rfc_3543_draws_it() {
    let address = |last| Ipv4Addr::new(10, 0, 0, last);
    let revocation = RegistrationRevocation {
        from_home_agent: true,
        inform: false,
        home_address: address(1),
        home_agent: address(2),
        care_of_address: address(3),
        identifier: 0x0102_0304,
    };
    let mut bytes = revocation.emit();
    assert_eq!(bytes[..4], [7, 0, 0x80, 0]);
    assert_eq!(bytes[4..16], [10, 0, 0, 1, 10, 0, 0, 2, 10, 0, 0, 3]);
    assert_eq!(bytes[16..], [1, 2, 3, 4]);
    // What is reserved means nothing.
    bytes[1..4].copy_from_slice(&[0xff, 0xbf, 0xff]);
    assert_eq!(RegistrationRevocation::parse(&bytes), Ok(revocation));
    let from_foreign_agent =
        RegistrationRevocation { from_home_agent: false, inform: true, ..revocation };
    assert_eq!(from_foreign_agent.emit()[2], 0x40);
    for one in [revocation, from_foreign_agent] {
        assert_eq!(RegistrationRevocation::parse(&one.emit()), Ok(one));
    }
    let acknowledgement =
        RevocationAcknowledgement { inform: true, home_address: address(1), identifier: 9 };
    let mut bytes = acknowledgement.emit();
    assert_eq!(bytes, [15, 0, 0x80, 0, 10, 0, 0, 1, 0, 0, 0, 9]);
    bytes[1..4].fill(0xff);
    assert_eq!(RevocationAcknowledgement::parse(&bytes), Ok(acknowledgement));
    for len in 0..20 {
        let short = Message::parse(&from_foreign_agent.emit()[..len]).map(|_| ());
        assert_eq!(short, Err(MessageError::Truncated));
    }
    for len in 0..12 {
        assert_eq!(Message::parse(&bytes[..len]).map(|_| ()), Err(MessageError::Truncated));
    }
    // Longer than it is today, and shorter than it may be (§3.2).
    let mut request = request().emit().to_vec();
    request.extend([137, 8, 0xff, 0xff, 0, 0, 0, 5, 1, 2]);
    let support = RevocationSupport { inform: true, timestamp: 5 };
    assert_eq!(support.emit(), [0x80, 0, 0, 0, 0, 5]);
    assert_eq!(
        parse_request(&request).extensions()[0].extension,
        Extension::RevocationSupport(support)
    );
    request.truncate(RegistrationRequest::LEN);
    request.extend([137, 5, 0x80, 0, 0, 0, 0]);
    let offset = RegistrationRequest::LEN;
    assert_eq!(parse_request(&request).defect(), Some(ExtensionError::Length { offset }));
}

/// RFC 4433 §3.4 draws a framing that RFC 5944 §1.10 forbids: both are read, whatever
/// stands behind.
#[test]
fn a_dynamic_home_agent_is_read_in_both_framings() {
    let address = Ipv4Addr::new(10, 0, 1, 9);
    for (bytes, framing) in [
        (&[139, 1, 0, 4, 10, 0, 1, 9][..], DynamicHomeAgentFraming::Rfc4433),
        (&[139, 5, 1, 10, 0, 1, 9], DynamicHomeAgentFraming::Short),
    ] {
        let kind = DynamicHomeAgentKind::Requested;
        let extension = Extension::DynamicHomeAgent(DynamicHomeAgent { kind, address, framing });
        let mut emitted = Vec::new();
        extension.emit(&mut emitted).unwrap();
        assert_eq!(emitted, bytes);
        let mut message = request().emit().to_vec();
        message.extend_from_slice(bytes);
        message.extend([130, 0]);
        let received = parse_request(&message);
        assert_eq!(received.defect(), None);
        let read: Vec<_> = received.extensions().iter().map(|one| one.extension).collect();
        assert_eq!(read, [extension, Extension::EncapsulatingDelivery]);
        for len in 1..bytes.len() {
            let cut = RegistrationRequest::LEN + len;
            let received = parse_request(&message[..cut]);
            assert!(!received.extensions().iter().any(|one| one.extension == extension));
        }
    }
}

// Shows 5944-1.8-a, 5944-1.8-b, attack-13.
#[test]
fn an_unknown_type_below_128_is_a_defect_and_above_it_is_skipped() {
    for (extension_type, known) in [
        (0, false),
        (1, false),
        (31, false),
        (35, false),
        (120, false),
        (127, false),
        (128, true),
        (200, true),
        (255, true),
    ] {
        let mut bytes = request().emit().to_vec();
        bytes.extend_from_slice(&[extension_type, 2, 0xa5, 0xa5]);
        let received = parse_request(&bytes);
        let expected = (!known).then_some(ExtensionError::Unknown { extension_type });
        assert_eq!(received.defect(), expected, "type {extension_type}");
        assert_eq!(received.extensions().len(), usize::from(known));
    }
}

// Shows attack-12.
#[test]
fn lengths_at_their_extremes_are_bounded() {
    for extension_type in 0..=255u8 {
        for len in [0u8, 1, 5, 255] {
            for present in [0usize, 1, 2, 5, 255] {
                let mut bytes = request().emit().to_vec();
                bytes.extend_from_slice(&[extension_type, len]);
                bytes.extend(core::iter::repeat_n(0xff, present));
                let received = parse_request(&bytes);
                assert!(received.extensions().iter().all(|located| located.end <= bytes.len()));
            }
        }
    }
    let mut many = request().emit().to_vec();
    many.extend(core::iter::repeat_n([130, 0], 40).flatten());
    let received = parse_request(&many);
    assert_eq!(received.extensions().len(), MAX_EXTENSIONS);
    assert_eq!(received.defect(), Some(ExtensionError::TooMany));
    drop(received);
    many.resize(MAX_MESSAGE_LEN + 1, 0);
    assert_eq!(Message::parse(&many).unwrap_err(), MessageError::TooLong);
}

#[test]
fn long_framing_is_told_by_type() {
    let mut bytes = Vec::new();
    let vendor = Extension::CriticalVendor { vendor: 32473, vendor_type: 7, value: &[1; 300] };
    vendor.emit(&mut bytes).unwrap();
    assert_eq!(bytes[..10], [38, 0, 1, 50, 0, 0, 0x7e, 0xd9, 0, 7]);
    assert_eq!(
        Extension::NormalVendor { vendor: 1, vendor_type: 1, value: &[0; 248] }.emit(&mut bytes),
        Err(ExtensionTooLong)
    );
    assert_eq!(bytes.len(), 310, "nothing was appended");
    assert_eq!(
        Extension::NormalVendor { vendor: 1, vendor_type: 1, value: &[0; 247] }.emit(&mut bytes),
        Ok(())
    );
}

fn emitted(extension: &Extension<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    extension.emit(&mut bytes).unwrap();
    bytes
}

/// Row B-04.
// Shows 5944-1.11-a, 3519-3.1-a, 3519-3.1-b, 3519-3.2-d.
#[test]
fn tunnel_extensions_stand_as_rfc_3519_and_rfc_6245_draw_them() {
    let request = UdpTunnelRequest {
        forced: true,
        registration_required: false,
        encapsulation: Some(IpProtocol::GRE),
        reserved: 0x0102,
    };
    assert_eq!(
        emitted(&Extension::UdpTunnelRequest(request)),
        [144, 6, 0, 0, 0x80, 47, 0x01, 0x02]
    );
    let required = UdpTunnelRequest { registration_required: true, ..UdpTunnelRequest::default() };
    assert_eq!(emitted(&Extension::UdpTunnelRequest(required)), [144, 6, 0, 0, 0x40, 0, 0, 0]);
    let reply = UdpTunnelReply { code: 64, forced: true, keepalive: 110 };
    assert_eq!(emitted(&Extension::UdpTunnelReply(reply)), [44, 6, 0, 64, 0x80, 0, 0, 110]);
    assert!(!reply.assents() && UdpTunnelReply { code: 63, ..reply }.assents());
    assert_eq!(emitted(&Extension::GreKey(0x0102_0304)), [48, 0, 0, 4, 1, 2, 3, 4]);
    // Bits that must be ignored on reception.
    let bytes = [144, 6, 0, 0xff, 0x3f, 4, 0, 0];
    let mut message = request_with(&bytes);
    let expected =
        UdpTunnelRequest { encapsulation: Some(IpProtocol::IP_IN_IP), ..Default::default() };
    assert_eq!(
        parse_request(&message).extensions()[0].extension,
        Extension::UdpTunnelRequest(expected)
    );
    message = request_with(&[44, 6, 0, 0, 0x7f, 0xff, 0, 1]);
    let expected = UdpTunnelReply { keepalive: 1, ..Default::default() };
    assert_eq!(
        parse_request(&message).extensions()[0].extension,
        Extension::UdpTunnelReply(expected)
    );
}

/// Row B-10.
#[test]
fn mobile_networks_stand_as_rfc_5177_draws_them() {
    let prefix = Ipv4Addr::new(10, 9, 0, 0);
    assert_eq!(
        emitted(&Extension::MobileNetworkRequest(MobileNetworkRequest { prefix_len: 24, prefix })),
        [148, 6, 0, 24, 10, 9, 0, 0]
    );
    let acknowledgement = MobileNetworkAcknowledgement {
        mode: MobileNetworkMode::Implicit,
        code: MobileNetworkCode::UNAUTHORIZED,
        prefix_len: 24,
        prefix,
    };
    assert_eq!(
        emitted(&Extension::MobileNetworkAcknowledgement(acknowledgement)),
        [148, 8, 2, 2, 24, 0, 10, 9, 0, 0]
    );
}

fn request_with(extension: &[u8]) -> Vec<u8> {
    let mut bytes = request().emit().to_vec();
    bytes.extend_from_slice(extension);
    bytes
}

// Shows 5944-1.8-a, 5944-1.8-b.
#[test]
fn an_unknown_subtype_is_skipped_or_silences_as_its_type_says() {
    for (bytes, skippable) in [
        (&[144, 6, 1, 0, 0, 0, 0, 0][..], true),
        (&[148, 8, 3, 0, 0, 0, 0, 0, 0, 0][..], true),
        (&[44, 6, 1, 0, 0, 0, 0, 0][..], false),
        (&[48, 1, 0, 4, 0, 0, 0, 0][..], false),
    ] {
        let message = request_with(bytes);
        let received = parse_request(&message);
        let unknown = ExtensionError::Unknown { extension_type: bytes[0] };
        assert_eq!(received.defect(), (!skippable).then_some(unknown));
        assert_eq!(received.extensions().len(), usize::from(skippable));
    }
}

#[test]
fn a_length_that_is_wrong_for_its_type_is_a_defect() {
    for bytes in [
        &[144, 5, 0, 0, 0, 0, 0][..],
        &[144, 7, 0, 0, 0, 0, 0, 0, 0][..],
        &[144, 0][..],
        &[44, 5, 0, 0, 0, 0, 0][..],
        &[48, 0, 0, 3, 0, 0, 0][..],
        &[48, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[148, 6, 1, 0, 24, 0, 10, 9][..],
        &[148, 8, 0, 24, 10, 9, 0, 0, 0, 0][..],
    ] {
        let message = request_with(bytes);
        let offset = RegistrationRequest::LEN;
        let defect = parse_request(&message).defect();
        assert_eq!(defect, Some(ExtensionError::Length { offset }), "{bytes:?}");
    }
}

// Shows 5944-2.1.3-a.
#[test]
fn an_advertisement_has_the_layout_of_rfc_5944() {
    use super::advertisement::AgentFlags;
    let advertisement = AgentAdvertisement {
        code: 16,
        lifetime: 3,
        routers: vec![(Ipv4Addr::new(10, 2, 1, 1), 0)],
        mobility: Some(MobilityAgent {
            sequence: 0x0102,
            registration_lifetime: Lifetime(300),
            flags: AgentFlags::FOREIGN_AGENT.with(AgentFlags::REVERSE_TUNNEL),
            care_of_addresses: vec![Ipv4Addr::new(10, 0, 2, 2)],
        }),
        prefix_lengths: vec![24],
        challenge: None,
    };
    let bytes = advertisement.emit();
    assert_eq!(bytes[..2], [9, 16]);
    assert_eq!(bytes[4..8], [1, 2, 0, 3]);
    assert_eq!(bytes[16..28], [16, 10, 1, 2, 1, 44, 0x11, 0, 10, 0, 2, 2]);
    assert_eq!(bytes[28..], [19, 1, 24]);
    assert_eq!(AgentAdvertisement::parse(&bytes).unwrap(), advertisement);
    assert_eq!(AgentSolicitation::parse(&AgentSolicitation.emit()), Ok(AgentSolicitation));
    for len in 0..bytes.len() {
        assert!(AgentAdvertisement::parse(&bytes[..len]).is_err(), "cut at {len}");
    }
}

fn extension_strategy() -> impl Strategy<Value = (u8, u32, u16, Vec<u8>)> {
    (any::<u8>(), any::<u32>(), any::<u16>(), proptest::collection::vec(any::<u8>(), 0..60))
}

fn build(seed: &(u8, u32, u16, Vec<u8>)) -> Extension<'_> {
    let (pick, number, vendor_type, data) = seed;
    let address = Ipv4Addr::from_bits(*number);
    let [high, low] = vendor_type.to_be_bytes();
    match pick % 13 {
        0 => Extension::Authentication {
            kind: AuthenticationKind::MobileHome,
            spi: Spi(*number),
            authenticator: data,
        },
        1 => Extension::GeneralizedAuthentication {
            subtype: 1,
            spi: Spi(*number),
            authenticator: data,
        },
        2 => Extension::EncapsulatingDelivery,
        3 => Extension::NetworkAccessIdentifier(data),
        4 => Extension::Challenge(data),
        5 => Extension::NormalVendor { vendor: *number, vendor_type: *vendor_type, value: data },
        6 => Extension::CriticalVendor { vendor: *number, vendor_type: *vendor_type, value: data },
        7 => Extension::UdpTunnelRequest(UdpTunnelRequest {
            forced: number % 2 == 0,
            registration_required: number % 3 == 0,
            encapsulation: Some(IpProtocol(*pick)).filter(|protocol| protocol.0 != 0),
            reserved: *vendor_type,
        }),
        8 => Extension::UdpTunnelReply(UdpTunnelReply {
            code: *pick,
            forced: number % 2 == 0,
            keepalive: *vendor_type,
        }),
        9 => Extension::GreKey(*number),
        10 => Extension::MobileNetworkRequest(MobileNetworkRequest {
            prefix_len: high,
            prefix: address,
        }),
        11 => Extension::MobileNetworkAcknowledgement(MobileNetworkAcknowledgement {
            mode: if number % 2 == 0 {
                MobileNetworkMode::Explicit
            } else {
                MobileNetworkMode::Implicit
            },
            code: MobileNetworkCode(high),
            prefix_len: low,
            prefix: address,
        }),
        12 => Extension::RevocationSupport(RevocationSupport {
            inform: *vendor_type & 1 == 1,
            timestamp: *number,
        }),
        13 => Extension::DynamicHomeAgent(DynamicHomeAgent {
            kind: match high & 1 {
                0 => DynamicHomeAgentKind::Requested,
                _ => DynamicHomeAgentKind::Redirected,
            },
            address,
            framing: match low & 1 {
                0 => DynamicHomeAgentFraming::Rfc4433,
                _ => DynamicHomeAgentFraming::Short,
            },
        }),
        _ => Extension::MessageString { subtype: 1, text: data },
    }
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed(seeds in proptest::collection::vec(extension_strategy(), 0..8), flags: u8, lifetime: u16, id: u64) {
        let body = RegistrationRequest { flags: RequestFlags(flags), lifetime: Lifetime(lifetime), identification: Identification(id), ..request() };
        let mut writer = MessageWriter::request(&body);
        for seed in &seeds {
            writer.extension(&build(seed)).unwrap();
        }
        let bytes = writer.finish();
        let received = parse_request(&bytes);
        prop_assert_eq!(received.body, body);
        prop_assert_eq!(received.defect(), None);
        let parsed: Vec<Extension<'_>> = received.extensions().iter().map(|located| located.extension).collect();
        let built: Vec<Extension<'_>> = seeds.iter().map(build).collect();
        prop_assert_eq!(parsed, built);
    }

    // Shows attack-12, attack-34.
    #[test]
    fn noise_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in prop_oneof![Just(1u8), Just(3), Just(7), Just(15)]) {
        let _ = Message::parse(&bytes);
        let _ = AgentAdvertisement::parse(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        let _ = Message::parse(&bytes);
        // With a right checksum the noise gets past the first check.
        if bytes.len() >= 8 {
            bytes[0] = 9;
            bytes[1] = 0;
            bytes[2..4].fill(0);
            let sum = homeport_wire::checksum::checksum(&bytes);
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            let _ = AgentAdvertisement::parse(&bytes);
        }
    }
}
