//! The values that a config file is written in: each says how it is read, what
//! is wrong with it and what to write instead.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use homeport_proto::config::{PreferredEncapsulation, Prefix, Profile};
use homeport_proto::security::Algorithm;
use homeport_proto::{Lifetime, ReverseTunnel};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use toml::Spanned;
use toml::de::DeValue;

use super::problem::Problems;
use super::read::{FromToml, nearest};

/// The text of a value; noted when it is no text. `example` is what to write.
pub fn text<'v>(
    value: &'v Spanned<DeValue<'_>>,
    example: &str,
    problems: &mut Problems,
) -> Option<&'v str> {
    if let DeValue::String(text) = value.get_ref() {
        return Some(text);
    }
    let kind = value.get_ref().type_str();
    let help = format!("write it in quotes, as in \"{example}\"");
    problems.add(value.span(), format!("a text is wanted here, and this is of type {kind}"), help);
    None
}

/// Serialize as the Display text, with a schema of a string of this pattern.
macro_rules! text_value {
    ($type:ty, $name:literal, $pattern:literal, $description:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "description": $description,
                })
            }
        }
    };
}
pub(crate) use text_value;

/// A name that other sections, the CLI and metric labels use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub String);

text_value!(Name, "Name", "^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$", "A name of at most 32 characters.");

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromToml for Name {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        let name = text(value, "core", problems)?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts && name.len() <= 32 && name.chars().all(is_word) {
            return Some(Name(name.into()));
        }
        problems.add(
            value.span(),
            format!("\"{}\" is no name", name.escape_debug()),
            "use at most 32 of a-z, A-Z, 0-9, _, . and -, beginning with a letter or a digit",
        );
        None
    }
}

/// A prefix, written without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub Prefix);

text_value!(Network, "Network", "^[0-9.]+/[0-9]{1,2}$", "An IPv4 prefix, as in 10.1.0.0/24.");

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromToml for Network {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        let (address, len) = address_and_len(value, "10.1.0.0/24", problems)?;
        let prefix = Prefix::new(address, len)?;
        if prefix.address() != address {
            problems.add(
                value.span(),
                format!("{address}/{len} has bits beyond its {len}"),
                format!("write \"{prefix}\" for the network that it lies in"),
            );
            return None;
        }
        Some(Network(prefix))
    }
}

/// An address of an interface with the length of its link's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// Length of the link's prefix in bits, 0 to 32.
    pub prefix_len: u8,
}

impl InterfaceAddress {
    /// The link's prefix.
    pub fn prefix(self) -> Option<Prefix> {
        Prefix::new(self.address, self.prefix_len)
    }
}

text_value!(
    InterfaceAddress,
    "InterfaceAddress",
    "^[0-9.]+/[0-9]{1,2}$",
    "An IPv4 address with the length of its link's prefix, as in 10.0.1.2/24."
);

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl FromToml for InterfaceAddress {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        let (address, prefix_len) = address_and_len(value, "10.0.1.2/24", problems)?;
        if !is_unicast(address) {
            refuse_unicast(value, address, problems);
            return None;
        }
        Some(InterfaceAddress { address, prefix_len })
    }
}

fn address_and_len(
    value: &Spanned<DeValue<'_>>,
    example: &str,
    problems: &mut Problems,
) -> Option<(Ipv4Addr, u8)> {
    let written = text(value, example, problems)?;
    let (address, len) = written.split_once('/').unzip();
    let address = address.unwrap_or(written).parse::<Ipv4Addr>().ok();
    match (address, len.map(|len| len.parse::<u8>())) {
        (Some(address), Some(Ok(len))) if len <= 32 => return Some((address, len)),
        (Some(address), None) => problems.add(
            value.span(),
            format!("\"{address}\" lacks the length of its prefix"),
            format!("write \"{address}/24\" if the network has 24 bits"),
        ),
        _ => problems.add(
            value.span(),
            format!("\"{}\" is no IPv4 address with a prefix length", written.escape_debug()),
            format!("write it as in \"{example}\""),
        ),
    }
    None
}

impl FromToml for Ipv4Addr {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        let written = text(value, "10.0.1.2", problems)?;
        let Ok(address) = written.parse::<Ipv4Addr>() else {
            let help = match written.split_once('/') {
                Some((address, _)) if address.parse::<Ipv4Addr>().is_ok() => {
                    format!("leave the prefix length away: \"{address}\"")
                }
                _ => "write four numbers from 0 to 255, as in \"10.0.1.2\"".into(),
            };
            let message = format!("\"{}\" is no IPv4 address", written.escape_debug());
            problems.add(value.span(), message, help);
            return None;
        };
        if !is_unicast(address) {
            refuse_unicast(value, address, problems);
            return None;
        }
        Some(address)
    }
}

