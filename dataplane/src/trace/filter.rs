//! Which packets are traced: words that people write, and the plain form that
//! workers compare packets with.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use homeport_wire::{EthernetHeader, IpProtocol, Ipv4Header, PortId, TenantId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::decap;
use crate::encap::MAX_NESTING;
use crate::launch::PortShared;
use crate::parse::{self, Ipv4Facts};
use crate::verdict::{DropReason, PuntReason, Verdict};

/// The words that there are, for people who wrote another one.
const WORDS: &str = "src=, dst=, proto=, sport=, dport=, port=, tenant=, verdict= and reason=";

/// The names of protocols; any other is written as its number.
pub(super) const PROTOCOLS: [(&str, IpProtocol); 6] = [
    ("icmp", IpProtocol::ICMP),
    ("tcp", IpProtocol::TCP),
    ("udp", IpProtocol::UDP),
    ("ipip", IpProtocol::IP_IN_IP),
    ("gre", IpProtocol::GRE),
    ("minimal", IpProtocol::MINIMAL),
];

/// Which packets are traced. Whatever is set must be so; nothing set matches every
/// packet.
///
/// Addresses, protocol and ports are those of the packet as it came in, or all of
/// them those of a packet in a tunnel inside it.
///
/// ```
/// use homeport_dataplane::trace::Filter;
///
/// let filter = Filter::parse("src=10.0.0.0/8 dst=10.1.0.10 proto=udp dport=434").unwrap();
/// assert_eq!(filter.dport, Some(434));
/// let error = Filter::parse("dst=10.1.0.10 dport=http").unwrap_err();
/// assert_eq!(error.word, "dport=http");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The source's prefix.
    pub src: Option<(Ipv4Addr, u8)>,
    /// The destination's prefix.
    pub dst: Option<(Ipv4Addr, u8)>,
    /// The protocol.
    pub proto: Option<u8>,
    /// The source port of TCP or UDP.
    pub sport: Option<u16>,
    /// The destination port of TCP or UDP.
    pub dport: Option<u16>,
    /// The name of the port that it is counted at: that it came in by.
    pub port: Option<String>,
    /// Whose it is when it comes in.
    pub tenant: Option<TenantId>,
    /// What becomes of it.
    pub verdict: Option<VerdictFilter>,
}

/// Which verdicts are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictFilter {
    /// Any of the kind with this number.
    Kind(Kind),
    /// Dropped for this reason.
    Drop(DropReason),
    /// Punted for this reason.
    Punt(PuntReason),
}

/// The kinds of verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// [`Verdict::Transmit`].
    Transmit,
    /// [`Verdict::Punt`].
    Punt,
    /// [`Verdict::ToKernel`].
    ToKernel,
    /// [`Verdict::Hold`].
    Hold,
    /// [`Verdict::HandOver`].
    HandOver,
    /// [`Verdict::Drop`].
    Drop,
}

impl Kind {
    const ALL: [(&'static str, Kind); 6] = [
        ("transmit", Kind::Transmit),
        ("punt", Kind::Punt),
        ("to-kernel", Kind::ToKernel),
        ("hold", Kind::Hold),
        ("hand-over", Kind::HandOver),
        ("drop", Kind::Drop),
    ];

    /// The kind of a verdict.
    pub const fn of(verdict: Verdict) -> Kind {
        match verdict {
            Verdict::Transmit(_) => Kind::Transmit,
            Verdict::Punt(_) => Kind::Punt,
            Verdict::ToKernel => Kind::ToKernel,
            Verdict::Hold => Kind::Hold,
            Verdict::HandOver(_) => Kind::HandOver,
            Verdict::Drop(_) => Kind::Drop,
        }
    }
}

/// What is wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?}: {wrong}; {allowed}")]
pub struct WordError {
    /// The word.
    pub word: String,
    /// What is wrong with it.
    pub wrong: String,
    /// What is allowed in its place.
    pub allowed: String,
}

/// A word of the form `key=value`.
pub(super) struct Word<'a> {
    word: &'a str,
    pub(super) key: &'a str,
    pub(super) value: &'a str,
}

