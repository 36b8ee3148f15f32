use super::*;
use homeport_proto::config::Prefix;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const KEY: &str = "101112131415161718191a1b1c1d1e1f";

/// A directory, gone when dropped.
struct Room(PathBuf);

impl Room {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("homeport-subscribers-{}-{number}", std::process::id());
        let room = Room(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&room.0).unwrap();
        room.file("realm.key", "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b");
        room
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        let mut options = std::fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    }

    fn read(&self, text: &str) -> Result<SecurityAssociations, SubscriberError> {
        let path = self.file("subscribers.csv", text);
        let prefix = Prefix::new(Ipv4Addr::new(10, 0, 0, 0), 8).unwrap();
        let networks = [HomeNetwork { prefix, link: None }];
        let mut security = SecurityAssociations::default();
        read(&path, &self.0, &networks, &mut security).map(|_| security)
    }

    fn errors(&self, text: &str) -> (Vec<(u32, String)>, usize) {
        match self.read(text) {
            Err(SubscriberError::Lines(errors, count)) => {
                assert!(errors.iter().all(|error| !error.help.is_empty()));
                assert!(!format!("{errors:?}").contains(KEY), "a key is never repeated");
                (errors.into_iter().map(|error| (error.line, error.message)).collect(), count)
            }
            other => panic!("{:?}", other.map(|security| security.mobile_node_count())),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn node(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, last)
}

#[test]
fn nodes_are_read_with_comments_blank_lines_and_either_line_end() {
    let text = format!(
        "# nodes\r\n\r\n10.1.0.1,256,hmac-md5,{KEY}\r\n  10.1.0.2 , 300 , hmac-sha256 , {KEY} , nonces\n\
         10.1.0.1,257,keyed-md5,{KEY},timestamps"
    );
    let security = Room::new().read(&text).unwrap();
    assert_eq!(security.mobile_node_count(), 3);
    let first = security.mobile_node(node(1), Spi(256)).unwrap();
    let same = MobilitySecurityAssociation { key: Key::new((16..32).collect()), ..first.clone() };
    assert!(first.verify(b"x", same.authenticator(b"x").as_bytes()));
    let second = security.mobile_node(node(2), Spi(300)).unwrap();
    assert_eq!(
        (second.algorithm, second.replay),
        (Algorithm::HmacSha256, ReplayProtection::Nonces)
    );
    assert_eq!(security.mobile_node(node(1), Spi(257)).unwrap().algorithm, Algorithm::KeyedMd5);
}

#[test]
fn a_realms_nodes_have_keys_of_their_own_derived_from_the_realms() {
    let text = "@realm Example.NET spi=300 algorithm=hmac-md5 key_file=realm.key tolerance=5s max_lifetime=600s\n\
                10.1.0.1,alice@example.net\n10.1.0.2,bob@EXAMPLE.net\n";
    let security = Room::new().read(text).unwrap();
    let alice = security.mobile_node(node(1), Spi(300)).unwrap();
    let right = MobilitySecurityAssociation { key: Key::new(ALICE.to_vec()), ..alice.clone() };
    assert!(alice.verify(b"x", right.authenticator(b"x").as_bytes()));
    let bob = security.mobile_node(node(2), Spi(300)).unwrap();
    assert!(!bob.verify(b"x", right.authenticator(b"x").as_bytes()));
    let tolerance = Duration::from_secs(5);
    assert_eq!(bob.replay, ReplayProtection::Timestamps { tolerance });
    assert_eq!(security.max_lifetime(node(2), Spi(300)), Lifetime(600));
}

/// `printf %s alice@example.net | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b…`
const ALICE: [u8; 16] = [
    0x06, 0x78, 0x6b, 0xa6, 0xb3, 0x02, 0x6e, 0x90, 0x7b, 0xda, 0xa3, 0xed, 0x27, 0x4a, 0xd4, 0x3f,
];

// S1-07, S1-17.
#[test]
fn a_node_without_an_address_is_known_by_its_nai_with_the_same_key() {
    let text = "@realm example.net spi=300 key_file=realm.key max_lifetime=600s\n\
                -,alice@Example.NET\n10.1.0.2,bob@example.net\n";
    let security = Room::new().read(text).unwrap();
    assert_eq!((security.nai_count(), security.mobile_node_count()), (1, 2));
    assert_eq!(security.mobile_nodes().count(), 1, "only bob has an address");
    assert!(security.subscriber(b"bob@example.net").is_none());
    let alice = security.subscriber(b"alice@EXAMPLE.net").unwrap();
    assert_eq!(security.own_home_address(alice), None);
    let shared = security.mobile_node(alice.stand_in(), Spi(300)).unwrap();
    let right = MobilitySecurityAssociation { key: Key::new(ALICE.to_vec()), ..shared.clone() };
    assert!(shared.verify(b"x", right.authenticator(b"x").as_bytes()));
    assert_eq!(security.max_lifetime(alice.stand_in(), Spi(300)), Lifetime(600));
}

#[test]
fn in_a_realm_with_sessions_nodes_with_an_address_are_known_by_both() {
    for (word, nais) in [("yes", 2), ("no", 1)] {
        let text = format!(
            "@realm example.net spi=300 key_file=realm.key sessions={word}\n\
             10.1.0.1,alice@example.net\n-,carol@example.net\n"
        );
        let room = Room::new();
        let security = room.read(&text).unwrap();
        assert_eq!(security.nai_count(), nais, "{word}");
        assert!(security.mobile_node(node(1), Spi(300)).is_some());
        let alice = security.subscriber(b"alice@example.net");
        assert_eq!(alice.is_some(), word == "yes");
        let Some(alice) = alice else { continue };
        assert_eq!(security.own_home_address(alice), Some(node(1)));
        let shared = security.mobile_node(alice.stand_in(), Spi(300)).unwrap();
        let right = MobilitySecurityAssociation { key: Key::new(ALICE.to_vec()), ..shared.clone() };
        assert!(shared.verify(b"x", right.authenticator(b"x").as_bytes()));
        // One node is one line, however it is known.
        let mut all = SecurityAssociations::default();
        let count = read(&room.0.join("subscribers.csv"), &room.0, &[], &mut all).unwrap();
        assert_eq!(count, 2);
    }
}

#[test]
fn a_wrong_line_of_a_node_without_an_address_is_named_with_its_remedy() {
    let realm = "@realm example.net spi=300 key_file=realm.key";
    let text = format!(
        "-,256,hmac-md5,{KEY}\n-\n-,a@example.net\n{realm} sessions=maybe\n{realm}\n\
         -,a@example.com\n-,b@example.net,nonces\n-,@example.net\n-,{}@example.net\n-,c@example.net\n",
        "n".repeat(242)
    );
    let (errors, count) = Room::new().errors(&text);
    let no_nai =
        "home_address: a node that has none is known by its NAI, and this one has none".to_owned();
    let long = format!("nai: \"{}\" is no node of the realm example.net", "n".repeat(40));
    let expected = [
        (1, no_nai.clone()),
        (2, no_nai),
        (3, "nai: no realm is described above \"a@example.net\"".into()),
        (4, "realm: sessions: \"maybe\" is not known".into()),
        (6, "nai: \"a@example.com\" is no node of the realm example.net".into()),
        (7, "nai: there are fields behind it".into()),
        (8, "nai: \"@example.net\" is no node of the realm example.net".into()),
        (9, long),
    ];
    assert_eq!((errors, count), (expected.to_vec(), 8));
}

#[test]
fn a_nai_that_is_there_twice_is_named_with_both_lines() {
    let realm =
        |spi: u32| format!("@realm example.net spi={spi} key_file=realm.key sessions=yes\n");
    let text = format!(
        "{}-,a@example.net\n10.1.0.1,b@example.net\n-,c@example.net\n-,a@EXAMPLE.net\n\
         10.1.0.1,b@example.net\n10.1.0.1,d@example.net\n10.1.0.3,c@example.net\n{}\
         -,a@example.net\n10.1.0.4,b@example.net\n",
        realm(300),
        realm(301),
    );
    let (errors, count) = Room::new().errors(&text);
    let expected = [
        (5, "a@example.net with SPI 300 stands in line 2 already"),
        (6, "b@example.net with SPI 300 stands in line 3 already"),
        (7, "10.1.0.1 with SPI 300 stands in line 6 already"),
        (8, "c@example.net with SPI 300 stands in line 4 already"),
        // Its second SPI is well, its second address is not.
        (11, "home_address: b@example.net has the home address 10.1.0.1 already"),
    ];
    let expected = expected.map(|(line, message)| (line, message.to_owned()));
    assert_eq!((errors, count), (expected.to_vec(), 5));
}

#[test]
fn a_nai_of_the_config_file_is_not_taken_twice() {
    let room = Room::new();
    let path = room.file(
        "subscribers.csv",
        "@realm example.net spi=300 key_file=realm.key\n-,a@example.net\n-,b@example.net\n",
    );
    let mut security = SecurityAssociations::default();
    let association = MobilitySecurityAssociation {
        spi: Spi(300),
        algorithm: Algorithm::HmacMd5,
        key: Key::new(vec![7; 16]),
        replay: ReplayProtection::Nonces,
    };
    security.insert_nai(b"b@example.net", None, association, Lifetime::INFINITE).unwrap();
    let Err(SubscriberError::Lines(errors, 1)) = read(&path, &room.0, &[], &mut security) else {
        panic!("it was taken");
    };
    assert_eq!(
        (errors[0].line, errors[0].message.as_str()),
        (3, "b@example.net has an association with SPI 300 in the config file too")
    );
}

#[test]
fn every_wrong_line_is_named_with_its_field() {
    let text = format!(
        "10.1.0.256,256,hmac-md5,{KEY}\n11.0.0.1,256,hmac-md5,{KEY}\n10.1.0.1,255,hmac-md5,{KEY}\n\
         10.1.0.1,x,hmac-md5,{KEY}\n10.1.0.1,256,md5,{KEY}\n10.1.0.1,256,hmac-md5,0001\n\
         10.1.0.1,256,hmac-md5,{KEY}0\n10.1.0.1,256,hmac-md5,{KEY},later\n\
         10.1.0.1,256,hmac-md5,{KEY},nonces,more\n10.1.0.1,a@example.net\n@realm\n\
         @realm example.net spi=256\n@realm example.net spi=256 key_file=none.key\n\
         @realm example.net spi=256 key_file=realm.key colour=red\n\
         @realm example.net spi=256 key_file=realm.key\n10.1.0.1,a@example.com\n10.1.0.2,b@example.net\n"
    );
    let (errors, count) = Room::new().errors(&text);
    assert_eq!(count, 15);
    let begins = [
        "home_address: \"10.1.0.256\" is no",
        "home_address: 11.0.0.1 is in no network",
        "spi: 255 is reserved",
        "spi: \"x\" is no number",
        "algorithm: \"md5\" is not known",
        "key_hex: 4 hex digits",
        "key_hex: 33 hex digits",
        "replay: \"later\"",
        "there are more than five fields",
        "nai: no realm is described",
        "the realm has no name",
        "realm: the parameter key_file is missing",
        "there is no key file",
        "realm: there is no parameter \"colour\"",
    ];
    for ((line, message), (expected, number)) in errors.iter().zip(begins.iter().zip(1..)) {
        assert!(message.starts_with(expected) && *line == number, "{line}: {message}");
    }
    assert!(errors[14].1.contains("no node of the realm example.net"), "{:?}", errors[14]);
}

#[test]
fn a_node_that_is_there_twice_is_named_with_both_lines() {
    let text = format!(
        "10.1.0.1,256,hmac-md5,{KEY}\n# \n10.1.0.2,256,hmac-md5,{KEY}\n10.1.0.1,257,hmac-md5,{KEY}\n\
         10.1.0.1,256,hmac-md5,{KEY}\n"
    );
    let (errors, count) = Room::new().errors(&text);
    assert_eq!(count, 1);
    assert_eq!(errors, [(5, "10.1.0.1 with SPI 256 stands in line 1 already".to_owned())]);
}

#[test]
fn a_million_errors_are_twenty_and_a_number() {
    let (errors, count) = Room::new().errors(&"nonsense\n".repeat(5_000));
    assert_eq!((errors.len(), count), (MAX_ERRORS, 5_000));
    let (errors, _) = Room::new().errors(&"x".repeat(1 << 20));
    assert_eq!(errors[0].1, "the line is longer than 1024 bytes");
}

#[test]
fn a_file_that_others_may_read_is_refused() {
    let room = Room::new();
    let path = room.file("open.csv", "");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let mut security = SecurityAssociations::default();
    let Err(SubscriberError::File(error)) = read(&path, &room.0, &[], &mut security) else {
        panic!("an open file was read");
    };
    assert!(error.message.contains("has mode 0640") && error.help.contains("chmod 600"));
}
