//! What a reply carries beside its fixed part and its authentications, in the
//! place where whom it is for may read it (RFC 5944 §3.8.3.3).

use alloc::vec::Vec;

use crate::message::{
    DynamicHomeAgent, Extension, MobileNetworkAcknowledgement, RevocationSupport, UdpTunnelReply,
};

/// Who put an extension into a request, and whom the answer to it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Under the mobile-home authentication.
    MobileNode,
    /// Behind it, and under the foreign-home authentication if there is one.
    ForeignAgent,
}

/// Bytes of a challenge.
pub(super) const CHALLENGE_LEN: usize = 16;

/// One extension of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    UdpTunnelReply(UdpTunnelReply),
    GreKey(u32),
    MobileNetwork(MobileNetworkAcknowledgement),
    Challenge([u8; CHALLENGE_LEN]),
    RevocationSupport(RevocationSupport),
    DynamicHomeAgent(DynamicHomeAgent),
}

/// The extensions of a reply, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extras(Vec<(Writer, Extra)>);

impl Extras {
    pub(super) fn add(&mut self, to: Writer, extra: Extra) {
        self.0.push((to, extra));
    }

    /// Those that are for one of the two.
    pub(super) fn of(&self, whom: Writer) -> impl Iterator<Item = Extension<'_>> {
        self.0.iter().filter(move |(to, _)| *to == whom).map(|(_, extra)| extra.extension())
    }
}

impl Extra {
    const fn extension(&self) -> Extension<'_> {
        match self {
            Extra::UdpTunnelReply(reply) => Extension::UdpTunnelReply(*reply),
            Extra::GreKey(key) => Extension::GreKey(*key),
            Extra::MobileNetwork(answer) => Extension::MobileNetworkAcknowledgement(*answer),
            Extra::DynamicHomeAgent(elsewhere) => Extension::DynamicHomeAgent(*elsewhere),
            Extra::RevocationSupport(support) => Extension::RevocationSupport(*support),
            Extra::Challenge(challenge) => Extension::Challenge(challenge),
        }
    }
}
