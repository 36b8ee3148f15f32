//! The control plane of Homeport.

pub mod admin;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod event_loop;
pub mod events;
pub mod history;
pub mod inject;
pub mod install;
pub mod kernel;
pub mod mobile;
pub mod nat_log;
pub mod punted;