fn refuse_unicast(value: &Spanned<DeValue<'_>>, address: Ipv4Addr, problems: &mut Problems) {
    problems.add(
        value.span(),
        format!("{address} is no address that a host can have"),
        "write a unicast address, as in \"10.0.1.2\"",
    );
}

fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_multicast()
        || address.is_broadcast()
        || address.is_loopback()
        || address.is_unspecified())
}

impl FromToml for SocketAddr {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        let written = text(value, "127.0.0.1:9434", problems)?;
        let address = written.parse().ok();
        if address.is_none() {
            problems.add(
                value.span(),
                format!("\"{}\" is no address with a port", written.escape_debug()),
                "write both, as in \"127.0.0.1:9434\"",
            );
        }
        address
    }
}

impl FromToml for PathBuf {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        let written = text(value, "/etc/homeport/keys/mn1.key", problems)?;
        if written.is_empty() || written.contains('\0') {
            problems.add(value.span(), "this is no path", "write the path of a file");
            return None;
        }
        Some(PathBuf::from(written))
    }
}

impl FromToml for String {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        let written = text(value, "eth0", problems)?;
        if written.is_empty() || written.chars().any(char::is_control) {
            problems.add(value.span(), "this text is empty or not printable", "write a word");
            return None;
        }
        Some(written.into())
    }
}

impl FromToml for bool {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        if let DeValue::Boolean(value) = value.get_ref() {
            return Some(*value);
        }
        problems.add(
            value.span(),
            "yes or no is wanted here",
            "write true or false, without quotes",
        );
        None
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl FromToml for $type {
            fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
                let number = match value.get_ref() {
                    DeValue::Integer(number) => <$type>::from_str_radix(number.as_str(), number.radix()).ok(),
                    _ => None,
                };
                if number.is_none() {
                    let help = format!(
                        "write a whole number from 0 to {}, without quotes or units", <$type>::MAX
                    );
                    problems.add(value.span(), "a number is wanted here", help);
                }
                number
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, usize);

/// A time, written as a number and a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

text_value!(Span, "Span", "^[0-9]+(ms|s|m|h)$", "A time: a number and ms, s, m or h, as in 30s.");

impl Span {
    /// This many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Span(Duration::from_secs(seconds))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match (millis % 1000, millis / 1000) {
            (0, seconds) => write_seconds(f, seconds),
            _ => write!(f, "{millis}ms"),
        }
    }
}

fn write_seconds(f: &mut fmt::Formatter<'_>, seconds: u128) -> fmt::Result {
    match seconds {
        0 => f.write_str("0s"),
        _ if seconds.is_multiple_of(3600) => write!(f, "{}h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
        _ => write!(f, "{seconds}s"),
    }
}

impl FromToml for Span {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        read_span(value, "\"500ms\", \"30s\", \"10m\" or \"5h\"", problems).map(Span)
    }
}

fn read_span(
    value: &Spanned<DeValue<'_>>,
    examples: &str,
    problems: &mut Problems,
) -> Option<Duration> {
    let written = match value.get_ref() {
        DeValue::String(written) => Cow::from(&**written),
        DeValue::Integer(number) => Cow::from(number.as_str()),
        other => {
            let kind = other.type_str();
            let message = format!("a time is wanted here, and this is of type {kind}");
            problems.add(value.span(), message, format!("write a number and a unit: {examples}"));
            return None;
        }
    };
    let trimmed = written.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let millis_per_unit = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    if let (Ok(number), Some(factor)) = (number.parse::<u64>(), millis_per_unit)
        && let Some(millis) = number.checked_mul(factor)
    {
        return Some(Duration::from_millis(millis));
    }
    // The slip is named: a bare number, or a unit written out.
    let word = unit.trim().to_ascii_lowercase();
    let (message, help) = match (number.is_empty(), word.as_str()) {
        (false, "") => (
            format!("{number} of what? A time needs a unit"),
            format!("write \"{number}s\" for seconds, \"{number}m\" for minutes"),
        ),
        (false, "sec" | "secs" | "second" | "seconds") => unit_slip(unit, number, "s"),
        (false, "min" | "mins" | "minute" | "minutes") => unit_slip(unit, number, "m"),
        (false, "hour" | "hours" | "hr" | "hrs") => unit_slip(unit, number, "h"),
        (false, "msec" | "msecs" | "millisecond" | "milliseconds") => unit_slip(unit, number, "ms"),
        (false, "s" | "m" | "h" | "ms") => unit_slip(unit, number, &word),
        _ => (
            format!("\"{}\" is no time", written.escape_debug()),
            format!("write a number and a unit: {examples}"),
        ),
    };
    problems.add(value.span(), message, help);
    None
}

