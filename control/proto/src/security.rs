//! Mobility security associations and authenticators (RFC 5944 §3.5.1, §5.1;
//! RFC 2002 §3.5.1; RFC 2104).
//!
//! The algorithm is a property of the association that the SPI names, never
//! guessed from a message.
//!
//! HMAC-MD5 begins with a block that depends on the key alone, inside and outside.
//! An association that is kept has done these two blocks: what is left of an
//! authenticator is half the work, and the key itself need not be kept.

mod associations;
pub(crate) mod lanes;
pub mod nais;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

pub use self::associations::SecurityAssociations;
use self::lanes::ReadyKey;
pub use self::nais::Subscriber;
use hmac::{Hmac, KeyInit, Mac};
use md5::block_api::compress;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A security parameter index: names an association between two nodes. 0 to 255
/// are reserved (RFC 5944 §1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct Key(Form);

#[derive(Clone)]
enum Form {
    /// As it was given.
    Plain(Arc<Zeroizing<Vec<u8>>>),
    /// What HMAC-MD5 makes of it before it sees a message.
    HmacMd5(HmacMd5Key),
}

impl Key {
    /// A key of these bytes; any binary string (RFC 5944 §5.1).
    pub fn new(bytes: Vec<u8>) -> Self {
        Key(Form::Plain(Arc::new(Zeroizing::new(bytes))))
    }

    /// The same key, made ready for `algorithm`: it is good for no other then.
    fn ready_for(&self, algorithm: Algorithm) -> Self {
        match (&self.0, algorithm) {
            (Form::Plain(bytes), Algorithm::HmacMd5) => Key(Form::HmacMd5(HmacMd5Key::new(bytes))),
            _ => self.clone(),
        }
    }
}

/// No key at all.
impl Default for Key {
    fn default() -> Self {
        Key::new(Vec::new())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// Bytes of a block of MD5.
const MD5_BLOCK: usize = 64;
/// The state that MD5 begins with (RFC 1321 §3.3).
const MD5_START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The states of MD5 behind the inner and the outer block of a key (RFC 2104 §4
/// says how, and that they are to be kept as secret as the key).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct HmacMd5Key {
    inner: [u32; 4],
    outer: [u32; 4],
}

impl HmacMd5Key {
    fn new(key: &[u8]) -> Self {
        let mut block = Zeroizing::new([0; MD5_BLOCK]);
        // RFC 2104 §2: a key longer than a block is hashed first.
        if key.len() > MD5_BLOCK {
            let digest = Md5::digest(key);
            block.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
        } else {
            block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        }
        let state = |pad: u8| {
            let padded = Zeroizing::new(block.map(|byte| byte ^ pad));
            let mut state = MD5_START;
            compress(&mut state, core::slice::from_ref(&*padded));
            state
        };
        HmacMd5Key { inner: state(0x36), outer: state(0x5c) }
    }

    fn authenticator(&self, covered: &[u8]) -> [u8; 16] {
        let inner = md5_behind_a_block(self.inner, covered);
        md5_behind_a_block(self.outer, &inner)
    }
}

/// The MD5 of one block, which led to `state`, with `data` behind it.
fn md5_behind_a_block(mut state: [u32; 4], data: &[u8]) -> [u8; 16] {
    let (blocks, rest) = data.as_chunks::<MD5_BLOCK>();
    if !blocks.is_empty() {
        compress(&mut state, blocks);
    }
    // RFC 1321 §3.1, §3.2: a one bit, zeros, and the length in bits.
    let mut tail = [0; 2 * MD5_BLOCK];
    // A block has room for them always.
    if let Some((to, behind)) = tail.split_at_mut_checked(rest.len()) {
        to.copy_from_slice(rest);
        behind.iter_mut().take(1).for_each(|one| *one = 0x80);
    }
    let bits = (MD5_BLOCK as u64 + data.len() as u64).wrapping_mul(8).to_le_bytes();
    let (tail, _) = tail.as_chunks_mut::<MD5_BLOCK>();
    let blocks = if rest.len() + 1 + bits.len() > MD5_BLOCK { 2 } else { 1 };
    let tail = tail.get_mut(..blocks).unwrap_or_default();
    if let Some(length) = tail.last_mut().and_then(|block| block.last_chunk_mut::<8>()) {
        *length = bits;
    }
    compress(&mut state, tail);
    let mut digest = [0; 16];
    for (to, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *to = word.to_le_bytes();
    }
    digest
}

/// An authenticator: 16, 20 or 32 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Authenticator {
    bytes: [u8; 32],
    len: usize,
}

impl Authenticator {
    /// So many zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Authenticator { bytes: [0; 32], len: len.min(32) }
    }

