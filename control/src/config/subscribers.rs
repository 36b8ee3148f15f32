//! The subscriber file: the nodes of a home agent, one on a line, a million of them
//! if need be.
//!
//! A line is a home address, an SPI, an algorithm, a key in hex, and how replays are
//! found; or, below a line that describes a realm, a home address and a network access
//! identifier (NAI, RFC 4282) of that realm. What a realm's nodes share (SPI,
//! algorithm, replay protection, the longest lifetime) stands there once, and their
//! keys come of one realm key: HMAC-SHA256 under the realm key over the NAI as it is
//! written, the realm in lower case, cut to the bytes of the algorithm's
//! authenticator. Whoever gets hold of a node's key learns nothing of another's.
//!
//! A node whose line has `-` for its home address has none of its own: it is known by its
//! NAI alone, and its sessions get their addresses from pools. In a realm with
//! `sessions=yes` the nodes with a home address are known by their NAIs too; the address
//! is then set aside for the node itself.
//!
//! The file is read as a stream, and nothing of it is kept but the associations.
//!
//! **Not done:** keys of several generations for one realm; a node under two SPIs of
//! one realm takes two realm lines. NAIs that are no text.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use homeport_proto::Lifetime;
use homeport_proto::config::HomeNetwork;
use homeport_proto::message::session::MAX_NAI;
use homeport_proto::security::nais::MAX_NAIS;
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, SecurityAssociations, Spi,
    Subscriber,
};
use zeroize::{Zeroize, Zeroizing};

use super::key_file::{self, KeyFileError, MIN_KEY_LEN};

/// Errors that are shown; the others are counted.
pub const MAX_ERRORS: usize = 20;

/// The longest line, in bytes.
const MAX_LINE: u64 = 1_024;
/// The longest key, in bytes: longer ones add nothing (RFC 2104 §3).
const MAX_KEY: usize = 64;
/// The most sets of parameters that nodes share.
const MAX_REALMS: usize = 4_096;
/// Associations that room is made for beforehand, however long the file is.
const MAX_RESERVED: usize = 1 << 24;

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The line, from 1.
    pub line: u32,
    /// Which part of the line, and what is wrong.
    pub message: String,
    /// What to write.
    pub help: String,
}

/// Why a subscriber file was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriberError {
    /// It could not be read at all.
    File(KeyFileError),
    /// Lines are wrong: the first [`MAX_ERRORS`], and how many there are.
    Lines(Vec<LineError>, usize),
}

/// What the nodes of a realm share.
struct Realm {
    name: String,
    spi: Spi,
    algorithm: Algorithm,
    replay: ReplayProtection,
    max_lifetime: Lifetime,
    /// Whether nodes with a home address are known by NAI too.
    sessions: bool,
    key: MobilitySecurityAssociation,
}

/// An error in one field.
struct Wrong(String, String);

fn wrong<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(message.into(), help.into()))
}

struct Reading<'a> {
    networks: &'a [HomeNetwork],
    directory: &'a Path,
    /// What the config file has already.
    before: SecurityAssociations,
    security: &'a mut SecurityAssociations,
    realm: Option<Realm>,
    realms: usize,
    nodes: usize,
    /// Home address, or what stands in for it, SPI and line of each node: to find who is
    /// there twice.
    seen: Vec<(Ipv4Addr, u32, u32)>,
    errors: Vec<LineError>,
    count: usize,
}

/// Reads the nodes of a home agent of `networks` into `security`. Names of key files
/// are relative to `directory`. Gives how many nodes it read.
///
/// # Errors
/// [`SubscriberError`]; what is in `security` then is of no use.
pub fn read(
    path: &Path,
    directory: &Path,
    networks: &[HomeNetwork],
    security: &mut SecurityAssociations,
) -> Result<usize, SubscriberError> {
    let make = format!("make one: (umask 077; : > {})", path.display());
    let file =
        key_file::open_private(path, "subscriber file", &make).map_err(SubscriberError::File)?;
    let before = security.clone();
    // A node takes 64 bytes or less of the file.
    let len = file.metadata().map_or(0, |metadata| metadata.len());
    security.reserve(usize::try_from(len / 64).unwrap_or(0).min(MAX_RESERVED));
    let mut reading = Reading {
        networks,
        directory,
        before,
        security,
        realm: None,
        realms: 0,
        nodes: 0,
        seen: Vec::new(),
        errors: Vec::new(),
        count: 0,
    };
    // A line holds a key, so its buffer is wiped.
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Zeroizing::new(Vec::new());
    for number in 1u32.. {
        line.zeroize();
        let read = std::io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line);
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                let message =
                    format!("the subscriber file {} cannot be read: {error}", path.display());
                return Err(SubscriberError::File(KeyFileError { message, help: make }));
            }
        }
        if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            let message = format!("the line is longer than {MAX_LINE} bytes");
            reading.note(number, Wrong(message, "write one node on a line".into()));
            // What follows would be read as if it were a line.
            break;
        }
        let text = match std::str::from_utf8(&line) {
            Ok(text) => text.trim(),
            Err(_) => {
                let message = "the line is no UTF-8 text".to_owned();
                reading.note(number, Wrong(message, "write plain text".into()));
                continue;
            }
        };
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let result = match text.strip_prefix('@') {
            Some(rest) => reading.realm(rest),
            None => reading.node(text, number),
        };
        if let Err(wrong) = result {
            reading.note(number, wrong);
        }
    }
    reading.find_twice();
    let Reading { mut errors, count, nodes, .. } = reading;
    if count == 0 {
        return Ok(nodes);
    }
    errors.sort_by_key(|error| error.line);
    Err(SubscriberError::Lines(errors, count))
}

