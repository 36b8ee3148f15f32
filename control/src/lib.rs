//! The control plane of Homeport.

pub mod admin;
pub mod config;
pub mod kernel;
