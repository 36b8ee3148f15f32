//! The control plane of Homeport.

pub mod admin;
pub mod capture;
pub mod clock;
pub mod config;
pub mod control_core;
pub mod daemon;
pub mod event_loop;
pub mod events;
pub mod history;
pub mod inject;
pub mod install;
pub mod journal;
pub mod kernel;
pub mod mobile;
pub mod nat_log;
pub mod punted;
pub mod replay;
pub mod session_store;
