//! The external ports in blocks: who has which block, and what each port of it is
//! mapped to.
//!
//! A host is given a block of ports at a time, all on one external address, so
//! that a log line for each block given and taken back says for every port and
//! time whose it was (RFC 6888 REQ-12, RFC 7422). The number of a block names the
//! core that owns it: what comes back to a port belongs to that core's state.

use std::net::Ipv4Addr;

use super::Transport;
use super::clock::Tick;
use super::config::NaptConfig;
use super::slab::NONE;

/// How long a block stays with its host after its last mapping is gone (RFC 6888
/// REQ-8).
const LINGER: u32 = 120 * Tick::PER_SECOND;

/// How long a port rests between two mappings where nothing tells their packets
/// apart (RFC 6888 REQ-8).
const REST: u32 = 120 * Tick::PER_SECOND;

/// An external endpoint: the place of its address in the configuration, and its
/// port or ICMP query identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct External {
    pub(super) address: u16,
    pub(super) port: u16,
}

/// One block of ports.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// The host that has it.
    host: u32,
    /// The next block of the same host.
    next: u32,
    /// Ports in use, by transport.
    used: [u16; Transport::COUNT],
    /// When its last mapping went.
    idle_since: Tick,
}

const FREE: Block =
    Block { host: NONE, next: NONE, used: [0; Transport::COUNT], idle_since: Tick(0) };

/// A port of one transport.
#[derive(Clone, Copy, Debug)]
struct Port {
    mapping: u32,
    rests_until: Tick,
}

/// The blocks of one NAPT on one core.
pub(super) struct PortBlocks {
    addresses: Box<[Ipv4Addr]>,
    first_port: u16,
    block_size: u16,
    blocks_per_address: u32,
    core: u32,
    cores: u32,
    /// Whether a port of UDP or ICMP rests between two mappings.
    rests: bool,
    blocks: Box<[Block]>,
    /// By transport, address and port.
    ports: [Box<[Port]>; Transport::COUNT],
    /// Free blocks of this core, by address.
    free: Box<[u32]>,
    random: u64,
}

impl PortBlocks {
    pub(super) fn new(config: &NaptConfig, core: u32, cores: u32, seed: u64) -> Self {
        let block_size = config.block_size.max(2) & !1;
        let span = u32::from(*config.ports.end()) + 1;
        let span = span.saturating_sub(u32::from(*config.ports.start()));
        let blocks_per_address = span / u32::from(block_size);
        let addresses: Box<[Ipv4Addr]> = config.addresses.as_slice().into();
        let count = addresses.len() * blocks_per_address as usize;
        let port = Port { mapping: NONE, rests_until: Tick(0) };
        let ports = || vec![port; count * usize::from(block_size)].into_boxed_slice();
        let cores = cores.max(1);
        let own = (0..blocks_per_address).filter(|block| block % cores == core).count() as u32;
        PortBlocks {
            first_port: *config.ports.start(),
            block_size,
            blocks_per_address,
            core,
            cores,
            rests: config.filtering == super::Dependence::EndpointIndependent,
            blocks: vec![FREE; count].into_boxed_slice(),
            ports: [ports(), ports(), ports()],
            free: vec![own; addresses.len()].into_boxed_slice(),
            addresses,
            random: seed | 1,
        }
    }

    /// How many blocks this core has.
    pub(super) fn capacity(&self) -> usize {
        let own = (0..self.blocks_per_address).filter(|block| self.owns(*block)).count();
        own * self.addresses.len()
    }

    /// How many blocks of an address are free.
    pub(super) fn free_at(&self, address: u16) -> u32 {
        self.free.get(usize::from(address)).copied().unwrap_or_default()
    }

    /// How many blocks of each address are kept for hosts that have none yet.
    pub(super) fn reserve(&self) -> u32 {
        self.blocks_per_address / self.cores / 4
    }

    /// The address with the most free blocks, if any has one.
    pub(super) fn emptiest(&self) -> Option<u16> {
        let addresses = self.free.iter().enumerate().filter(|(_, free)| **free > 0);
        // The first of equals, so that one address fills after the other's turn.
        let best = addresses.max_by_key(|(at, free)| (**free, std::cmp::Reverse(*at)));
        best.and_then(|(at, _)| u16::try_from(at).ok())
    }

