//! What the control core knows, readable on the RX cores without waiting.
//!
//! Each table has one `Writer` and any number of `Reader`s. A reader's references
//! live until it says `quiescent`, at its burst
//! boundary; the borrow checker sees to it.

pub mod binding;
pub mod classes;
pub(crate) mod equal;
pub mod filter;
pub mod hash;
pub mod keyed;
pub mod local;
pub mod lpm;
pub mod memory;
pub mod neighbor;
pub(crate) mod prefetch;
pub mod qsbr;
pub mod route;
pub mod source_route;
pub mod visitor;

pub use hash::{Reader, TableFull, Writer, table};
pub use lpm::{RouteKey, RouteReader, RouteWriter, routes};