fn unit_slip(unit: &str, number: &str, right: &str) -> (String, String) {
    (
        format!("the unit \"{}\" is not known", unit.escape_debug()),
        format!("write \"{number}{right}\""),
    )
}

/// A registration lifetime, written as a time or `infinite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifetimeText(pub Lifetime);

text_value!(
    LifetimeText,
    "Lifetime",
    "^([0-9]+(s|m|h)|infinite)$",
    "A registration lifetime: 30s, 10m, 5h or infinite; at most 65534s."
);

impl fmt::Display for LifetimeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Lifetime::INFINITE => f.write_str("infinite"),
            Lifetime(seconds) => write_seconds(f, u128::from(seconds)),
        }
    }
}

impl FromToml for LifetimeText {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        if value.get_ref().as_str() == Some("infinite") {
            return Some(LifetimeText(Lifetime::INFINITE));
        }
        let examples = "\"30s\", \"10m\", \"5h\" or \"infinite\"";
        let duration = read_span(value, examples, problems)?;
        // RFC 5944 §3.3: 16 bits of seconds, of which 0 and 0xffff mean more.
        match u16::try_from(duration.as_secs()) {
            Ok(seconds @ 1..=65_534) if duration.subsec_nanos() == 0 => {
                return Some(LifetimeText(Lifetime(seconds)));
            }
            Ok(0) | Ok(1..=65_534) => problems.add(
                value.span(),
                "a lifetime is a whole number of seconds, at least one",
                format!("write {examples}"),
            ),
            _ => problems.add(
                value.span(),
                format!("{} s is longer than a registration can last", duration.as_secs()),
                "write at most \"65534s\" (18h 12m), or \"infinite\"",
            ),
        }
        None
    }
}

/// What `tracing` shall log: a level, or a filter like `info,homeport=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub String);

text_value!(LogFilter, "LogFilter", ".", "error, warn, info, debug, trace, or a tracing filter.");

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromToml for LogFilter {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        let written = text(value, "info", problems)?;
        // A bare word that is no level would be taken for the name of a target.
        let is_word = written.chars().all(|c| c.is_ascii_alphanumeric());
        let known = !is_word || LEVELS.contains(&written);
        if known && tracing_subscriber::EnvFilter::try_new(written).is_ok() {
            return Some(LogFilter(written.into()));
        }
        problems.add(
            value.span(),
            format!("\"{}\" is no log level", written.escape_debug()),
            "write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        );
        None
    }
}

/// Defines an enum that is written as one of a few words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$word_meta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
        pub enum $name { $($(#[$word_meta])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// The word that it is written as.
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl FromToml for $name {
            fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Self> {
                const WORDS: &[&str] = &[$($word,)*];
                let written = text(value, WORDS.first().unwrap_or(&""), problems)?;
                let help = match written {
                    $($word => return Some($name::$variant),)*
                    other => match nearest(other, WORDS) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => format!("write one of \"{}\"", WORDS.join("\", \"")),
                    },
                };
                let message = format!("\"{}\" is not known here", written.escape_debug());
                problems.add(value.span(), message, help);
                None
            }
        }
    };
}

pub(crate) use words;

words! {
    /// How RX cores wait for packets.
    PollMode {
        /// Spin, then sleep a little, then longer: little CPU at rest.
        Adaptive = "adaptive",
        /// Always spin.
        Busy = "busy",
    }
}

words! {
    /// When packets are handed to the worker that their addresses name.
    SteeringName {
        /// Where a port receives by fewer queues than there are workers.
        Auto = "auto",
        /// Never.
        Off = "off",
        /// Always, by the addresses inside tunnels.
        Inner = "inner",
    }
}