    /// The place of an external address.
    pub(super) fn place_of(&self, address: Ipv4Addr) -> Option<u16> {
        let at = self.addresses.iter().position(|own| *own == address)?;
        u16::try_from(at).ok()
    }

    pub(super) fn address(&self, place: u16) -> Option<Ipv4Addr> {
        self.addresses.get(usize::from(place)).copied()
    }

    /// Whether a port is one of the NAPT's.
    pub(super) fn contains(&self, port: u16) -> bool {
        self.block_of(port).is_some()
    }

    /// The core that owns a port: its block's number modulo the number of cores.
    pub(super) fn owner(&self, port: u16) -> Option<u32> {
        Some(self.block_of(port)? % self.cores)
    }

    /// The mapping at an external endpoint.
    pub(super) fn mapping(&self, transport: Transport, external: External) -> Option<u32> {
        let port = self.port(transport, self.index(external)?)?;
        (port.mapping != NONE).then_some(port.mapping)
    }

    /// Gives a free block of `address` to a host, as the first of its list, which
    /// so far starts with `first`. The block's number, and its first port.
    pub(super) fn give(&mut self, address: u16, host: u32, first: u32) -> Option<(u32, u16)> {
        let count = self.blocks_per_address;
        // From a random one on: who comes next cannot be told (RFC 7857 §9).
        let start = self.random_below(count);
        let base = u32::from(address) * count;
        let number = (0..count).map(|step| (start + step) % count).find(|number| {
            let block = self.blocks.get((base + number) as usize);
            self.owns(*number) && block.is_some_and(|block| block.host == NONE)
        })?;
        let at = base + number;
        *self.blocks.get_mut(at as usize)? = Block { host, next: first, ..FREE };
        if let Some(free) = self.free.get_mut(usize::from(address)) {
            *free = free.saturating_sub(1);
        }
        Some((at, self.first_port_of(at)))
    }

    /// Takes a block back that has been idle for long; the host that had it.
    pub(super) fn take_back(&mut self, at: u32, now: Tick) -> Option<u32> {
        let block = self.blocks.get_mut(at as usize)?;
        let idle = block.host != NONE && block.used == [0; Transport::COUNT];
        if !idle || now < block.idle_since.plus(LINGER) {
            return None;
        }
        let Block { host, .. } = std::mem::replace(block, FREE);
        let address = at / self.blocks_per_address;
        if let Some(free) = self.free.get_mut(address as usize) {
            *free += 1;
        }
        Some(host)
    }

    /// The block behind `at` in its host's list.
    pub(super) fn next(&self, at: u32) -> u32 {
        self.blocks.get(at as usize).map_or(NONE, |block| block.next)
    }

    /// Links `at` to another next block.
    pub(super) fn set_next(&mut self, at: u32, next: u32) {
        if let Some(block) = self.blocks.get_mut(at as usize) {
            block.next = next;
        }
    }

    /// Maps a free port of the host's blocks, the list of which starts at `first`.
    /// Of the parity of `inside_port` while there is one (RFC 4787 REQ-4); the very
    /// port `wanted` if it is free.
    pub(super) fn map(
        &mut self,
        first: u32,
        transport: Transport,
        inside_port: u16,
        wanted: Option<External>,
        mapping: u32,
        now: Tick,
    ) -> Option<External> {
        let host = self.blocks.get(first as usize)?.host;
        let wanted = wanted.and_then(|external| self.index(external)).filter(|at| {
            let block = self.blocks.get(at / usize::from(self.block_size));
            block.is_some_and(|block| block.host == host) && self.is_free(transport, *at, now)
        });
        let at = wanted
            .or_else(|| self.find(first, transport, Some(inside_port & 1), now))
            .or_else(|| self.find(first, transport, None, now))?;
        self.ports.get_mut(transport as usize)?.get_mut(at)?.mapping = mapping;
        let block = self.blocks.get_mut(at / usize::from(self.block_size))?;
        if let Some(used) = block.used.get_mut(transport as usize) {
            *used += 1;
        }
        Some(self.external(at))
    }

