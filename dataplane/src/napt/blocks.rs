//! The external ports in blocks: who has which block, and what each port of it is
//! mapped to.
//!
//! A host is given a block of ports at a time, all on one external address, so
//! that a log line for each block given and taken back says for every port and
//! time whose it was (RFC 6888 REQ-12, RFC 7422). The number of a block names the
//! core that owns it: what comes back to a port belongs to that core's state.

use std::net::Ipv4Addr;

use super::bits::{self, Parity};
use super::clock::Tick;
use super::config::NaptConfig;
use super::emptiest::Emptiest;
use super::segment::{Endpoint, Transport};
use super::slab::{NONE, array};

/// How long a block stays with its host after its last mapping is gone (RFC 6888
/// REQ-8).
const LINGER: u32 = 120 * Tick::PER_SECOND;

/// How long a port rests between two mappings where nothing tells their packets
/// apart (RFC 6888 REQ-8).
const REST: u32 = 120 * Tick::PER_SECOND;

/// An external endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct External {
    pub(super) address: Ipv4Addr,
    /// The port or ICMP query identifier.
    pub(super) port: u16,
    /// The place of the address in the configuration.
    pub(super) place: u16,
}

impl External {
    #[inline(always)]
    pub(super) const fn endpoint(self) -> Endpoint {
        Endpoint { address: self.address, port: self.port }
    }
}

/// One block of ports.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// The host that has it.
    host: u32,
    /// The next block of the same host.
    next: u32,
    /// The place of its address, and its first port: whoever has it.
    place: u16,
    first_port: u16,
    /// Ports in use, by transport.
    used: [u16; Transport::COUNT],
    /// When its last mapping went.
    idle_since: Tick,
    /// When the first of its ports that rest has rested, whoever has it then.
    rested_at: Tick,
}

impl Block {
    const FREE: Block = Block {
        host: NONE,
        next: NONE,
        place: 0,
        first_port: 0,
        used: [0; Transport::COUNT],
        idle_since: Tick(0),
        rested_at: Tick::NEVER,
    };

    /// The block in other hands, or nobody's.
    const fn given(self, host: u32, next: u32) -> Block {
        let Block { place, first_port, rested_at, .. } = self;
        Block { host, next, place, first_port, rested_at, ..Block::FREE }
    }
}

/// A port of one transport.
#[derive(Clone, Copy, Debug)]
struct Port {
    mapping: u32,
    rests_until: Tick,
}

