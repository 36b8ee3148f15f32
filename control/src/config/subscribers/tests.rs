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
