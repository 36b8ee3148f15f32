//! Mobility security associations and authenticators (RFC 5944 §3.5.1, §5.1;
//! RFC 2002 §3.5.1; RFC 2104).
//!
//! The algorithm is a property of the association that the SPI names, never
//! guessed from a message.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A security parameter index: names an association between two nodes. 0 to 255
/// are reserved (RFC 5944 §1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(pub u32);

impl Spi {
    /// Whether an association may be configured under it.
    pub const fn is_usable(self) -> bool {
        self.0 > 255
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How an authenticator is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC-MD5, 16 bytes: the default of RFC 5944 §3.5.1.
    #[default]
    HmacMd5,
    /// MD5 over key, data and key again, 16 bytes, the key not padded: the
    /// default of RFC 2002 §3.5.1.
    KeyedMd5,
    /// HMAC-SHA1, 20 bytes.
    HmacSha1,
    /// HMAC-SHA256, 32 bytes.
    HmacSha256,
}

impl Algorithm {
    /// Bytes of the authenticator.
    pub const fn authenticator_len(self) -> usize {
        match self {
            Algorithm::HmacMd5 | Algorithm::KeyedMd5 => 16,
            Algorithm::HmacSha1 => 20,
            Algorithm::HmacSha256 => 32,
        }
    }

    /// The name for people and configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::HmacMd5 => "hmac-md5",
            Algorithm::KeyedMd5 => "keyed-md5",
            Algorithm::HmacSha1 => "hmac-sha1",
            Algorithm::HmacSha256 => "hmac-sha256",
        }
    }
}

/// How replays are told from fresh requests (RFC 5944 §5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayProtection {
    /// Timestamps: the clocks may differ by this much.
    Timestamps {
        /// Seven seconds by default, more than three (RFC 5944 §5.7.1).
        tolerance: Duration,
    },
    /// Nonces (RFC 5944 §5.7.2).
    Nonces,
}

impl Default for ReplayProtection {
    fn default() -> Self {
        ReplayProtection::Timestamps { tolerance: Duration::from_secs(7) }
    }
}

/// A shared secret. It is wiped when dropped and never printed.
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// A key of these bytes; any binary string (RFC 5944 §5.1).
    pub fn new(bytes: Vec<u8>) -> Self {
        Key(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// An authenticator: 16, 20 or 32 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Authenticator {
    bytes: [u8; 32],
    len: usize,
}

impl Authenticator {
    fn from_slice(from: &[u8]) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(from) {
            *to = *from;
        }
        Authenticator { bytes, len: from.len().min(32) }
    }

    /// The bytes that go into the extension.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// What two nodes share under an SPI.
#[derive(Clone, Debug)]
pub struct MobilitySecurityAssociation {
    /// Its name in messages.
    pub spi: Spi,
    /// How authenticators are computed.
    pub algorithm: Algorithm,
    /// The secret.
    pub key: Key,
    /// How replays are found.
    pub replay: ReplayProtection,
}

impl MobilitySecurityAssociation {
    /// The authenticator over `covered`: the message from its type to the SPI of
    /// the authentication extension (RFC 5944 §3.5.1).
    pub fn authenticator(&self, covered: &[u8]) -> Authenticator {
        let key = self.key.0.as_slice();
        match self.algorithm {
            Algorithm::HmacMd5 => hmac::<Hmac<Md5>>(key, covered),
            Algorithm::HmacSha1 => hmac::<Hmac<Sha1>>(key, covered),
            Algorithm::HmacSha256 => hmac::<Hmac<Sha256>>(key, covered),
            Algorithm::KeyedMd5 => {
                let mut md5 = Md5::new();
                md5.update(key);
                md5.update(covered);
                md5.update(key);
                Authenticator::from_slice(&md5.finalize())
            }
        }
    }

    /// Whether `authenticator` is right for `covered`, in a time that does not
    /// depend on where they differ.
    pub fn verify(&self, covered: &[u8], authenticator: &[u8]) -> bool {
        self.authenticator(covered).as_bytes().ct_eq(authenticator).into()
    }
}

fn hmac<M: Mac + KeyInit>(key: &[u8], covered: &[u8]) -> Authenticator {
    // HMAC takes a key of any length (RFC 2104 §2), so there is no error to meet.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else {
        return Authenticator { bytes: [0; 32], len: 0 };
    };
    mac.update(covered);
    Authenticator::from_slice(&mac.finalize().into_bytes())
}

/// The associations of one agent or node, by peer and SPI.
#[derive(Clone, Debug, Default)]
pub struct SecurityAssociations {
    mobile_nodes: BTreeMap<(Ipv4Addr, Spi), Arc<MobilitySecurityAssociation>>,
    agents: BTreeMap<(Ipv4Addr, Spi), Arc<MobilitySecurityAssociation>>,
}

impl SecurityAssociations {
    /// Adds or replaces an association with the mobile node of this home address.
    pub fn insert_mobile_node(
        &mut self,
        home_address: Ipv4Addr,
        association: MobilitySecurityAssociation,
    ) {
        self.mobile_nodes.insert((home_address, association.spi), Arc::new(association));
    }

    /// Adds or replaces an association with the agent of this address.
    pub fn insert_agent(&mut self, address: Ipv4Addr, association: MobilitySecurityAssociation) {
        self.agents.insert((address, association.spi), Arc::new(association));
    }

    /// The association with a mobile node under an SPI.
    pub fn mobile_node(
        &self,
        home_address: Ipv4Addr,
        spi: Spi,
    ) -> Option<&Arc<MobilitySecurityAssociation>> {
        self.mobile_nodes.get(&(home_address, spi))
    }

