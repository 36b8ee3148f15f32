//! Mobile IP messages as values: what the control plane reasons about.
//!
//! A [`Message`] is parsed from the payload of a UDP datagram; its extensions
//! keep their place in the bytes, because authenticators cover everything in
//! front of them. [`MessageWriter`] emits a message in the order in which its
//! parts are added, which is the order that authentication needs.
//!
//! Parsing is bounded ([`MAX_MESSAGE_LEN`], [`MAX_EXTENSIONS`]) and never panics.
//!
//! Tunnel data (RFC 3519 §3.3) is not a message in this sense: the dataplane reads
//! and writes it.

pub mod advertisement;
pub mod dynamic_home_agent;
pub mod extension;
pub mod message_string;
pub mod mobile_network;
pub mod registration;
pub mod revocation;
pub mod session;
pub mod udp_tunnel;

use alloc::vec::Vec;
use core::fmt;

pub use advertisement::{AgentAdvertisement, AgentSolicitation, MobilityAgent};
pub use dynamic_home_agent::{DynamicHomeAgent, DynamicHomeAgentFraming, DynamicHomeAgentKind};
pub(crate) use extension::glimpse_signature;
pub use extension::{AuthenticationKind, Extension, Located};
pub use message_string::{MessageString, TextOrigin};
pub use mobile_network::{
    MobileNetworkAcknowledgement, MobileNetworkCode, MobileNetworkMode, MobileNetworkRequest,
};
pub use registration::{
    Identification, RegistrationReply, RegistrationRequest, ReplyCode, RequestFlags,
};
pub use revocation::{RegistrationRevocation, RevocationAcknowledgement, RevocationSupport};
pub use session::{NameDefect, Named, SessionCarriage, SessionName};
pub use udp_tunnel::{UdpTunnelReply, UdpTunnelRequest};

use crate::security::{Authenticator, MobilitySecurityAssociation};
use extension::{ExtensionError, Extensions};

/// The longest message that is looked at, in bytes.
pub const MAX_MESSAGE_LEN: usize = 1024;

/// The most extensions in a message.
pub const MAX_EXTENSIONS: usize = 32;

/// Room for a fixed part, two authentications of 16 bytes and the names of a session, which
/// most messages fit.
const USUAL_LEN: usize = 128;

/// Why bytes are no message at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// It ends inside the fixed part.
    Truncated,
    /// It is longer than [`MAX_MESSAGE_LEN`].
    TooLong,
    /// Its type is none of those of [`Message`].
    UnknownType(u8),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::Truncated => f.write_str("ends inside the fixed part of the message"),
            MessageError::TooLong => write!(f, "longer than {MAX_MESSAGE_LEN} bytes"),
            MessageError::UnknownType(number) => write!(f, "message type {number} is not served"),
        }
    }
}

impl core::error::Error for MessageError {}

/// A message as it came, with its extensions in their places.
#[derive(Clone, Debug)]
pub struct Received<'a, T> {
    /// The fixed part.
    pub body: T,
    bytes: &'a [u8],
    extensions: Extensions<'a>,
    defect: Option<ExtensionError>,
}

impl<'a, T> Received<'a, T> {
    fn new(body: T, bytes: &'a [u8], fixed_len: usize) -> Self {
        let (extensions, defect) = extension::parse_all(bytes, fixed_len);
        Received { body, bytes, extensions, defect }
    }

    /// The whole message.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The extensions in front of the first defect, in order.
    pub fn extensions(&self) -> &[Located<'a>] {
        &self.extensions
    }

    /// What is wrong behind the extensions that could be read. With
    /// [`ExtensionError::Unknown`] the message must be discarded in silence
    /// (RFC 5944 §1.8).
    pub const fn defect(&self) -> Option<ExtensionError> {
        self.defect
    }

    /// The authentications of one kind, in order.
    pub fn authentications(&self, kind: AuthenticationKind) -> impl Iterator<Item = &Located<'a>> {
        self.extensions
            .iter()
            .filter(move |located| located.extension.authentication_kind() == Some(kind))
    }

    /// The first mobile-home authentication: what stands behind it concerns the
    /// foreign agent only (RFC 5944 §3.6.1.3).
    pub fn mobile_home_authentication(&self) -> Option<&Located<'a>> {
        self.authentications(AuthenticationKind::MobileHome).next()
    }

    /// What an authenticator covers: the message from its type to the SPI of
    /// that extension (RFC 5944 §3.5.1). Empty when it is no authentication.
    pub fn covered_by(&self, authentication: &Located<'a>) -> &'a [u8] {
        let end = authentication.authenticator_offset();
        end.and_then(|end| self.bytes.get(..end)).unwrap_or_default()
    }

    /// Whether an authentication of this message is right under `association`.
    pub fn verify(
        &self,
        authentication: &Located<'a>,
        association: &MobilitySecurityAssociation,
    ) -> bool {
        self.verify_by(authentication, association, |covered| association.authenticator(covered))
    }

    /// The same; `right` gives the authenticator that is right over what it covers.
    pub(crate) fn verify_by(
        &self,
        authentication: &Located<'a>,
        association: &MobilitySecurityAssociation,
        right: impl FnOnce(&[u8]) -> Authenticator,
    ) -> bool {
        match authentication.extension {
            Extension::Authentication { spi, authenticator, .. } => {
                spi == association.spi && right(self.covered_by(authentication)).is(authenticator)
            }
            _ => false,
        }
    }
}

