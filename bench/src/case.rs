//! What is measured: the cases by their names, and what a box must hold for each.

use std::fmt;
use std::str::FromStr;

use homeport_dataplane::table::binding::Encapsulation;

use crate::addresses;

/// One kind of work of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// Into a tunnel of this kind.
    Encap(Kind),
    /// Out of one, with the whole check of its outer and inner source.
    Decap(Kind),
    /// Out by an established flow of a NAPT.
    NaptOut,
    /// In by one.
    NaptIn,
    /// The packet that opens a flow.
    NaptNew,
    /// By a route; no table but that of the routes knows the destination.
    Forward,
    /// For nobody: dropped.
    Miss,
    /// Into and out of tunnels of the four kinds, with some plain packets between.
    Mixed,
}

/// The four encapsulations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// RFC 2003.
    IpIp,
    /// RFC 3519.
    Udp,
    /// RFC 2784.
    Gre,
    /// RFC 2004.
    Minimal,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::IpIp, Kind::Udp, Kind::Gre, Kind::Minimal];

    /// As the binding of a node has it.
    pub const fn encapsulation(self, node: u64) -> Encapsulation {
        match self {
            Kind::IpIp => Encapsulation::IpInIp,
            Kind::Udp => Encapsulation::Udp { peer_port: addresses::peer_port(node) },
            Kind::Gre => Encapsulation::Gre { key: None },
            Kind::Minimal => Encapsulation::Minimal,
        }
    }

    /// Bytes that it adds to a packet.
    pub const fn overhead(self) -> usize {
        match self {
            Kind::IpIp => 20,
            Kind::Udp => 32,
            Kind::Gre => 24,
            Kind::Minimal => 12,
        }
    }
}

/// What a box holds: cases of one family are measured on one box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Bindings of one encapsulation.
    Bindings(Kind),
    /// Bindings of the four, by turns.
    MixedBindings,
    /// Flows of a NAPT.
    Flows,
}

impl Family {
    /// How the binding of a node is encapsulated.
    pub const fn kind(self, node: u64) -> Kind {
        match self {
            Family::Bindings(kind) => kind,
            Family::MixedBindings => match node % 4 {
                0 => Kind::IpIp,
                1 => Kind::Udp,
                2 => Kind::Gre,
                _ => Kind::Minimal,
            },
            Family::Flows => Kind::IpIp,
        }
    }
}

impl Case {
    /// All of them, by name.
    pub const ALL: [(&'static str, Case); 14] = [
        ("encap_ipip", Case::Encap(Kind::IpIp)),
        ("decap_ipip", Case::Decap(Kind::IpIp)),
        ("encap_udp", Case::Encap(Kind::Udp)),
        ("decap_udp", Case::Decap(Kind::Udp)),
        ("encap_gre", Case::Encap(Kind::Gre)),
        ("decap_gre", Case::Decap(Kind::Gre)),
        ("encap_minimal", Case::Encap(Kind::Minimal)),
        ("decap_minimal", Case::Decap(Kind::Minimal)),
        ("napt_out", Case::NaptOut),
        ("napt_in", Case::NaptIn),
        ("napt_new", Case::NaptNew),
        ("forward", Case::Forward),
        ("miss", Case::Miss),
        ("mixed", Case::Mixed),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Case::ALL.iter().find(|(_, case)| *case == self).map_or("", |(name, _)| name)
    }

    /// The box that it is measured on.
    pub const fn family(self) -> Family {
        match self {
            Case::Encap(kind) | Case::Decap(kind) => Family::Bindings(kind),
            Case::NaptOut | Case::NaptIn | Case::NaptNew => Family::Flows,
            Case::Forward | Case::Miss => Family::Bindings(Kind::IpIp),
            Case::Mixed => Family::MixedBindings,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Case::ALL.iter().find(|(name, _)| *name == text).map(|(_, case)| *case);
        found.ok_or_else(|| {
            let names: Vec<&str> = Case::ALL.iter().map(|(name, _)| *name).collect();
            format!("no case `{text}`: {}", names.join(", "))
        })
    }
}

/// How long frames are, the link header counted and the checksum behind it not. It is
/// the length of the plain frame: in its tunnel it is as much longer as the tunnel's
/// headers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrameLen {
    /// All alike.
    Fixed(u16),
    /// 64, 570 and 1,400 bytes, 7 to 4 to 1.
    Imix,
}

impl FrameLen {
    /// The lengths of the simple IMIX, each as often as it comes in twelve packets.
    pub const IMIX: [(u16, u16); 3] = [(64, 7), (570, 4), (1400, 1)];