/// The words of a text; `keys` says which there are.
pub(super) fn words<'a>(
    text: &'a str,
    keys: &'a str,
) -> impl Iterator<Item = Result<Word<'a>, WordError>> {
    let mut seen: Vec<&str> = Vec::new();
    text.split_whitespace().map(move |word| {
        let (key, value) = word.split_once('=').ok_or_else(|| WordError {
            word: word.into(),
            wrong: "it has no =".into(),
            allowed: format!("the words are {keys}"),
        })?;
        let word = Word { word, key, value };
        if seen.contains(&key) {
            return Err(word.error(&format!("{key}= is there twice"), "write it once"));
        }
        seen.push(key);
        Ok(word)
    })
}

impl Word<'_> {
    pub(super) fn error(&self, wrong: &str, allowed: &str) -> WordError {
        WordError { word: self.word.into(), wrong: wrong.into(), allowed: allowed.into() }
    }

    pub(super) fn unknown(&self, keys: &str) -> WordError {
        self.error(&format!("there is no {}=", self.key), &format!("the words are {keys}"))
    }

    /// A number.
    pub(super) fn number<T: FromStr>(&self, allowed: &str) -> Result<T, WordError> {
        self.value.parse().map_err(|_| self.error("this is no number that fits", allowed))
    }

    pub(super) fn address(&self) -> Result<Ipv4Addr, WordError> {
        let allowed = "an IPv4 address, as in 10.1.0.10";
        self.value.parse().map_err(|_| self.error("this is no address", allowed))
    }

    fn prefix(&self) -> Result<(Ipv4Addr, u8), WordError> {
        let allowed = "an IPv4 address or a prefix, as in 10.1.0.10 or 10.0.0.0/8";
        let (address, len) = self.value.split_once('/').unwrap_or((self.value, "32"));
        let parsed = address.parse().ok().zip(len.parse().ok().filter(|len| *len <= 32));
        parsed.ok_or_else(|| self.error("this is no address and no prefix", allowed))
    }

    pub(super) fn protocol(&self) -> Result<u8, WordError> {
        let named = PROTOCOLS.iter().find(|(name, _)| *name == self.value);
        match named {
            Some((_, protocol)) => Ok(protocol.0),
            None => {
                let names = PROTOCOLS.map(|(name, _)| name).join(", ");
                self.number(&format!("{names}, or a number from 0 to 255"))
            }
        }
    }
}

impl Filter {
    /// Every packet.
    pub fn all() -> Self {
        Filter::default()
    }

    /// Reads words with spaces between: `src=` and `dst=` an address or a prefix,
    /// `proto=` a name or a number, `sport=` and `dport=` a port of TCP or UDP, `port=`
    /// the name of a port, `tenant=` a number, `verdict=` transmit, punt, to-kernel,
    /// hold, hand-over or drop, `reason=` the counter of a reason to drop or punt.
    ///
    /// # Errors
    /// The first word that is wrong, with what is allowed in its place.
    pub fn parse(text: &str) -> Result<Self, WordError> {
        let mut filter = Filter::default();
        let port = "a port, from 0 to 65535";
        let mut kind = None;
        for word in words(text, WORDS) {
            let word = word?;
            match word.key {
                "src" => filter.src = Some(word.prefix()?),
                "dst" => filter.dst = Some(word.prefix()?),
                "proto" => filter.proto = Some(word.protocol()?),
                "sport" => filter.sport = Some(word.number(port)?),
                "dport" => filter.dport = Some(word.number(port)?),
                "port" if word.value.is_empty() => {
                    return Err(word.error("it has no name", "the name of a [[port]]"));
                }
                "port" => filter.port = Some(word.value.into()),
                "tenant" => filter.tenant = Some(TenantId(word.number("a tenant's number")?)),
                "verdict" => {
                    let found = Kind::ALL.iter().find(|(name, _)| *name == word.value);
                    let names = Kind::ALL.map(|(name, _)| name).join(", ");
                    let (_, found) =
                        found.ok_or_else(|| word.error("there is no such verdict", &names))?;
                    kind = Some(*found);
                }
                "reason" => filter.verdict = Some(reason(&word)?),
                _ => return Err(word.unknown(WORDS)),
            }
        }
        match (kind, filter.verdict) {
            (Some(kind), None) => filter.verdict = Some(VerdictFilter::Kind(kind)),
            (Some(Kind::Drop), Some(VerdictFilter::Drop(_)))
            | (Some(Kind::Punt), Some(VerdictFilter::Punt(_)))
            | (None, _) => {}
            (Some(_), Some(_)) => {
                return Err(WordError {
                    word: "reason=".into(),
                    wrong: "this verdict has no such reason".into(),
                    allowed: "leave verdict= out: the reason says it".into(),
                });
            }
        }
        Ok(filter)
    }