impl Reading<'_> {
    fn note(&mut self, line: u32, Wrong(message, help): Wrong) {
        self.count += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(LineError { line, message, help });
        }
    }

    /// `realm NAME key=value …`
    fn realm(&mut self, text: &str) -> Result<(), Wrong> {
        // Nodes below a realm that is wrong are not to be read as another's.
        self.realm = None;
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some("realm") {
            return wrong(
                "a line that begins with @ describes a realm",
                "write @realm example.net spi=256 key_file=keys/realm.key",
            );
        }
        self.realms += 1;
        if self.realms > MAX_REALMS {
            return wrong(
                format!("there are more than {MAX_REALMS} realms"),
                "give them home agents of their own",
            );
        }
        let name = words.next().unwrap_or_default();
        if name.is_empty() || name.contains(['=', '@', ',']) {
            return wrong(
                "the realm has no name",
                "write @realm example.net and its parameters behind",
            );
        }
        let (mut spi, mut algorithm, mut key) = (None, Algorithm::default(), None);
        let (mut nonces, mut tolerance, mut max_lifetime) = (false, None, Lifetime::INFINITE);
        let mut sessions = false;
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "spi" => spi = Some(parse_spi(value)?),
                "algorithm" => algorithm = parse_algorithm(value)?,
                "key_file" => {
                    let read = key_file::read(&self.directory.join(value));
                    key = Some(read.map_err(|error| Wrong(error.message, error.help))?);
                }
                "replay" => nonces = parse_replay(value)?,
                "sessions" => sessions = parse_sessions(value)?,
                "tolerance" => {
                    let seconds = parse_seconds("tolerance", value, 3)?;
                    tolerance = Some(Duration::from_secs(u64::from(seconds)));
                }
                "max_lifetime" => {
                    max_lifetime = Lifetime(parse_seconds("max_lifetime", value, 1)?);
                }
                other => {
                    return wrong(
                        format!("realm: there is no parameter \"{}\"", shown(other)),
                        "write spi, algorithm, key_file, replay, tolerance, max_lifetime or sessions",
                    );
                }
            }
        }
        let Some(spi) = spi else {
            return wrong("realm: the parameter spi is missing", "write spi=256 or more");
        };
        let Some(key) = key else {
            return wrong(
                "realm: the parameter key_file is missing",
                "write key_file= and the file with the realm key, relative to the config file",
            );
        };
        let replay = match (nonces, tolerance) {
            (true, Some(_)) => {
                return wrong(
                    "realm: nonces compare no clocks, so there is no tolerance",
                    "leave tolerance away, or write replay=timestamps",
                );
            }
            (true, None) => ReplayProtection::Nonces,
            (false, Some(tolerance)) => ReplayProtection::Timestamps { tolerance },
            (false, None) => ReplayProtection::default(),
        };
        let key = MobilitySecurityAssociation {
            spi,
            algorithm: Algorithm::HmacSha256,
            key: key.to_key(),
            replay,
        };
        let name = name.to_ascii_lowercase();
        self.realm = Some(Realm { name, spi, algorithm, replay, max_lifetime, sessions, key });
        Ok(())
    }

    fn node(&mut self, text: &str, line: u32) -> Result<(), Wrong> {
        let mut fields = text.split(',').map(str::trim);
        let home_address = match fields.next().unwrap_or_default() {
            "-" => None,
            address => Some(self.home_address(address)?),
        };
        let second = fields.next().unwrap_or_default();
        if second.contains('@') {
            if fields.next().is_some() {
                return wrong(
                    "nai: there are fields behind it",
                    "write home_address,user@realm; the rest stands in the line @realm",
                );
            }
            return self.of_realm(second, home_address, line);
        }
        let Some(home_address) = home_address else {
            return wrong(
                "home_address: a node that has none is known by its NAI, and this one has none",
                "write -,user@realm below a line @realm, or a home address",
            );
        };
        let association = explicit(second, &mut fields)?;
        self.by_address(home_address, association, Lifetime::INFINITE, line)?;
        self.nodes += 1;
        Ok(())
    }

    fn home_address(&self, text: &str) -> Result<Ipv4Addr, Wrong> {
        let Ok(home_address) = text.parse::<Ipv4Addr>() else {
            return wrong(
                format!("home_address: \"{}\" is no IPv4 address", shown(text)),
                "write one as in 10.1.0.10, or - for a node that is known by its NAI alone",
            );
        };
        if !self.networks.is_empty()
            && !self.networks.iter().any(|network| network.prefix.contains(home_address))
        {
            let served = self.networks.iter().take(4).map(|network| network.prefix.to_string());
            return wrong(
                format!("home_address: {home_address} is in no network of this home agent"),
                format!(
                    "write an address of {}, or add its network",
                    served.collect::<Vec<_>>().join(", ")
                ),
            );
        }
        Ok(home_address)
    }

    /// Adds a node that is known by its home address.
    fn by_address(
        &mut self,
        home_address: Ipv4Addr,
        association: MobilitySecurityAssociation,
        max_lifetime: Lifetime,
        line: u32,
    ) -> Result<(), Wrong> {
        let spi = association.spi;
        if self.before.mobile_node(home_address, spi).is_some() {
            return there_too(&home_address.to_string(), spi);
        }
        self.seen.push((home_address, spi.0, line));
        self.security.insert_limited_mobile_node(home_address, association, max_lifetime);
        Ok(())
    }

    /// Adds a node that is known by its NAI.
    fn by_nai(
        &mut self,
        nai: &str,
        home_address: Option<Ipv4Addr>,
        association: MobilitySecurityAssociation,
        max_lifetime: Lifetime,
        line: u32,
    ) -> Result<(), Wrong> {
        let spi = association.spi;
        let before = self.before.subscriber(nai.as_bytes());
        if before.is_some_and(|one| self.before.mobile_node(one.stand_in(), spi).is_some()) {
            return there_too(nai, spi);
        }
        let known = self.security.subscriber(nai.as_bytes());
        let own = known.and_then(|known| self.security.own_home_address(known));
        if let (Some(own), Some(home_address)) = (own, home_address)
            && own != home_address
        {
            return wrong(
                format!("home_address: {nai} has the home address {own} already"),
                "write the same on each of its lines: a node itself has one home address",
            );
        }
        let added =
            self.security.insert_nai(nai.as_bytes(), home_address, association, max_lifetime);
        let Some(subscriber) = added else {
            return wrong(
                format!("nai: there are more than {MAX_NAIS} NAIs"),
                "give them to several home agents",
            );
        };
        self.seen.push((subscriber.stand_in(), spi.0, line));
        Ok(())
    }

    /// A node of the realm above.
    fn of_realm(
        &mut self,
        nai: &str,
        home_address: Option<Ipv4Addr>,
        line: u32,
    ) -> Result<(), Wrong> {
        let Some(realm) = &self.realm else {
            return wrong(
                format!("nai: no realm is described above \"{}\"", shown(nai)),
                "write a correct line @realm above its nodes",
            );
        };
        let (user, of) = nai.rsplit_once('@').unwrap_or((nai, ""));
        if user.is_empty() || nai.len() > MAX_NAI || !of.eq_ignore_ascii_case(&realm.name) {
            return wrong(
                format!("nai: \"{}\" is no node of the realm {}", shown(nai), shown(&realm.name)),
                format!("write user@{}, or the node below its own realm", shown(&realm.name)),
            );
        }
        let nai = format!("{user}@{}", realm.name);
        let derived = realm.key.authenticator(nai.as_bytes());
        let len = realm.algorithm.authenticator_len();
        let key = derived.as_bytes().get(..len).unwrap_or_default().to_vec();
        let Realm { spi, algorithm, replay, max_lifetime, sessions, .. } = *realm;
        let association =
            MobilitySecurityAssociation { spi, algorithm, key: Key::new(key), replay };
        if sessions || home_address.is_none() {
            self.by_nai(&nai, home_address, association.clone(), max_lifetime, line)?;
        }
        if let Some(home_address) = home_address {
            self.by_address(home_address, association, max_lifetime, line)?;
        }
        self.nodes += 1;
        Ok(())
    }

    /// Who is there twice, each with both lines.
    fn find_twice(&mut self) {
        let mut seen = std::mem::take(&mut self.seen);
        seen.sort_unstable();
        let mut told = BTreeSet::new();
        for (first, second) in seen.iter().zip(seen.iter().skip(1)) {
            let ((address, spi, line), (other, other_spi, again)) = (*first, *second);
            // A line that is there twice has its NAI and its address twice.
            if (address, spi) == (other, other_spi) && told.insert(again) {
                let who = match Subscriber::in_place_of(address) {
                    Some(one) => shown(&String::from_utf8_lossy(self.security.nai(one))),
                    None => address.to_string(),
                };
                let message = format!("{who} with SPI {spi} stands in line {line} already");
                self.note(again, Wrong(message, "remove one of the two lines".into()));
            }
        }
        self.seen = seen;
    }
}

