//! The control plane of Homeport.

pub mod kernel;