/// The blocks of one NAPT on one core.
pub(super) struct PortBlocks {
    addresses: Box<[Ipv4Addr]>,
    /// The addresses in order, each with its place.
    places: Box<[(Ipv4Addr, u16)]>,
    /// Whether each of them is the next of the one before: nothing is to be searched.
    in_a_row: bool,
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
    /// By transport and block, so many words each: its ports that neither are in use
    /// nor rest, as bits.
    free_ports: [Box<[u64]>; Transport::COUNT],
    words_per_block: usize,
    /// By address, so many words each: its blocks that this core can give, as bits.
    free_blocks: Box<[u64]>,
    words_per_address: usize,
    /// How many blocks this core can give, by address.
    free: Emptiest,
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
        let ports = || array(count * usize::from(block_size), || port);
        let cores = cores.max(1);
        let own = |block: &u32| block % cores == core;
        // Sets with nothing but what is free.
        let set = |numbers: &mut dyn Iterator<Item = u32>, words: usize| {
            let mut set = vec![0; words];
            numbers.for_each(|number| bits::set(&mut set, number as usize, true));
            set
        };
        let words_per_block = usize::from(block_size).div_ceil(bits::WORD);
        let free_ports = || {
            let block = set(&mut (0..u32::from(block_size)), words_per_block);
            block.repeat(count).into_boxed_slice()
        };
        let words_per_address = (blocks_per_address as usize).div_ceil(bits::WORD);
        let free_blocks = set(&mut (0..blocks_per_address).filter(own), words_per_address);
        let mut places: Vec<_> = addresses.iter().copied().zip(0..).collect();
        places.sort();
        places.dedup_by_key(|(address, _)| *address);
        let blocks = (0..addresses.len() as u32 * blocks_per_address).map(|at| {
            // Addresses are numbered with 16 bits, and so are ports.
            let (place, number) = (at / blocks_per_address, at % blocks_per_address);
            let offset = (number * u32::from(block_size)) as u16;
            let first_port = config.ports.start().wrapping_add(offset);
            Block { place: place as u16, first_port, ..Block::FREE }
        });
        PortBlocks {
            first_port: *config.ports.start(),
            block_size,
            blocks_per_address,
            core,
            cores,
            rests: config.filtering == super::Dependence::EndpointIndependent,
            blocks: blocks.collect(),
            ports: [ports(), ports(), ports()],
            free_ports: [free_ports(), free_ports(), free_ports()],
            words_per_block,
            free_blocks: free_blocks.repeat(addresses.len()).into_boxed_slice(),
            words_per_address,
            free: Emptiest::new(
                addresses.len(),
                (0..blocks_per_address).filter(own).count() as u32,
            ),
            in_a_row: places
                .array_windows()
                .all(|[(one, _), (next, _)]| one.to_bits().checked_add(1) == Some(next.to_bits())),
            places: places.into_boxed_slice(),
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
    pub(super) fn free_at(&self, place: u16) -> u32 {
        self.free.count(usize::from(place))
    }

    /// How many blocks of each address are kept for hosts that have none yet.
    pub(super) fn reserve(&self) -> u32 {
        self.blocks_per_address / self.cores / 4
    }

    /// The address with the most free blocks, if any has one. The first of equals, so
    /// that one address fills after the other's turn.
    pub(super) fn emptiest(&self) -> Option<u16> {
        u16::try_from(self.free.best()?).ok()
    }

    /// The place of an external address.
    #[inline]
    pub(super) fn place_of(&self, address: Ipv4Addr) -> Option<u16> {
        let at = if self.in_a_row {
            let (first, _) = self.places.first()?;
            address.to_bits().checked_sub(first.to_bits())? as usize
        } else {
            self.places.binary_search_by_key(&address, |(own, _)| *own).ok()?
        };
        self.places.get(at).map(|(_, place)| *place)
    }

    fn address(&self, place: u16) -> Option<Ipv4Addr> {
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

    /// Gives a free block of an address to a host, as the first of its list, which
    /// so far starts with `first`. The block's number.
    pub(super) fn give(&mut self, place: u16, host: u32, first: u32) -> Option<u32> {
        // From a random one on: who comes next cannot be told (RFC 7857 §9).
        let start = self.random_below(self.blocks_per_address) as usize;
        let address = usize::from(place);
        let number = bits::next(self.free_blocks_of(address)?, Parity::Any, start)?;
        let at = u32::from(place) * self.blocks_per_address + number as u32;
        let block = self.blocks.get_mut(at as usize)?;
        *block = block.given(host, first);
        bits::set(self.free_blocks_of(address)?, number, false);
        self.free.set(address, self.free.count(address).saturating_sub(1));
        Some(at)
    }

    /// Takes a block back that has been idle for long; the host that had it.
    pub(super) fn take_back(&mut self, at: u32, now: Tick) -> Option<u32> {
        let block = self.blocks.get_mut(at as usize)?;
        let idle = block.host != NONE && block.used == [0; Transport::COUNT];
        if !idle || now < block.idle_since.plus(LINGER) {
            return None;
        }
        let nobodys = block.given(NONE, NONE);
        let Block { host, .. } = std::mem::replace(block, nobodys);
        let address = at.checked_div(self.blocks_per_address)? as usize;
        let number = (at % self.blocks_per_address) as usize;
        if let Some(free) = self.free_blocks_of(address) {
            bits::set(free, number, true);
        }
        self.free.set(address, self.free.count(address) + 1);
        Some(host)
    }

    fn free_blocks_of(&mut self, address: usize) -> Option<&mut [u64]> {
        let words = self.words_per_address;
        self.free_blocks.get_mut(address * words..(address + 1) * words)
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
    /// port `wanted` if it is free. Who gets none has changed nothing, the next random
    /// number neither.
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
            let block = self.blocks.get(at.0);
            block.is_some_and(|block| block.host == host) && self.is_free(transport, *at, now)
        });
        let random = self.random;
        let found = wanted
            .or_else(|| self.find(first, transport, Parity::of(inside_port), now))
            .or_else(|| self.find(first, transport, Parity::Any, now));
        let Some((at, offset)) = found else {
            self.random = random;
            return None;
        };
        self.port_mut(transport, (at, offset))?.mapping = mapping;
        self.mark(transport, (at, offset), false);
        let block = self.blocks.get_mut(at)?;
        if let Some(used) = block.used.get_mut(transport as usize) {
            *used += 1;
        }
        let (place, port) = (block.place, block.first_port.wrapping_add(offset as u16));
        Some(External { address: self.address(place)?, port, place })
    }

