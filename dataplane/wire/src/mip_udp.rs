//! Tunnelled data on the port of Mobile IP: the tunnel data message of RFC 3519
//! §3.3, and how a receiver tells data from signalling.

use crate::{IpProtocol, Ipv4Header, WireError};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// What a datagram from or to [`MOBILE_IP_PORT`](crate::MOBILE_IP_PORT) carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MobileIpPayload {
    /// A registration, a revocation, or anything else that is no data.
    Signalling,
    /// A packet behind a [`TunnelDataHeader`].
    TunnelData,
    /// A packet right behind the UDP header.
    PlainTunnelData,
}

impl MobileIpPayload {
    /// What the payload of a UDP datagram is. The first byte says it: 4 is the type
    /// of the tunnel data message, and 0x45 to 0x4f is how an IPv4 packet starts,
    /// which no message type of Mobile IP is.
    pub fn of(payload: &[u8]) -> Self {
        match payload.first() {
            Some(&TunnelDataHeader::TYPE) => MobileIpPayload::TunnelData,
            Some(0x45..=0x4f) if payload.len() >= Ipv4Header::LEN => {
                MobileIpPayload::PlainTunnelData
            }
            _ => MobileIpPayload::Signalling,
        }
    }
}

/// The four bytes between UDP and a tunnelled packet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct TunnelDataHeader {
    message_type: u8,
    next_header: u8,
    reserved: U16,
}

impl TunnelDataHeader {
    /// Bytes of the header.
    pub const LEN: usize = 4;

    /// The message's type.
    pub const TYPE: u8 = 4;

    /// A header in front of `next_header`; the reserved bits are zero.
    pub const fn new(next_header: IpProtocol) -> Self {
        TunnelDataHeader {
            message_type: Self::TYPE,
            next_header: next_header.0,
            reserved: U16::new(0),
        }
    }

    /// What follows.
    pub const fn next_header(&self) -> IpProtocol {
        IpProtocol(self.next_header)
    }

    /// The reserved bits. A receiver must ignore them.
    pub fn reserved(&self) -> u16 {
        self.reserved.get()
    }
}

/// A tunnel data message.
#[derive(Clone, Copy, Debug)]
pub struct TunnelDataPacket<'a> {
    header: &'a TunnelDataHeader,
    payload: &'a [u8],
}

impl<'a> TunnelDataPacket<'a> {
    /// The message in `bytes`, all of a UDP datagram's payload. Whether the next
    /// header is the tunnel's is the caller's to check (RFC 3519 §3.3).
    ///
    /// # Errors
    /// [`WireError::Truncated`]; [`WireError::Format`] when it is of another type.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (header, payload) =
            TunnelDataHeader::ref_from_prefix(bytes).map_err(|_| WireError::Truncated)?;
        if header.message_type != TunnelDataHeader::TYPE {
            return Err(WireError::Format);
        }
        Ok(TunnelDataPacket { header, payload })
    }

    /// The header.
    pub const fn header(&self) -> &'a TunnelDataHeader {
        self.header
    }

    /// What follows the header.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_we_send_is_read_back(
            next: u8, payload in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let header = TunnelDataHeader::new(IpProtocol(next));
            let mut bytes = [header.as_bytes(), &payload].concat();
            prop_assert_eq!(MobileIpPayload::of(&bytes), MobileIpPayload::TunnelData);
            let read = TunnelDataPacket::new_checked(&bytes).unwrap();
            prop_assert_eq!(read.header().next_header(), IpProtocol(next));
            prop_assert_eq!((read.header().reserved(), read.payload()), (0, &payload[..]));
            bytes[2..4].fill(0xff);
            prop_assert_eq!(TunnelDataPacket::new_checked(&bytes).unwrap().payload(), &payload[..]);
        }

        #[test]
        fn noise_never_panics_and_is_one_of_the_three(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let expected = match bytes.first() {
                Some(4) => MobileIpPayload::TunnelData,
                Some(first) if (0x45..=0x4f).contains(first) && bytes.len() >= 20 => {
                    MobileIpPayload::PlainTunnelData
                }
                _ => MobileIpPayload::Signalling,
            };
            prop_assert_eq!(MobileIpPayload::of(&bytes), expected);
            let is_data = TunnelDataPacket::new_checked(&bytes).is_ok();
            prop_assert_eq!(is_data, expected == MobileIpPayload::TunnelData && bytes.len() >= 4);
        }
    }

    /// The types of Mobile IP that share the port: registration, revocation,
    /// acknowledgement, regional registration.
    #[test]
    fn no_message_is_taken_for_data() {
        for kind in [1u8, 3, 7, 15, 16, 17, 18, 19] {
            let message = [&[kind][..], &[0x45; 40]].concat();
            assert_eq!(MobileIpPayload::of(&message), MobileIpPayload::Signalling);
        }
    }
}
