//! A foreign agent's challenge on its way through the home agent (RFC 4721 §3.4).

use super::Asked;
use crate::message::Extension;

impl<'b> Asked<'_, 'b> {
    /// The challenge that goes back as it came. It stands behind the mobile-home
    /// authentication: in front of it, one is ours, or an answer to it.
    pub(super) fn foreign_challenge(&self) -> Option<Extension<'b>> {
        let authentication = self.received.mobile_home_authentication()?;
        let behind = |offset| offset > authentication.offset;
        self.received
            .extensions()
            .iter()
            .filter(|one| behind(one.offset))
            .map(|one| one.extension)
            .find(|extension| matches!(extension, Extension::Challenge(_)))
    }
}
