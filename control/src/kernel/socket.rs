//! Rtnetlink sockets: one that asks and waits for the answer, one that listens.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::KernelError;

/// The kernel's datagrams are at most 32 KiB; what is longer is truncated and
/// counts as lost.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// The kernel answers a request while it is being sent; this only bounds the wait
/// for an answer that never comes.
const ANSWER_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A dump that changed underneath is repeated this often, then taken as it is:
/// the deltas mend it.
const DUMP_ATTEMPTS: u32 = 4;

/// Bytes of a netlink message header (`struct nlmsghdr`).
const HEADER: usize = 16;

/// A socket for requests, each answered before the next.
pub(crate) struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    pub(crate) fn new() -> Result<Self, KernelError> {
        let socket = open(0).map_err(KernelError::io("opening a netlink socket"))?;
        Ok(Requests { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    /// Sends a request and waits for the kernel's acknowledgement.
    pub(crate) fn request(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), KernelError> {
        let sequence = self.send(what, message, flags | NLM_F_ACK)?;
        loop {
            for answer in self.receive(what)? {
                if answer.header.sequence_number == sequence
                    && let NetlinkPayload::Error(error) = answer.payload
                {
                    return match error.code {
                        None => Ok(()),
                        Some(_) => Err(KernelError::io(what)(error.to_io())),
                    };
                }
            }
        }
    }

    /// Asks for all objects of a kind. A dump during which the table changed is
    /// begun anew.
    pub(crate) fn dump(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (objects, interrupted) = self.dump_once(what, message.clone())?;
            if !interrupted || attempt == DUMP_ATTEMPTS {
                return Ok(objects);
            }
        }
    }

    fn dump_once(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), KernelError> {
        let sequence = self.send(what, message, NLM_F_DUMP)?;
        let (mut objects, mut interrupted) = (Vec::new(), false);
        loop {
            for answer in self.receive(what)? {
                if answer.header.sequence_number != sequence {
                    continue;
                }
                interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(object) => objects.push(object),
                    NetlinkPayload::Done(_) => return Ok((objects, interrupted)),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(KernelError::io(what)(error.to_io()));
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<u32, KernelError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(KernelError::io(what))?;
        Ok(self.sequence)
    }

    fn receive(
        &mut self,
        what: &str,
    ) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, KernelError> {
        loop {
            match receive(&self.socket, &mut self.buffer) {
                Ok(messages) => return Ok(messages),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
                    let ready = poll(&mut fds, Some(&ANSWER_TIMEOUT))
                        .map_err(|errno| KernelError::io(what)(errno.into()))?;
                    if ready == 0 {
                        return Err(KernelError::io(what)(Errno::TIMEDOUT.into()));
                    }
                }
                Err(error) => return Err(KernelError::io(what)(error)),
            }
        }
    }
}

/// A socket that hears what changes.
pub(crate) struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What a [`Listener`] heard.
pub(crate) enum Heard {
    /// Changes, in order.
    Messages(Vec<NetlinkMessage<RouteNetlinkMessage>>),
    /// Nothing is waiting.
    Nothing,
    /// The kernel had no room for what happened (ENOBUFS): only a dump tells.
    Overflow,
}

impl Listener {
    /// Subscribes to these groups (`RTNLGRP_*`).
    pub(crate) fn new(groups: &[u32], receive_buffer: i32) -> Result<Self, KernelError> {
        let mask = groups.iter().fold(0u32, |mask, group| mask | 1 << (group - 1));
        let socket =
            open(mask).map_err(KernelError::io("subscribing to the kernel's route changes"))?;
        // A smaller buffer than asked for costs resyncs, not correctness.
        let _ = socket.set_rx_buf_sz(receive_buffer);
        Ok(Listener { socket, buffer: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    pub(crate) fn readiness(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next datagram, without waiting.
    pub(crate) fn next(&mut self) -> Result<Heard, KernelError> {
        match receive(&self.socket, &mut self.buffer) {
            Ok(messages) => Ok(Heard::Messages(messages)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                Ok(Heard::Overflow)
            }
            Err(error) => Err(KernelError::io("listening to the kernel's route changes")(error)),
        }
    }
}

fn open(groups: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, groups))?;
    socket.set_non_blocking(true)?;
    // Of an error, only the code is wanted, not the request again.
    let _ = socket.set_cap_ack(true);
    Ok(socket)
}

/// One datagram of the kernel, cut into messages. What does not parse is left
/// out: a kernel newer than the parser must not stop the rest.
fn receive(
    socket: &Socket,
    buffer: &mut Vec<u8>,
) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    buffer.clear();
    let (length, sender) = socket.recv_from(buffer, 0)?;
    if sender.port_number() != 0 {
        // Another process wrote to our socket: only the kernel is believed.
        return Ok(Vec::new());
    }
    let mut messages = Vec::new();
    let mut rest = buffer.get(..length.min(buffer.len())).unwrap_or_default();
    while let Some(length) = message_length(rest) {
        let (message, _) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        match NetlinkMessage::deserialize(message) {
            Ok(message) => messages.push(message),
            Err(error) => tracing::debug!(%error, "netlink message not understood"),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

/// The length that the message at the start of `bytes` claims, if it fits.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    (HEADER..=bytes.len()).contains(&length).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_length_ends_the_datagram() {
        assert_eq!(message_length(&[]), None);
        assert_eq!(message_length(&[16, 0, 0]), None);
        let mut bytes = [0; 20];
        for (length, expected) in
            [(0u32, None), (15, None), (16, Some(16)), (20, Some(20)), (21, None)]
        {
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(message_length(&bytes), expected, "{length}");
        }
    }
}