    /// What workers compare with; `None` when no port has this name.
    pub(super) fn plain(&self, ports: &[PortShared]) -> Option<PlainFilter> {
        let port = match &self.port {
            Some(name) => {
                let number = ports.iter().position(|port| port.name == *name)?;
                // Ports are numbered with 16 bits.
                Some(number as u16)
            }
            None => None,
        };
        let prefix = |prefix: Option<(Ipv4Addr, u8)>| {
            let (address, len) = prefix.unwrap_or((Ipv4Addr::UNSPECIFIED, 0));
            let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
            (address.to_bits() & mask, mask)
        };
        let ((src, src_mask), (dst, dst_mask)) = (prefix(self.src), prefix(self.dst));
        let (kind, reason) = match self.verdict {
            None => (0, 0),
            Some(VerdictFilter::Kind(kind)) => (KIND, kind as u8),
            Some(VerdictFilter::Drop(reason)) => (DROP, reason as u8),
            Some(VerdictFilter::Punt(reason)) => (PUNT, reason as u8),
        };
        let flag = |flag: u8, set: bool| if set { flag } else { 0 };
        let set = flag(PROTO, self.proto.is_some())
            | flag(SPORT, self.sport.is_some())
            | flag(DPORT, self.dport.is_some())
            | flag(PORT, port.is_some())
            | flag(TENANT, self.tenant.is_some())
            | flag(PACKET, self.src.is_some() || self.dst.is_some());
        Some(PlainFilter {
            src,
            src_mask,
            dst,
            dst_mask,
            tenant: self.tenant.unwrap_or_default().0,
            sport: self.sport.unwrap_or_default(),
            dport: self.dport.unwrap_or_default(),
            port: port.unwrap_or_default(),
            proto: self.proto.unwrap_or_default(),
            set,
            kind,
            reason,
            zero: [0; 2],
        })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Filter { src, dst, proto, sport, dport, port, tenant, verdict } = self;
        let prefix = |prefix: &Option<(Ipv4Addr, u8)>| {
            prefix.map(|(address, len)| match len {
                32 => address.to_string(),
                _ => format!("{address}/{len}"),
            })
        };
        let verdict = verdict.map(|verdict| match verdict {
            VerdictFilter::Kind(kind) => {
                let name = Kind::ALL.iter().find(|(_, at)| *at == kind);
                ("verdict", name.map_or("", |(name, _)| *name))
            }
            VerdictFilter::Drop(reason) => ("reason", reason.counter()),
            VerdictFilter::Punt(reason) => ("reason", reason.counter()),
        });
        let text = |value: Option<String>, key: &str| value.map(|value| format!("{key}={value}"));
        let all = [
            text(prefix(src), "src"),
            text(prefix(dst), "dst"),
            text(proto.map(|at| at.to_string()), "proto"),
            text(sport.map(|at| at.to_string()), "sport"),
            text(dport.map(|at| at.to_string()), "dport"),
            text(port.clone(), "port"),
            text(tenant.map(|at| at.to_string()), "tenant"),
            verdict.map(|(key, value)| format!("{key}={value}")),
        ];
        let words: Vec<String> = all.into_iter().flatten().collect();
        f.write_str(&words.join(" "))
    }
}

fn reason(word: &Word<'_>) -> Result<VerdictFilter, WordError> {
    let drop = DropReason::ALL.iter().find(|reason| reason.counter() == word.value);
    let punt = PuntReason::ALL.iter().find(|reason| reason.counter() == word.value);
    match (drop, punt) {
        (Some(reason), _) => Ok(VerdictFilter::Drop(*reason)),
        (None, Some(reason)) => Ok(VerdictFilter::Punt(*reason)),
        (None, None) => Err(word.error(
            "there is no such reason",
            "the names are those of `homeport show drops --all`",
        )),
    }
}