/// A message of UDP port 434.
#[derive(Clone, Debug)]
pub enum Message<'a> {
    /// Type 1 (RFC 5944 §3.3).
    Request(Received<'a, RegistrationRequest>),
    /// Type 3 (RFC 5944 §3.4).
    Reply(Received<'a, RegistrationReply>),
    /// Type 7 (RFC 3543 §3.3).
    Revocation(Received<'a, RegistrationRevocation>),
    /// Type 15 (RFC 3543 §3.4).
    Acknowledgement(Received<'a, RevocationAcknowledgement>),
}

impl<'a> Message<'a> {
    /// The message in the payload of a UDP datagram.
    ///
    /// # Errors
    /// [`MessageError`] when it is not even a fixed part. A fault in the
    /// extensions is the message's [`defect`](Received::defect).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        if bytes.len() > MAX_MESSAGE_LEN {
            return Err(MessageError::TooLong);
        }
        match bytes.first() {
            Some(&RegistrationRequest::TYPE) => {
                let body = RegistrationRequest::parse(bytes)?;
                Ok(Message::Request(Received::new(body, bytes, RegistrationRequest::LEN)))
            }
            Some(&RegistrationReply::TYPE) => {
                let body = RegistrationReply::parse(bytes)?;
                Ok(Message::Reply(Received::new(body, bytes, RegistrationReply::LEN)))
            }
            Some(&RegistrationRevocation::TYPE) => {
                let body = RegistrationRevocation::parse(bytes)?;
                Ok(Message::Revocation(Received::new(body, bytes, RegistrationRevocation::LEN)))
            }
            Some(&RevocationAcknowledgement::TYPE) => {
                let body = RevocationAcknowledgement::parse(bytes)?;
                let received = Received::new(body, bytes, RevocationAcknowledgement::LEN);
                Ok(Message::Acknowledgement(received))
            }
            Some(&other) => Err(MessageError::UnknownType(other)),
            None => Err(MessageError::Truncated),
        }
    }
}

/// An extension's data does not fit its length field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionTooLong;

impl fmt::Display for ExtensionTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the extension's data is longer than its length field can say")
    }
}

impl core::error::Error for ExtensionTooLong {}

/// Emits a message part by part.
#[derive(Clone, Debug)]
pub struct MessageWriter {
    bytes: Vec<u8>,
}

impl MessageWriter {
    /// Starts with a request's fixed part.
    pub fn request(request: &RegistrationRequest) -> Self {
        MessageWriter::starting_with(&request.emit())
    }

    /// Starts with a reply's fixed part.
    pub fn reply(reply: &RegistrationReply) -> Self {
        MessageWriter::starting_with(&reply.emit())
    }

    /// Starts with a revocation's fixed part.
    pub fn revocation(revocation: &RegistrationRevocation) -> Self {
        MessageWriter::starting_with(&revocation.emit())
    }

    /// Starts with an acknowledgement's fixed part.
    pub fn acknowledgement(acknowledgement: &RevocationAcknowledgement) -> Self {
        MessageWriter::starting_with(&acknowledgement.emit())
    }

    fn starting_with(fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(USUAL_LEN);
        bytes.extend_from_slice(fixed);
        MessageWriter { bytes }
    }

    /// Starts with bytes that are relayed as they came.
    pub fn relay(bytes: &[u8]) -> Self {
        MessageWriter { bytes: bytes.to_vec() }
    }

    /// Adds an extension.
    ///
    /// # Errors
    /// [`ExtensionTooLong`]; nothing was added.
    pub fn extension(&mut self, extension: &Extension<'_>) -> Result<&mut Self, ExtensionTooLong> {
        extension.emit(&mut self.bytes)?;
        Ok(self)
    }

    /// Adds an authentication extension over all that was added so far.
    pub fn authenticate(
        &mut self,
        kind: AuthenticationKind,
        association: &MobilitySecurityAssociation,
    ) -> &mut Self {
        self.authenticate_by(kind, association, |covered| association.authenticator(covered));
        self
    }

    /// Bytes of what was added so far.
    #[expect(clippy::len_without_is_empty, reason = "it begins with a fixed part")]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The same, with the authenticator that `compute` gives for what it covers.
    pub(crate) fn authenticate_by(
        &mut self,
        kind: AuthenticationKind,
        association: &MobilitySecurityAssociation,
        compute: impl FnOnce(&[u8]) -> Authenticator,
    ) {
        extension::emit_authentication(&mut self.bytes, kind, association, compute);
    }

    /// Adds an authentication extension whose authenticator is still to be computed; where
    /// in the message it goes.
    pub(crate) fn leave_blank(
        &mut self,
        kind: AuthenticationKind,
        association: &MobilitySecurityAssociation,
    ) -> usize {
        let blank = Authenticator::zeros(association.algorithm.authenticator_len());
        self.authenticate_by(kind, association, |_| blank);
        self.len() - blank.as_bytes().len()
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
