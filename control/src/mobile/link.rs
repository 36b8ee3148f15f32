//! The interface that the node moves with: its state, as rtnetlink tells, and what
//! is open on it.

use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use homeport_proto::MacAddress;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::dhcp::{CLIENT_PORT, DhcpClient};
use super::sockets::{self, PacketSocket};
use super::tunnel_sockets::RegistrationSocket;
use crate::kernel::KernelError;
use crate::kernel::socket::{Heard, Listener, Requests};

/// `RTNLGRP_LINK`.
const LINK_GROUP: u32 = 1;

/// Room for what happens while the loop does other things.
const RECEIVE_BUFFER: i32 = 1 << 20;

/// The MTU of Ethernet.
pub const DEFAULT_MTU: u16 = 1500;

/// What the kernel says of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Its index.
    pub index: u32,
    /// Its link-layer address.
    pub mac: MacAddress,
    /// Whether it is up and has carrier.
    pub up: bool,
    /// The longest packet that it carries, in bytes.
    pub mtu: u16,
    /// How often its carrier came or went: two changes between two messages are
    /// a link that was down meanwhile.
    pub changes: u32,
}

/// Hears what becomes of one interface.
pub struct LinkWatch {
    name: String,
    listener: Listener,
}

impl LinkWatch {
    /// Watches the interface of this name, which need not exist.
    ///
    /// # Errors
    /// When no netlink socket is to be had.
    pub fn new(name: &str) -> Result<Self, KernelError> {
        let listener = Listener::new(&[LINK_GROUP], RECEIVE_BUFFER)?;
        Ok(LinkWatch { name: name.to_owned(), listener })
    }

    /// For poll(2).
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.listener.readiness()
    }

    /// What the interface is now; `None` when there is none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn look(&self) -> Result<Option<LinkState>, KernelError> {
        let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let links = Requests::new()?.dump("listing links", all)?;
        Ok(links.into_iter().find_map(|object| match object {
            RouteNetlinkMessage::NewLink(link) => self.state_of(&link),
            _ => None,
        }))
    }

    /// What has become of it since; each entry is its state then.
    ///
    /// # Errors
    /// The socket's.
    pub fn changes(&mut self) -> Result<Vec<Option<LinkState>>, KernelError> {
        let mut changes = Vec::new();
        loop {
            match self.listener.next()? {
                Heard::Nothing => return Ok(changes),
                Heard::Overflow => changes.push(self.look()?),
                Heard::Messages(messages) => {
                    for message in messages {
                        match message.payload {
                            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                                changes.extend(self.state_of(&link).map(Some));
                            }
                            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
                                if self.state_of(&link).is_some() =>
                            {
                                changes.push(None);
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    fn state_of(&self, link: &LinkMessage) -> Option<LinkState> {
        let mut state = LinkState {
            index: link.header.index,
            mac: MacAddress::UNSPECIFIED,
            up: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            mtu: DEFAULT_MTU,
            changes: 0,
        };
        let mut ours = false;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => ours = *name == self.name,
                LinkAttribute::CarrierChanges(changes) => state.changes = *changes,
                LinkAttribute::Mtu(mtu) => state.mtu = u16::try_from(*mtu).unwrap_or(u16::MAX),
                LinkAttribute::Address(address) => {
                    if let Some(mac) = address.first_chunk() {
                        state.mac = MacAddress(*mac);
                    }
                }
                _ => {}
            }
        }
        ours.then_some(state)
    }
}

/// What is open on the interface while it exists.
pub struct Link {
    /// Its state.
    pub state: LinkState,
    /// Frames.
    pub packets: PacketSocket,
    /// Registration replies come here, and requests leave from its port; so do
    /// packets in a UDP tunnel.
    pub registration: RegistrationSocket,
    /// The DHCP client.
    pub dhcp: DhcpClient,
    /// Holds the DHCP client's port, so that the kernel answers nobody that it is
    /// unreachable. `None` when another client holds it.
    _dhcp_port: Option<OwnedFd>,
}

impl Link {
    /// Opens everything; requests leave from `port`, or from any that is free.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn open(name: &str, state: LinkState, port: u16, transaction: u32) -> Result<Self> {
        let packets = PacketSocket::open(state.index)
            .with_context(|| format!("opening a packet socket on {name}"))?;
        let registration = RegistrationSocket::open(name, port)
            .with_context(|| format!("opening the UDP port {port} on {name}"))?;
        let dhcp_port = sockets::udp(name, CLIENT_PORT).ok();
        let dhcp = DhcpClient::new(state.mac, transaction);
        Ok(Link { state, packets, registration, dhcp, _dhcp_port: dhcp_port })
    }
}
