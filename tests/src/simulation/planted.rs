//! Bugs planted in the product, to see that they are found. They are there with the
//! feature `planted-bugs` only.

#[cfg(feature = "planted-bugs")]
use homeport_dataplane::planted as dataplane;
#[cfg(feature = "planted-bugs")]
use homeport_proto::planted as proto;

/// The names of all.
#[cfg(feature = "planted-bugs")]
pub fn names() -> Vec<&'static str> {
    let proto = proto::Bug::ALL.iter().map(|bug| bug.name());
    proto.chain(dataplane::Bug::ALL.iter().map(|bug| bug.name())).collect()
}

/// The names of all.
#[cfg(not(feature = "planted-bugs"))]
pub const fn names() -> Vec<&'static str> {
    Vec::new()
}

/// Selects one for the whole process, instead of any other.
///
/// # Errors
/// There is none of this name, in words.
pub fn plant(name: &str) -> Result<(), String> {
    if !names().contains(&name) {
        return Err(format!(
            "there is no planted bug `{name}`; there are, with the feature `planted-bugs`: {}",
            names().join(", ")
        ));
    }
    #[cfg(feature = "planted-bugs")]
    {
        proto::select(proto::Bug::ALL.iter().copied().find(|bug| bug.name() == name));
        dataplane::select(dataplane::Bug::ALL.iter().copied().find(|bug| bug.name() == name));
    }
    Ok(())
}
