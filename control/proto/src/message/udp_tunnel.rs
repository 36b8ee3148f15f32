//! UDP tunnel request and reply: how a tunnel through a NAT is asked for and
//! granted (RFC 3519 §3.1, §3.2).

use homeport_wire::IpProtocol;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// The highest bit of the byte behind the reply code or of the flags.
const FORCED: u8 = 0x80;
const REGISTRATION_REQUIRED: u8 = 0x40;

/// The data of extension 144 behind its subtype, which is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UdpTunnelRequest {
    /// Flag F: tunnel even where no NAT is seen.
    pub forced: bool,
    /// Flag R: a co-located care-of address is registered through a foreign
    /// agent that demands it, so the tunnel's port is not the request's.
    pub registration_required: bool,
    /// What the tunnel shall carry; `None`, zero on the wire, leaves it to the
    /// request's M and G.
    pub encapsulation: Option<IpProtocol>,
    /// Reserved 3, the last two bytes: only zero is understood (§3.1.3).
    pub reserved: u16,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RequestLayout {
    subtype: u8,
    reserved_1: u8,
    flags: u8,
    encapsulation: u8,
    reserved_3: U16,
}

impl UdpTunnelRequest {
    /// Bytes behind type and length.
    pub const LEN: usize = 6;

    /// The request in the data of extension 144, whose first byte is a subtype of
    /// zero; `None` when the length is another.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let layout = RequestLayout::ref_from_bytes(data).ok()?;
        Some(UdpTunnelRequest {
            forced: layout.flags & FORCED != 0,
            registration_required: layout.flags & REGISTRATION_REQUIRED != 0,
            encapsulation: Some(IpProtocol(layout.encapsulation))
                .filter(|protocol| protocol.0 != 0),
            reserved: layout.reserved_3.get(),
        })
    }

    /// The data of extension 144.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let flag = |set, bit| if set { bit } else { 0 };
        zerocopy::transmute!(RequestLayout {
            subtype: 0,
            reserved_1: 0,
            flags: flag(self.forced, FORCED)
                | flag(self.registration_required, REGISTRATION_REQUIRED),
            encapsulation: self.encapsulation.map_or(0, |protocol| protocol.0),
            reserved_3: U16::new(self.reserved),
        })
    }
}

/// The data of extension 44 behind its subtype, which is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UdpTunnelReply {
    /// Below 64 the home agent tunnels in UDP, from 64 on it does not (§3.2.1).
    pub code: u8,
    /// Flag F: it tunnels because the request forced it.
    pub forced: bool,
    /// After how many seconds of silence the other end shall send something;
    /// zero leaves it to that end.
    pub keepalive: u16,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ReplyLayout {
    subtype: u8,
    code: u8,
    flags: u8,
    reserved: u8,
    keepalive: U16,
}

impl UdpTunnelReply {
    /// Bytes behind type and length.
    pub const LEN: usize = 6;
    /// "Will do tunnelling".
    pub const ASSENT: u8 = 0;
    /// "Tunnelling declined, reason unspecified".
    pub const DECLINED: u8 = 64;

    /// Whether the home agent tunnels in UDP.
    pub const fn assents(&self) -> bool {
        self.code < Self::DECLINED
    }

    /// The reply in the data of extension 44, whose first byte is a subtype of
    /// zero; `None` when the length is another.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let layout = ReplyLayout::ref_from_bytes(data).ok()?;
        Some(UdpTunnelReply {
            code: layout.code,
            forced: layout.flags & FORCED != 0,
            keepalive: layout.keepalive.get(),
        })
    }

    /// The data of extension 44.
    pub fn emit(&self) -> [u8; Self::LEN] {
        zerocopy::transmute!(ReplyLayout {
            subtype: 0,
            code: self.code,
            flags: if self.forced { FORCED } else { 0 },
            reserved: 0,
            keepalive: U16::new(self.keepalive),
        })
    }
}