    /// Ends the mapping at an external endpoint.
    pub(super) fn unmap(&mut self, transport: Transport, external: External, now: Tick) {
        let rest = self.rests && transport != Transport::Tcp;
        let Some(at) = self.index(external) else { return };
        let port = self.port_mut(transport, at);
        let Some(port) = port.filter(|port| port.mapping != NONE) else { return };
        let rests_until = if rest { now.plus(REST) } else { now };
        *port = Port { mapping: NONE, rests_until };
        if let Some(block) = self.blocks.get_mut(at.0) {
            if let Some(used) = block.used.get_mut(transport as usize) {
                *used = used.saturating_sub(1);
            }
            block.idle_since = now;
            if rest {
                block.rested_at = block.rested_at.min(rests_until);
            }
        }
        if !rest {
            self.mark(transport, at, true);
        }
    }

    /// The external address and the first port of a block.
    pub(super) fn name(&self, at: u32) -> (Ipv4Addr, u16) {
        let block = self.blocks.get(at as usize).unwrap_or(&Block::FREE);
        let address = self.address(block.place).unwrap_or(Ipv4Addr::UNSPECIFIED);
        (address, block.first_port)
    }

    /// How many block numbers there are, those of other cores included.
    pub(super) fn numbers(&self) -> usize {
        self.blocks.len()
    }

    /// How many ports a block has.
    pub(super) const fn block_size(&self) -> u16 {
        self.block_size
    }

    /// A free port in the blocks of a list, of this parity: from a random one on, as
    /// it must not be told in advance (RFC 6056).
    fn find(
        &mut self,
        first: u32,
        transport: Transport,
        parity: Parity,
        now: Tick,
    ) -> Option<(usize, usize)> {
        let start = self.random_below(u32::from(self.block_size)) as usize;
        let mut at = first;
        while let Some(Block { used, next, rested_at, .. }) = self.blocks.get(at as usize).copied()
        {
            let full = used.get(transport as usize).is_none_or(|used| *used >= self.block_size);
            if !full {
                if now >= rested_at {
                    self.wake(at, now);
                }
                let free = self.free_ports_of(transport, at as usize)?;
                if let Some(offset) = bits::next(free, parity, start) {
                    return Some((at as usize, offset));
                }
            }
            at = next;
        }
        None
    }

    /// Makes the ports of a block free that have rested.
    fn wake(&mut self, at: u32, now: Tick) {
        let size = usize::from(self.block_size);
        let range = at as usize * size..(at as usize + 1) * size;
        let mut rested_at = Tick::NEVER;
        for transport in [Transport::Udp, Transport::IcmpQuery] {
            let ports = self.ports.get(transport as usize).and_then(|all| all.get(range.clone()));
            let words = self.words_per_block;
            let free = self.free_ports.get_mut(transport as usize);
            let free = free.and_then(|all| all.get_mut(at as usize * words..));
            let (Some(ports), Some(free)) = (ports, free) else { continue };
            for (offset, port) in ports.iter().enumerate() {
                if port.mapping != NONE || bits::has(free, offset) {
                    continue;
                }
                if now >= port.rests_until {
                    bits::set(free, offset, true);
                } else {
                    rested_at = rested_at.min(port.rests_until);
                }
            }
        }
        if let Some(block) = self.blocks.get_mut(at as usize) {
            block.rested_at = rested_at;
        }
    }