/// What is set: flags of [`PlainFilter::set`].
const PROTO: u8 = 1;
const SPORT: u8 = 2;
const DPORT: u8 = 4;
const PORT: u8 = 8;
const TENANT: u8 = 16;
/// Something of the packet's own header.
const PACKET: u8 = 32;
/// Any of these is asked of a packet's bytes.
const OF_PACKET: u8 = PROTO | SPORT | DPORT | PACKET;

/// What [`PlainFilter::reason`] is: none, a [`Kind`], a drop or a punt reason.
const KIND: u8 = 1;
const DROP: u8 = 2;
const PUNT: u8 = 3;

/// A filter as workers have it, of whole 64-bit words.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub(crate) struct PlainFilter {
    src: u32,
    src_mask: u32,
    dst: u32,
    dst_mask: u32,
    tenant: u32,
    sport: u16,
    dport: u16,
    port: u16,
    proto: u8,
    set: u8,
    kind: u8,
    reason: u8,
    zero: [u8; 2],
}

/// Words of a [`PlainFilter`].
pub(super) const FILTER_WORDS: usize = size_of::<PlainFilter>() / size_of::<u64>();

impl PlainFilter {
    pub(super) fn to_words(self) -> [u64; FILTER_WORDS] {
        zerocopy::transmute!(self)
    }

    pub(super) fn of_words(words: [u64; FILTER_WORDS]) -> Self {
        zerocopy::transmute!(words)
    }

    const fn has(&self, flags: u8) -> bool {
        self.set & flags != 0
    }

    /// Whether a packet that came in by `port`, of `tenant`, is meant: with its link
    /// header or without.
    pub(super) fn matches(
        &self,
        (port, tenant): (PortId, TenantId),
        bytes: &[u8],
        has_link_header: bool,
    ) -> bool {
        if self.has(PORT) && self.port != port.0 || self.has(TENANT) && self.tenant != tenant.0 {
            return false;
        }
        if !self.has(OF_PACKET) {
            return true;
        }
        let Some(mut facts) = cut_facts(bytes, has_link_header) else { return false };
        let start = if has_link_header { EthernetHeader::LEN } else { 0 };
        let packet = bytes.get(start..).unwrap_or_default();
        // What lies behind the packet is the link's.
        let packet = packet.get(..usize::from(facts.total_len)).unwrap_or(packet);
        let mut payload = packet.get(usize::from(facts.header_len)..).unwrap_or_default();
        for _ in 0..=MAX_NESTING {
            if self.matches_packet(&facts, payload) {
                return true;
            }
            if !facts.may_be_tunnelled() || facts.fragment {
                break;
            }
            let Ok((opened, inside)) = decap::open(&facts, payload) else { break };
            (facts, payload) = (opened.inner, inside);
        }
        false
    }

    fn matches_packet(&self, facts: &Ipv4Facts, payload: &[u8]) -> bool {
        let (source, destination) = (facts.source.to_bits(), facts.destination.to_bits());
        let ports = || ports_of(facts, payload);
        source & self.src_mask == self.src
            && destination & self.dst_mask == self.dst
            && (!self.has(PROTO) || facts.protocol.0 == self.proto)
            && (!self.has(SPORT) || ports().is_some_and(|(from, _)| from == self.sport))
            && (!self.has(DPORT) || ports().is_some_and(|(_, to)| to == self.dport))
    }

    /// Whether a verdict is meant.
    pub(super) fn matches_verdict(&self, verdict: Verdict) -> bool {
        match (self.kind, verdict) {
            (KIND, verdict) => Kind::of(verdict) as u8 == self.reason,
            (DROP, Verdict::Drop(reason)) => reason as u8 == self.reason,
            (PUNT, Verdict::Punt(reason)) => reason as u8 == self.reason,
            (DROP | PUNT, _) => false,
            _ => true,
        }
    }
}