    /// The mean length in bytes.
    pub const fn mean(self) -> u16 {
        match self {
            FrameLen::Fixed(len) => len,
            FrameLen::Imix => (64 * 7 + 570 * 4 + 1400) / 12,
        }
    }
}

impl fmt::Display for FrameLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameLen::Fixed(len) => write!(f, "{len}"),
            FrameLen::Imix => f.write_str("imix"),
        }
    }
}

impl FromStr for FrameLen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text.eq_ignore_ascii_case("imix") => Ok(FrameLen::Imix),
            Ok(len @ 64..=1400) => Ok(FrameLen::Fixed(len)),
            _ => Err(format!("`{text}` is no frame length: `imix`, or bytes from 64 to 1400")),
        }
    }
}

/// A number of entries: `1k`, `100k`, `1M` and `4M` count in tens, `16Mi` in twos.
///
/// # Errors
/// It is no number, or more than [`addresses::MAX_NODES`].
pub fn parse_entries(text: &str) -> Result<u64, String> {
    let (digits, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "" => Some(1),
        "k" => Some(1000),
        "M" => Some(1_000_000),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        _ => None,
    };
    unit.zip(digits.parse::<u64>().ok())
        .and_then(|(unit, count)| count.checked_mul(unit))
        .filter(|count| (1..=addresses::MAX_NODES).contains(count))
        .ok_or_else(|| {
            format!("`{text}` is no number of entries: 1 to 16Mi, as 1k, 100k, 1M, 16Mi")
        })
}

/// A number of entries for people.
pub fn entries_text(entries: u64) -> String {
    match entries {
        n if n >= 1 << 20 && n.is_multiple_of(1 << 20) => format!("{} Mi", n >> 20),
        n if n >= 1_000_000 && n.is_multiple_of(1_000_000) => format!("{} M", n / 1_000_000),
        n if n >= 1000 && n.is_multiple_of(1000) => format!("{} k", n / 1000),
        n => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_found_by_its_name() {
        for (name, case) in Case::ALL {
            assert_eq!((name.parse(), case.name()), (Ok(case), name));
        }
        assert!("encap".parse::<Case>().unwrap_err().contains("encap_ipip"));
    }

    #[test]
    fn numbers_of_entries_are_read_as_people_write_them() {
        let read = |text| parse_entries(text).unwrap();
        assert_eq!([read("7"), read("1k"), read("100k")], [7, 1000, 100_000]);
        assert_eq!([read("1M"), read("16Mi")], [1_000_000, 1 << 24]);
        for bad in ["", "0", "k", "1m", "17Mi", "-1", "1.5M"] {
            assert!(parse_entries(bad).unwrap_err().contains("16Mi"), "{bad}");
        }
        assert_eq!(entries_text(1 << 24), "16 Mi");
        assert_eq!(entries_text(100_000), "100 k");
    }

    #[test]
    fn frame_lengths_are_bounded_by_what_a_frame_holds_and_a_link_takes() {
        assert_eq!("imix".parse(), Ok(FrameLen::Imix));
        assert_eq!("512".parse(), Ok(FrameLen::Fixed(512)));
        for bad in ["63", "1401", "long"] {
            assert!(bad.parse::<FrameLen>().is_err());
        }
        assert_eq!(FrameLen::Imix.mean(), 344);
    }
}