fn there_too<T>(who: &str, spi: Spi) -> Result<T, Wrong> {
    wrong(
        format!("{who} has an association with SPI {spi} in the config file too"),
        "remove one of the two",
    )
}

/// A node with a key of its own, behind its home address.
fn explicit<'a>(
    spi: &str,
    fields: &mut impl Iterator<Item = &'a str>,
) -> Result<MobilitySecurityAssociation, Wrong> {
    let spi = parse_spi(spi)?;
    let algorithm = parse_algorithm(fields.next().unwrap_or_default())?;
    let key = parse_key(fields.next().unwrap_or_default())?;
    let replay = match fields.next().filter(|word| !word.is_empty()) {
        Some(word) if parse_replay(word)? => ReplayProtection::Nonces,
        _ => ReplayProtection::default(),
    };
    if fields.next().is_some() {
        return wrong(
            "there are more than five fields",
            "write home_address,spi,algorithm,key_hex,replay",
        );
    }
    Ok(MobilitySecurityAssociation { spi, algorithm, key, replay })
}

fn parse_spi(text: &str) -> Result<Spi, Wrong> {
    match text.parse().map(Spi) {
        Ok(spi) if spi.is_usable() => Ok(spi),
        Ok(spi) => wrong(
            format!("spi: {spi} is reserved (RFC 5944 §1.6)"),
            "write a number of 256 or more, the same as the node has",
        ),
        Err(_) => wrong(
            format!("spi: \"{}\" is no number of 32 bits", shown(text)),
            "write a number of 256 or more, the same as the node has",
        ),
    }
}

