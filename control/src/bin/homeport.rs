//! Homeport.
fn main() {}
