//! The NAPT, requirement by requirement.
#![cfg(test)]

mod kit;
mod limits;
mod model;
mod rfc4787;
mod rfc5382;
mod rfc5508;