    /// One that was computed before; more than 32 bytes are cut.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Authenticator::from_slice(bytes)
    }

    fn from_slice(from: &[u8]) -> Self {
        let mut bytes = [0; 32];
        let len = from.len().min(bytes.len());
        if let (Some(to), Some(from)) = (bytes.get_mut(..len), from.get(..len)) {
            to.copy_from_slice(from);
        }
        Authenticator { bytes, len }
    }

    /// Whether it is what a message says, in a time that does not depend on where they
    /// differ.
    pub(crate) fn is(&self, said: &[u8]) -> bool {
        // Whole words at a time: what they say, no time depends on.
        let (words, rest) = self.as_bytes().as_chunks::<8>();
        let (said_words, said_rest) = said.as_chunks::<8>();
        let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
        let differ = words.iter().zip(said_words).fold(0, |all, (a, b)| all | (word(a) ^ word(b)));
        self.len > 0
            && self.len == said.len()
            && bool::from(differ.ct_eq(&0) & rest.ct_eq(said_rest))
    }

    /// The bytes that go into the extension.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// What two nodes share under an SPI.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MobilitySecurityAssociation {
    /// Its name in messages.
    pub spi: Spi,
    /// How authenticators are computed.
    pub algorithm: Algorithm,
    /// The secret; never kept with the rest as text.
    #[serde(skip)]
    pub key: Key,
    /// How replays are found.
    pub replay: ReplayProtection,
}

impl MobilitySecurityAssociation {
    /// The authenticator over `covered`: the message from its type to the SPI of
    /// the authentication extension (RFC 5944 §3.5.1).
    pub fn authenticator(&self, covered: &[u8]) -> Authenticator {
        let key = match (&self.key.0, self.algorithm) {
            (Form::HmacMd5(key), Algorithm::HmacMd5) => {
                return Authenticator::from_slice(&key.authenticator(covered));
            }
            // Nothing is right under a key that is ready for another algorithm.
            (Form::HmacMd5(_), _) => return Authenticator { bytes: [0; 32], len: 0 },
            (Form::Plain(key), _) => key.as_slice(),
        };
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
        self.authenticator(covered).is(authenticator)
    }

    /// Its key, if that is ready for HMAC-MD5.
    pub(crate) fn ready_key(&self) -> Option<ReadyKey> {
        match (&self.key.0, self.algorithm) {
            (Form::HmacMd5(key), Algorithm::HmacMd5) => Some(ReadyKey(key.clone())),
            _ => None,
        }
    }

    /// Bytes of an authentication extension under it (RFC 5944 §3.5.2).
    pub const fn extension_len(&self) -> usize {
        6 + self.algorithm.authenticator_len()
    }

    /// The same association, quicker to use; its algorithm cannot be changed then.
    #[must_use]
    pub fn ready(mut self) -> Self {
        self.key = self.key.ready_for(self.algorithm);
        self
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

    // Shows 5944-3.5.1-d, 5944-5.1-b, 5944-5.1-c.
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
            let association = association(algorithm, &key);
            assert_eq!(association.authenticator(&data).as_bytes(), hex(expected), "{algorithm:?}");
            let ready = association.ready();
            assert_eq!(ready.authenticator(&data).as_bytes(), hex(expected), "{algorithm:?}");
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
    // Shows 5944-5.1-d.
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

    /// Around the ends of a block, where the padding takes another one.
    // Shows 5944-5.1-c.
    #[test]
    fn a_ready_key_gives_the_same_authenticators_for_every_length() {
        let data: Vec<u8> = (0..=255).cycle().take(300).collect();
        for key_len in [0, 1, 16, 63, 64, 65, 200] {
            let association = association(Algorithm::HmacMd5, &data[..key_len]);
            let ready = association.clone().ready();
            for len in 0..data.len() {
                let (plain, quick) =
                    (association.authenticator(&data[..len]), ready.authenticator(&data[..len]));
                assert_eq!(plain.as_bytes(), quick.as_bytes(), "key {key_len}, data {len}");
            }
        }
    }

    #[test]
    fn a_key_that_is_ready_for_one_algorithm_is_right_for_no_other() {
        let mut association = association(Algorithm::HmacMd5, b"key").ready();
        association.algorithm = Algorithm::KeyedMd5;
        assert!(!association.verify(b"covered", &[]));
        assert!(!association.verify(b"covered", &[0; 16]));
    }

    #[test]
    fn an_authenticator_that_differs_in_a_bit_or_in_length_is_wrong() {
        use Algorithm::{HmacMd5, HmacSha1, HmacSha256, KeyedMd5};
        for algorithm in [HmacMd5, KeyedMd5, HmacSha1, HmacSha256] {
            let association = association(algorithm, b"key").ready();
            let right = association.authenticator(b"covered");
            assert!(association.verify(b"covered", right.as_bytes()));
            for bit in 0..right.as_bytes().len() * 8 {
                let mut wrong = right.as_bytes().to_vec();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!association.verify(b"covered", &wrong), "{algorithm:?}, bit {bit}");
            }
            for len in 0..right.as_bytes().len() {
                assert!(!association.verify(b"covered", &right.as_bytes()[..len]));
            }
            let longer = [right.as_bytes(), &[0]].concat();
            assert!(!association.verify(b"covered", &longer));
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        let ready = association(Algorithm::HmacMd5, b"hunter2").ready();
        assert!(format!("{ready:?}").contains("Key(hidden)"));
        assert!(!format!("{:?}", association(Algorithm::HmacMd5, b"hunter2")).contains("hunter2"));
    }
}