    fn is_free(&self, transport: Transport, at: (usize, usize), now: Tick) -> bool {
        self.port(transport, at).is_some_and(|port| port.mapping == NONE && now >= port.rests_until)
    }

    /// Says whether a port is free.
    fn mark(&mut self, transport: Transport, (block, offset): (usize, usize), free: bool) {
        let words = self.words_per_block;
        let ports = self.free_ports.get_mut(transport as usize);
        if let Some(ports) = ports.and_then(|all| all.get_mut(block * words..)) {
            bits::set(ports, offset, free);
        }
    }

    fn free_ports_of(&self, transport: Transport, block: usize) -> Option<&[u64]> {
        let words = self.words_per_block;
        self.free_ports.get(transport as usize)?.get(block * words..(block + 1) * words)
    }

    fn port(&self, transport: Transport, (block, offset): (usize, usize)) -> Option<Port> {
        let at = block * usize::from(self.block_size) + offset;
        self.ports.get(transport as usize)?.get(at).copied()
    }

    fn port_mut(
        &mut self,
        transport: Transport,
        (block, offset): (usize, usize),
    ) -> Option<&mut Port> {
        let at = block * usize::from(self.block_size) + offset;
        self.ports.get_mut(transport as usize)?.get_mut(at)
    }

    /// The number of a port's block, counted from the first of its address.
    fn block_of(&self, port: u16) -> Option<u32> {
        Some(self.block_and_offset(port)?.0)
    }

    /// The same, and the port's place in it.
    #[inline]
    fn block_and_offset(&self, port: u16) -> Option<(u32, u32)> {
        let (offset, size) = (u32::from(port.checked_sub(self.first_port)?), self.block_size);
        let block = offset / u32::from(size);
        (block < self.blocks_per_address).then(|| (block, offset - block * u32::from(size)))
    }

    const fn owns(&self, number: u32) -> bool {
        number % self.cores == self.core
    }

    /// The number of a port's block, and the port's in it.
    fn index(&self, External { place, port, .. }: External) -> Option<(usize, usize)> {
        let (block, offset) = self.block_and_offset(port)?;
        let block = u32::from(place) * self.blocks_per_address + block;
        Some((block as usize, offset as usize))
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

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_wire::PortId;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Whether addresses follow each other or not, and whatever their order is.
        #[test]
        fn an_address_has_the_place_that_the_configuration_gives_it(
            first in prop_oneof![Just(0u32), Just(u32::MAX - 8), any::<u32>()],
            steps in proptest::collection::vec(prop_oneof![6 => Just(1u32), 1 => 0u32..4], 0..8),
            turn in 0usize..8,
            asked in 0u32..40,
        ) {
            let mut addresses = vec![first];
            for step in steps {
                addresses.push(addresses.last().unwrap().wrapping_add(step));
            }
            let turn = turn % addresses.len();
            addresses.rotate_left(turn);
            let mut model = BTreeMap::new();
            for (place, address) in addresses.iter().enumerate() {
                model.entry(*address).or_insert(place as u16);
            }
            let addresses = addresses.into_iter().map(Ipv4Addr::from_bits).collect();
            let config = NaptConfig::new("n", vec![PortId(1)], PortId(0), addresses);
            let blocks = PortBlocks::new(&config, 0, 1, 7);
            let asked = first.wrapping_sub(8).wrapping_add(asked);
            for address in model.keys().copied().chain([asked]) {
                let place = blocks.place_of(Ipv4Addr::from_bits(address));
                prop_assert_eq!(place, model.get(&address).copied());
            }
        }
    }
}
