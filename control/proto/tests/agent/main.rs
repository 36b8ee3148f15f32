//! Agents driven by real bytes: what goes in by `handle_datagram` and the other
//! inputs, and what comes out as actions.
#![allow(missing_docs, reason = "the names of the tests say it")]

#[cfg(test)]
mod advertiser;
#[cfg(test)]
mod answerers;
#[cfg(test)]
mod assignment;
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod challenges;
#[cfg(test)]
mod config;
#[cfg(test)]
mod decisions;
#[cfg(test)]
mod decisions_of_agents;
#[cfg(test)]
mod draws;
#[cfg(test)]
mod foreign_agent;
#[cfg(test)]
mod foreign_tunnels;
#[cfg(test)]
mod foresight;
#[cfg(test)]
mod home_agent;
#[cfg(test)]
mod message_strings;
#[cfg(test)]
mod mobile_networks;
#[cfg(test)]
mod named_challenges;
#[cfg(test)]
mod named_visitors;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod realms;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tunnels;
