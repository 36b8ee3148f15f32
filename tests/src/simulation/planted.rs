//! Bugs planted in the product, to see that they are found. They are there with the
//! feature `planted-bugs` only.

/// The names of all.
pub fn names() -> Vec<&'static str> {
    Vec::new()
}

/// Selects one.
///
/// # Errors
/// There is none of this name, in words.
pub fn plant(name: &str) -> Result<(), String> {
    Err(format!("no planted bug `{name}`"))
}