words! {
    /// What is behind a port.
    BackendKind {
        /// A Linux interface, through AF_PACKET.
        AfPacket = "af_packet",
        /// A Linux interface that stays the kernel's, through AF_XDP.
        AfXdp = "af_xdp",
        /// A DPDK device or vdev.
        Dpdk = "dpdk",
    }
}

words! {
    /// Where the program of an af_xdp port runs.
    XdpModeName {
        /// The best that comes up.
        Auto = "auto",
        /// In the driver.
        Native = "native",
        /// In the kernel's common receive path.
        Generic = "generic",
        /// In the driver, and the card uses the memory of the queues.
        ZeroCopy = "zero-copy",
    }
}

words! {
    /// Which RFC decides where two differ.
    ProfileName {
        /// RFC 5944.
        Rfc5944 = "rfc5944",
        /// RFC 2002.
        Rfc2002 = "rfc2002",
        /// RFC 5944 as today's mobile routers speak it.
        Dmnr = "dmnr",
    }
}

impl ProfileName {
    /// The longest lifetime that is granted where no other is written.
    pub const fn max_lifetime(self) -> Lifetime {
        match self {
            ProfileName::Rfc5944 | ProfileName::Rfc2002 => Lifetime(36_000),
            // What such routers ask for: the longest that ends.
            ProfileName::Dmnr => Lifetime(65_534),
        }
    }
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Profile {
        match name {
            ProfileName::Rfc5944 => Profile::Rfc5944,
            ProfileName::Rfc2002 => Profile::Rfc2002,
            ProfileName::Dmnr => Profile::Dmnr,
        }
    }
}

words! {
    /// Which way a visitor's packets go.
    ViaName {
        /// By the reverse tunnel, to its home agent.
        Tunnel = "tunnel",
        /// By the routes of this box.
        Local = "local",
    }
}

words! {
    /// How authenticators are computed.
    AlgorithmName {
        /// HMAC-MD5, the default of RFC 5944.
        HmacMd5 = "hmac-md5",
        /// Keyed MD5, the default of RFC 2002.
        KeyedMd5 = "keyed-md5",
        /// HMAC-SHA1.
        HmacSha1 = "hmac-sha1",
        /// HMAC-SHA256.
        HmacSha256 = "hmac-sha256",
    }
}

impl From<AlgorithmName> for Algorithm {
    fn from(name: AlgorithmName) -> Algorithm {
        match name {
            AlgorithmName::HmacMd5 => Algorithm::HmacMd5,
            AlgorithmName::KeyedMd5 => Algorithm::KeyedMd5,
            AlgorithmName::HmacSha1 => Algorithm::HmacSha1,
            AlgorithmName::HmacSha256 => Algorithm::HmacSha256,
        }
    }
}

words! {
    /// How replays are found.
    ReplayName {
        /// By timestamps.
        Timestamps = "timestamps",
        /// By nonces.
        Nonces = "nonces",
    }
}

words! {
    /// How a mobile node's own packets go back to its home agent.
    ReverseTunnelName {
        /// Routed by their destination.
        None = "none",
        /// Plain to the foreign agent, which tunnels them.
        Direct = "direct",
        /// Encapsulated to the foreign agent.
        Encapsulating = "encapsulating",
    }
}

impl From<ReverseTunnelName> for ReverseTunnel {
    fn from(name: ReverseTunnelName) -> ReverseTunnel {
        match name {
            ReverseTunnelName::None => ReverseTunnel::None,
            ReverseTunnelName::Direct => ReverseTunnel::Direct,
            ReverseTunnelName::Encapsulating => ReverseTunnel::Encapsulating,
        }
    }
}

words! {
    /// The encapsulation that a mobile node asks for.
    PreferredEncapsulationName {
        /// IP in IP (RFC 2003).
        IpInIp = "ip-in-ip",
        /// Minimal encapsulation (RFC 2004).
        Minimal = "minimal",
        /// GRE (RFC 2784).
        Gre = "gre",
        /// UDP (RFC 3519), NAT or not.
        Udp = "udp",
    }
}

impl From<PreferredEncapsulationName> for PreferredEncapsulation {
    fn from(name: PreferredEncapsulationName) -> PreferredEncapsulation {
        match name {
            PreferredEncapsulationName::IpInIp => PreferredEncapsulation::IpInIp,
            PreferredEncapsulationName::Minimal => PreferredEncapsulation::Minimal,
            PreferredEncapsulationName::Gre => PreferredEncapsulation::Gre,
            PreferredEncapsulationName::Udp => PreferredEncapsulation::Udp,
        }
    }
}
