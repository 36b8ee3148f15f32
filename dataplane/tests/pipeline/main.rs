//! The pipeline from end to end: real bytes into memory ports, every frame that
//! leaves looked at, every counter added up.

#[cfg(test)]
mod control;
#[cfg(test)]
mod cores;
#[cfg(test)]
mod fast;
#[cfg(test)]
mod foreign_agent;
#[cfg(test)]
mod fragments;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod home_agent;
#[cfg(test)]
mod links;
#[cfg(test)]
mod napt;
#[cfg(test)]
mod nat;
#[cfg(test)]
mod noise;
#[cfg(test)]
mod path_mtu;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod realms;
#[cfg(test)]
mod realms_napt;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod surge;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod tunnels;
#[cfg(test)]
mod walk;