    /// Ends the mapping at an external endpoint.
    pub(super) fn unmap(&mut self, transport: Transport, external: External, now: Tick) {
        let rest = self.rests && transport != Transport::Tcp;
        let Some(at) = self.index(external) else { return };
        let port = self.ports.get_mut(transport as usize).and_then(|ports| ports.get_mut(at));
        let Some(port) = port.filter(|port| port.mapping != NONE) else { return };
        *port = Port { mapping: NONE, rests_until: if rest { now.plus(REST) } else { now } };
        if let Some(block) = self.blocks.get_mut(at / usize::from(self.block_size)) {
            if let Some(used) = block.used.get_mut(transport as usize) {
                *used = used.saturating_sub(1);
            }
            block.idle_since = now;
        }
    }

    /// The external address and the first port of a block.
    pub(super) fn name(&self, at: u32) -> (Ipv4Addr, u16) {
        let place = at.checked_div(self.blocks_per_address).unwrap_or_default();
        let address = self.addresses.get(place as usize).copied();
        (address.unwrap_or(Ipv4Addr::UNSPECIFIED), self.first_port_of(at))
    }

    /// How many block numbers there are, those of other cores included.
    pub(super) fn numbers(&self) -> usize {
        self.blocks.len()
    }

    /// How many ports a block has.
    pub(super) const fn block_size(&self) -> u16 {
        self.block_size
    }

    /// A free port in the blocks of a list, of this parity.
    fn find(
        &mut self,
        first: u32,
        transport: Transport,
        parity: Option<u16>,
        now: Tick,
    ) -> Option<usize> {
        let size = usize::from(self.block_size);
        let start = self.random_below(u32::from(self.block_size)) as usize;
        let start = parity.map_or(start, |parity| start & !1 | usize::from(parity));
        let step = 1 + usize::from(parity.is_some());
        let mut block = first;
        while let Some(Block { used, next, .. }) = self.blocks.get(block as usize) {
            let full = used.get(transport as usize).is_none_or(|used| *used >= self.block_size);
            let base = block as usize * size;
            let free = (0..size)
                .step_by(step)
                .map(|offset| base + (start + offset) % size)
                .find(|at| !full && self.is_free(transport, *at, now));
            if free.is_some() {
                return free;
            }
            block = *next;
        }
        None
    }

    fn is_free(&self, transport: Transport, at: usize, now: Tick) -> bool {
        self.port(transport, at).is_some_and(|port| port.mapping == NONE && now >= port.rests_until)
    }

    fn port(&self, transport: Transport, at: usize) -> Option<Port> {
        self.ports.get(transport as usize)?.get(at).copied()
    }

    /// The number of a port's block, counted from the first of its address.
    fn block_of(&self, port: u16) -> Option<u32> {
        let offset = u32::from(port.checked_sub(self.first_port)?);
        let block = offset / u32::from(self.block_size);
        (block < self.blocks_per_address).then_some(block)
    }

    fn first_port_of(&self, at: u32) -> u16 {
        let number = at.checked_rem(self.blocks_per_address).unwrap_or_default();
        // Within the range of ports, which has 16 bits.
        self.first_port.wrapping_add((number * u32::from(self.block_size)) as u16)
    }

    const fn owns(&self, number: u32) -> bool {
        number % self.cores == self.core
    }

    fn index(&self, External { address, port }: External) -> Option<usize> {
        let block = u32::from(address) * self.blocks_per_address + self.block_of(port)?;
        let offset = (port - self.first_port) % self.block_size;
        Some(block as usize * usize::from(self.block_size) + usize::from(offset))
    }

    fn external(&self, at: usize) -> External {
        let size = usize::from(self.block_size);
        let block = (at / size) as u32;
        // Addresses are numbered with 16 bits, and so are ports.
        let address = (block / self.blocks_per_address) as u16;
        External { address, port: self.first_port_of(block) + (at % size) as u16 }
    }

    /// A number below `limit` that is hard to guess (xorshift64*, secretly seeded).
    fn random_below(&mut self, limit: u32) -> u32 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let high = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((high * u64::from(limit)) >> 32) as u32
    }
}
