//! The pipeline from end to end: real bytes into memory ports, every frame that
//! leaves looked at, every counter added up.

#[cfg(test)]
mod harness;
#[cfg(test)]
mod walk;