fn parse_algorithm(text: &str) -> Result<Algorithm, Wrong> {
    use Algorithm::{HmacMd5, HmacSha1, HmacSha256, KeyedMd5};
    let all = [HmacMd5, KeyedMd5, HmacSha1, HmacSha256];
    match all.into_iter().find(|algorithm| algorithm.name() == text) {
        Some(algorithm) => Ok(algorithm),
        None => wrong(
            format!("algorithm: \"{}\" is not known", shown(text)),
            format!("write {}", all.map(Algorithm::name).join(", ")),
        ),
    }
}

/// Whether it is nonces.
fn parse_replay(text: &str) -> Result<bool, Wrong> {
    match text {
        "timestamps" => Ok(false),
        "nonces" => Ok(true),
        other => wrong(
            format!("replay: \"{}\" is not known", shown(other)),
            "write timestamps or nonces",
        ),
    }
}

fn parse_sessions(text: &str) -> Result<bool, Wrong> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => wrong(
            format!("realm: sessions: \"{}\" is not known", shown(other)),
            "write sessions=yes or sessions=no",
        ),
    }
}

fn parse_seconds(name: &str, text: &str, least: u16) -> Result<u16, Wrong> {
    let seconds = text.strip_suffix('s').and_then(|number| number.parse().ok());
    match seconds.filter(|seconds| (least..=65_534).contains(seconds)) {
        Some(seconds) => Ok(seconds),
        None => wrong(
            format!("realm: {name}: \"{}\" is not {least}s to 65534s", shown(text)),
            format!("write seconds, as in {name}=600s"),
        ),
    }
}

/// A key is never repeated in an error.
fn parse_key(hex: &str) -> Result<Key, Wrong> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len().min(MAX_KEY)));
    for [high, low] in pairs {
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return wrong("key_hex: there are characters that are no hex digits", KEY_HELP);
        };
        bytes.push(high << 4 | low);
    }
    if !rest.is_empty() || !(MIN_KEY_LEN..=MAX_KEY).contains(&bytes.len()) {
        return wrong(format!("key_hex: {} hex digits are no key", hex.len()), KEY_HELP);
    }
    Ok(Key::new(std::mem::take(&mut *bytes)))
}

const KEY_HELP: &str = "write 16 to 64 bytes in hex, as in 000102030405060708090a0b0c0d0e0f";

/// What stands in the file, as much of it as an error may repeat.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests;