    /// The association with an agent under an SPI.
    pub fn agent(&self, address: Ipv4Addr, spi: Spi) -> Option<&Arc<MobilitySecurityAssociation>> {
        self.agents.get(&(address, spi))
    }

    /// The association to send to a mobile node with: that of the lowest SPI.
    pub fn first_mobile_node(
        &self,
        home_address: Ipv4Addr,
    ) -> Option<&Arc<MobilitySecurityAssociation>> {
        first(&self.mobile_nodes, home_address)
    }

    /// The association to send to an agent with: that of the lowest SPI.
    pub fn first_agent(&self, address: Ipv4Addr) -> Option<&Arc<MobilitySecurityAssociation>> {
        first(&self.agents, address)
    }

    /// Every association with a mobile node, ordered by home address and SPI.
    pub fn mobile_nodes(&self) -> impl Iterator<Item = (Ipv4Addr, &MobilitySecurityAssociation)> {
        self.mobile_nodes.iter().map(|((address, _), association)| (*address, &**association))
    }

    /// Every association with an agent, ordered by address and SPI.
    pub fn agents(&self) -> impl Iterator<Item = (Ipv4Addr, &MobilitySecurityAssociation)> {
        self.agents.iter().map(|((address, _), association)| (*address, &**association))
    }
}

type Associations = BTreeMap<(Ipv4Addr, Spi), Arc<MobilitySecurityAssociation>>;

fn first(
    associations: &Associations,
    address: Ipv4Addr,
) -> Option<&Arc<MobilitySecurityAssociation>> {
    let range = (address, Spi(0))..=(address, Spi(u32::MAX));
    associations.range(range).next().map(|(_, association)| association)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    fn association(algorithm: Algorithm, key: &[u8]) -> MobilitySecurityAssociation {
        MobilitySecurityAssociation {
            spi: Spi(256),
            algorithm,
            key: Key::new(key.to_vec()),
            replay: ReplayProtection::default(),
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn rfc_2202_known_answers_of_hmac_md5_and_sha1() {
        let cases: [(Algorithm, Vec<u8>, Vec<u8>, &str); 8] = [
            (
                Algorithm::HmacMd5,
                vec![0x0b; 16],
                b"Hi There".to_vec(),
                "9294727a3638bb1c13f48ef8158bfc9d",
            ),
            (
                Algorithm::HmacMd5,
                b"Jefe".to_vec(),
                b"what do ya want for nothing?".to_vec(),
                "750c783e6ab0b503eaa86e310a5db738",
            ),
            (
                Algorithm::HmacMd5,
                vec![0xaa; 16],
                vec![0xdd; 50],
                "56be34521d144c88dbb8c733f0e8b3f6",
            ),
            (
                Algorithm::HmacMd5,
                vec![0xaa; 80],
                b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
                "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd",
            ),
            (
                Algorithm::HmacSha1,
                vec![0x0b; 20],
                b"Hi There".to_vec(),
                "b617318655057264e28bc0b6fb378c8ef146be00",
            ),
            (
                Algorithm::HmacSha1,
                b"Jefe".to_vec(),
                b"what do ya want for nothing?".to_vec(),
                "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
            ),
            (
                Algorithm::HmacSha1,
                vec![0xaa; 20],
                vec![0xdd; 50],
                "125d7342b9ac11cd91a39af48aa17b4f63f175d3",
            ),
            (
                Algorithm::HmacSha1,
                vec![0xaa; 80],
                b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
                "aa4ae5e15272d00e95705637ce8a3b55ed402112",
            ),
        ];
        for (algorithm, key, data, expected) in cases {
            assert_eq!(
                association(algorithm, &key).authenticator(&data).as_bytes(),
                hex(expected),
                "{algorithm:?}"
            );
        }
    }

    #[test]
    fn rfc_4231_known_answers_of_hmac_sha256() {
        let cases: [(Vec<u8>, Vec<u8>, &str); 4] = [
            (
                vec![0x0b; 20],
                b"Hi There".to_vec(),
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?".to_vec(),
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 20],
                vec![0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, data, expected) in cases {
            assert_eq!(
                association(Algorithm::HmacSha256, &key).authenticator(&data).as_bytes(),
                hex(expected)
            );
        }
    }

    /// MD5("k" "data" "k") as the md5sum program computes it: the key stands in
    /// front and behind, with no padding between.
    #[test]
    fn keyed_md5_is_prefix_and_suffix_without_padding() {
        let ours = association(Algorithm::KeyedMd5, b"secret").authenticator(b"message");
        let plain = Md5::digest(b"secretmessagesecret");
        assert_eq!(ours.as_bytes(), &plain[..]);
        assert_eq!(ours.as_bytes(), hex(KEYED_MD5));
    }

    const KEYED_MD5: &str = "e0927334e12b1b4a486448f1b46e2aeb";

    #[test]
    fn one_wrong_bit_or_a_shorter_authenticator_is_refused() {
        for algorithm in
            [Algorithm::HmacMd5, Algorithm::KeyedMd5, Algorithm::HmacSha1, Algorithm::HmacSha256]
        {
            let association = association(algorithm, b"key");
            let mut right = association.authenticator(b"covered").as_bytes().to_vec();
            assert_eq!(right.len(), algorithm.authenticator_len());
            assert!(association.verify(b"covered", &right));
            assert!(!association.verify(b"covered.", &right));
            assert!(!association.verify(b"covered", &right[1..]));
            assert!(!association.verify(b"covered", &[]));
            right[0] ^= 1;
            assert!(!association.verify(b"covered", &right));
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        assert!(!format!("{:?}", association(Algorithm::HmacMd5, b"hunter2")).contains("hunter2"));
    }
}
