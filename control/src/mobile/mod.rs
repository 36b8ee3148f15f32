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
//! * `sockets` are the sockets, `tunnel_sockets` those of the tunnel, `frame` what
//!   goes through them.
//!
//! Applications see one thing: the home address, on the TUN, always there.

pub mod config;
pub mod dhcp;
pub mod dhcp_reply;
pub mod encapsulation;
pub mod forwarding;
pub mod frame;
pub mod host;
pub mod link;
pub mod path_mtu;
pub mod program;
pub mod report;
pub mod sockets;
pub mod tunnel;
pub mod tunnel_sockets;

pub use config::Config;
pub use program::run;