/// The ports of TCP or UDP, of a packet that is no fragment.
pub(super) fn ports_of(facts: &Ipv4Facts, payload: &[u8]) -> Option<(u16, u16)> {
    if facts.fragment {
        return None;
    }
    match (facts.protocol, payload.first_chunk()) {
        (IpProtocol::TCP | IpProtocol::UDP, Some([a, b, c, d])) => {
            Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
        }
        _ => None,
    }
}

/// What the header of an IPv4 packet says, also where the end of the packet is cut off
/// or its checksum is wrong. `None`: it is no IPv4.
pub(super) fn cut_facts(bytes: &[u8], has_link_header: bool) -> Option<Ipv4Facts> {
    let packet = if has_link_header {
        let (ethernet, rest) = EthernetHeader::ref_from_prefix(bytes).ok()?;
        (ethernet.ether_type() == homeport_wire::EtherType::IPV4).then_some(rest)?
    } else {
        bytes
    };
    if let Ok(facts) = parse::ipv4(packet) {
        return Some(facts);
    }
    let (header, _) = Ipv4Header::ref_from_prefix(packet).ok()?;
    let header_len = header.header_len();
    let payload = packet.get(header_len..).unwrap_or_default();
    let facts = Ipv4Facts {
        source: header.source(),
        destination: header.destination(),
        protocol: header.protocol(),
        // At most 60: the field has four bits.
        header_len: header_len as u16,
        total_len: header.total_len(),
        dont_fragment: header.dont_fragment(),
        fragment: header.is_fragment(),
        udp_ports: None,
        mobile_ip: None,
        icmp_type: None,
    };
    Some(facts.with_payload(header.protocol(), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_and_written_back() {
        for text in [
            "",
            "src=10.0.0.0/8 dst=10.1.0.10 proto=17 sport=1 dport=434 port=core tenant=7 \
             verdict=drop",
            "reason=no-route",
            "reason=registration",
            "dst=0.0.0.0/0",
        ] {
            let filter = Filter::parse(text).unwrap();
            assert_eq!(Filter::parse(&filter.to_string()).unwrap(), filter);
            assert_eq!(filter.to_string(), text);
        }
        let both = Filter::parse("verdict=drop reason=no-route").unwrap();
        assert_eq!(both.verdict, Some(VerdictFilter::Drop(DropReason::NoRoute)));
    }

    #[test]
    fn a_wrong_word_is_named_with_what_is_allowed() {
        for (text, word, wrong, allowed) in [
            ("dst=10.1.0.10 dport=http", "dport=http", "no number", "from 0 to 65535"),
            ("dst", "dst", "has no =", "src=, dst="),
            ("host=1", "host=1", "there is no host=", "src=, dst="),
            ("src=10.0.0.0/33", "src=10.0.0.0/33", "no prefix", "10.0.0.0/8"),
            ("proto=sctp", "proto=sctp", "no number", "icmp, tcp, udp"),
            ("proto=256", "proto=256", "no number", "from 0 to 255"),
            ("verdict=gone", "verdict=gone", "no such verdict", "to-kernel"),
            ("reason=bad-luck", "reason=bad-luck", "no such reason", "show drops --all"),
            ("src=10.0.0.1 src=10.0.0.2", "src=10.0.0.2", "twice", "once"),
            ("port=", "port=", "no name", "[[port]]"),
            ("verdict=punt reason=no-route", "reason=", "no such reason", "leave verdict= out"),
        ] {
            let error = Filter::parse(text).unwrap_err();
            assert_eq!(error.word, word);
            assert!(error.wrong.contains(wrong), "{error}");
            assert!(error.allowed.contains(allowed), "{error}");
        }
    }

    #[test]
    fn the_plain_form_crosses_as_words() {
        let filter = Filter::parse("src=10.0.0.0/8 dport=434 tenant=9 reason=no-route").unwrap();
        let plain = filter.plain(&[]).unwrap();
        assert_eq!(PlainFilter::of_words(plain.to_words()), plain);
        assert!(plain.matches_verdict(Verdict::Drop(DropReason::NoRoute)));
        assert!(!plain.matches_verdict(Verdict::Drop(DropReason::NoBinding)));
        assert!(!plain.matches_verdict(Verdict::ToKernel));
        assert!(Filter::parse("port=core").unwrap().plain(&[]).is_none(), "there is none");
    }
}
