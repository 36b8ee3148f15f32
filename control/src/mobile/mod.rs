//! homeport-mn: the mobile node on a Linux host.
//!
//! [`program`] is the event loop around `homeport_proto::mobile_node`: it hears
//! the link and the kernel, and does what the state machine asks for.
//!
//! * [`forwarding`] says what the kernel must hold for an attachment, as values;
//!   [`host`] makes the kernel hold it, and leaves it as it was found.
//! * [`tunnel`] carries packets between the TUN and the tunnel in userspace;
//!   [`encapsulation`] puts headers on and takes them off, [`path_mtu`] remembers
//!   what the path carries.
//! * [`dhcp`] gets a co-located care-of address; [`dhcp_reply`] reads what a
//!   server says.
//! * [`dhcp_server`] makes a session of every device on a LAN that asks for an address;
//!   [`dhcp_request`] reads what a device says, [`presence`] finds out that it is gone.
//! * [`memory`] keeps the home address that the node was given, for when it is started anew.
//! * `sockets` are the sockets, `tunnel_sockets` those of the tunnel, `frame` what
//!   goes through them.
//!
//! Applications see one thing: the home address, on the TUN, always there.

pub mod bucket;
pub mod config;
mod counters;
pub mod deadlines;
pub mod dhcp;
mod dhcp_answer;
mod dhcp_format;
pub mod dhcp_reply;
pub mod dhcp_request;
pub mod dhcp_server;
pub mod encapsulation;
pub mod forwarding;
pub mod frame;
pub mod host;
pub mod lan;
pub mod link;
pub mod memory;
pub mod namespace;
pub mod path_mtu;
pub mod presence;
pub mod program;
pub mod report;
pub mod run;
pub mod sessions;
pub mod sockets;
pub mod tunnel;
pub mod tunnel_sockets;
pub mod veth;

pub use config::Config;
pub use program::run as serve;
