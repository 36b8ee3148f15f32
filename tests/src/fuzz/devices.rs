//! The DHCP server for devices, message by message, with a home agent that gives each
//! address to one session: whatever devices say, no address is two devices', no session
//! begins twice or ends that did not begin, and all end in the end.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use homeport_control::mobile::config::SubNaiRule;
use homeport_control::mobile::dhcp_server::{DhcpServer, Output, ServerConfig, SessionWish};
use homeport_proto::config::Prefix;
use homeport_proto::{Instant, MacAddress};

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const MAX_DEVICES: usize = 3;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Where the options of a message begin.
const OPTIONS: usize = 240;
const OFFER: u8 = 2;
const ACK: u8 = 5;

/// One of a few addresses, not all of which can be a device's.
const fn address(number: u8) -> Ipv4Addr {
    match number % 10 {
        0 => Ipv4Addr::UNSPECIFIED,
        1 => ROUTER,
        2 => Ipv4Addr::new(10, 2, 0, 1),
        3 => Ipv4Addr::new(10, 1, 0, 255),
        other => Ipv4Addr::new(10, 1, 0, 100 + other),
    }
}

const fn mac(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number % 5])
}

/// A session that has begun.
struct Session {
    mac: MacAddress,
    /// What the home agent has given it.
    given: Option<Ipv4Addr>,
}

struct Lan {
    server: DhcpServer,
    now: Instant,
    sessions: BTreeMap<Arc<[u8]>, Session>,
    /// Who was told that an address is its own.
    told: BTreeMap<Ipv4Addr, MacAddress>,
}

impl Lan {
    fn new(rule: u8) -> Self {
        let rule = match rule % 3 {
            0 => SubNaiRule::ClientId,
            1 => SubNaiRule::HostName,
            _ => SubNaiRule::Mac,
        };
        let config = ServerConfig {
            router: ROUTER,
            prefix: Prefix::new(ROUTER, 24).unwrap_or(Prefix::ALL),
            rule,
            lease: Duration::from_secs(30),
            max_devices: MAX_DEVICES,
            name_servers: vec![ROUTER],
        };
        let (sessions, told) = (BTreeMap::new(), BTreeMap::new());
        Lan { server: DhcpServer::new(config), now: Instant(1_000_000_000), sessions, told }
    }

    /// What the server asks for. `from`: whose message it has just heard.
    fn judge(&mut self, from: Option<MacAddress>) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Session(SessionWish::Start { sub_nai, .. }) => {
                    assert!((1..=247).contains(&sub_nai.len()));
                    let mac = from.unwrap_or_else(|| panic!("nobody has asked for {sub_nai:?}"));
                    let before = self.sessions.insert(sub_nai, Session { mac, given: None });
                    assert!(before.is_none(), "it has begun already");
                }
                Output::Session(SessionWish::End { sub_nai }) => {
                    let ended = self.sessions.remove(&sub_nai);
                    let ended = ended.unwrap_or_else(|| panic!("{sub_nai:?} never began"));
                    self.told.retain(|_, mac| *mac != ended.mac);
                }
                Output::Send { payload, .. } => self.judge_reply(&payload),
            }
        }
        assert!(self.sessions.len() <= MAX_DEVICES);
        for (name, session) in &self.sessions {
            let lease = self.server.lease(name);
            assert_eq!(lease.map(|lease| lease.mac), Some(session.mac));
        }
    }

    fn judge_reply(&mut self, payload: &[u8]) {
        let kind = option(payload, 53).and_then(|kind| kind.first().copied());
        let yours = payload.get(16..20).and_then(|yours| <[u8; 4]>::try_from(yours).ok());
        let client = payload.get(28..34).and_then(|mac| <[u8; 6]>::try_from(mac).ok());
        let (Some(kind), Some(yours), Some(client)) = (kind, yours, client) else {
            panic!("no reply: {payload:?}");
        };
        let (yours, client) = (Ipv4Addr::from(yours), MacAddress(client));
        if !matches!(kind, OFFER | ACK) || yours.is_unspecified() {
            return;
        }
        // Neither the router, nor the network itself, nor all of it, nor somewhere else.
        assert!(yours.octets()[..3] == ROUTER.octets()[..3] && yours != ROUTER, "{yours}");
        assert!((1..255).contains(&yours.octets()[3]), "{yours}");
        let session = self.sessions.values().find(|one| one.mac == client);
        assert_eq!(session.and_then(|one| one.given), Some(yours), "it is not its session's");
        let before = self.told.insert(yours, client);
        assert!(before.is_none_or(|before| before == client), "{yours} is {before:?}'s");
    }

    /// The name of one of the sessions.
    fn name(&self, which: u8) -> Option<Arc<[u8]>> {
        self.sessions.keys().nth(usize::from(which) % self.sessions.len().max(1)).cloned()
    }

    /// A message of a device, as its options are drawn.
    fn message(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let [from, kind, current, flags, options] = bytes.arbitrary::<[u8; 5]>()?;
        let from = mac(from);
        let mut message = vec![0; OPTIONS];
        message[..3].copy_from_slice(&[1, 1, 6]);
        message[10] = flags & 0x80;
        message[12..16].copy_from_slice(&address(current).octets());
        let client = if flags & 7 == 7 { mac(current) } else { from };
        message[28..34].copy_from_slice(&client.0);
        message[236..].copy_from_slice(&COOKIE);
        // Mostly what begins a session.
        const KINDS: [u8; 12] = [1, 1, 1, 3, 3, 3, 4, 7, 8, 0, 2, 5];
        message.extend([53, 1, KINDS[usize::from(kind) % KINDS.len()]]);
        if options & 1 == 1 {
            let wanted = address(bytes.arbitrary()?).octets();
            message.extend([50, 4].into_iter().chain(wanted));
        }
        if options & 2 == 2 {
            let server = address(bytes.arbitrary()?).octets();
            message.extend([54, 4].into_iter().chain(server));
        }
        for (bit, code) in [(4, 61), (8, 12)] {
            if options & bit == bit {
                // Few names, so that two devices have the same.
                let name = bytes.arbitrary::<u8>()? % 4;
                message.extend([code, 2, 0, b'a' + name]);
            }
        }
        if options & 32 == 32 {
            // Around the longest name that a session may have.
            let len = 240 + bytes.arbitrary::<u8>()? % 16;
            message.extend([61, len]);
            message.resize(message.len() + usize::from(len), b'n');
        }
        if options & 16 == 16 {
            let len = usize::from(bytes.arbitrary::<u8>()?);
            message.extend_from_slice(bytes.bytes(bytes.len().min(len))?);
        }
        message.push(255);
        self.server.handle_message(&message, from, self.now);
        self.judge(Some(from));
        Ok(())
    }

    /// The home agent gives a session an address that no other has.
    fn give(&mut self, which: u8, address: Ipv4Addr) {
        let Some(name) = self.name(which) else { return };
        if self.sessions.values().any(|one| one.given == Some(address)) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&name) else { return };
        session.given = Some(address);
        let mac = session.mac;
        // What it had before is its no longer.
        self.told.retain(|_, of| *of != mac);
        let usable = self.server.handle_address(&name, address, self.now);
        self.judge(None);
        assert_eq!(usable, self.sessions.contains_key(&name), "else it is to end");
    }

    fn lose(&mut self, which: u8) {
        let Some(name) = self.name(which) else { return };
        let Some(session) = self.sessions.get_mut(&name) else { return };
        session.given = None;
        let mac = session.mac;
        self.told.retain(|_, of| *of != mac);
        self.server.handle_loss(&name);
        self.judge(None);
    }

    /// A session has ended, or could not begin: the server does not say so.
    fn end(&mut self, which: u8, refused: bool) {
        let Some(name) = self.name(which) else { return };
        let Some(session) = self.sessions.remove(&name) else { return };
        self.told.retain(|_, mac| *mac != session.mac);
        match refused {
            true => self.server.handle_refusal(&name, self.now),
            false => self.server.handle_end(&name, self.now),
        }
        self.judge(None);
    }

    fn pass(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(due) = self.server.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.server.handle_timeout(self.now);
            assert!(self.server.poll_timeout().is_none_or(|next| next > self.now));
            self.judge(None);
        }
        self.now = end;
    }
}

/// The value of an option of a reply.
fn option(payload: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = payload.get(OPTIONS..)?;
    loop {
        match rest {
            [0, tail @ ..] => rest = tail,
            [code, len, tail @ ..] if *code != 255 => {
                let (value, tail) = tail.split_at_checked(usize::from(*len))?;
                if *code == wanted {
                    return Some(value);
                }
                rest = tail;
            }
            _ => return None,
        }
    }
}

fn serves(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mut lan = Lan::new(bytes.arbitrary()?);
    while !bytes.is_empty() {
        match bytes.arbitrary::<u8>()? % 12 {
            0..=4 => lan.message(bytes)?,
            5 | 6 => {
                let [which, number] = bytes.arbitrary::<[u8; 2]>()?;
                lan.give(which, address(number));
            }
            7 => lan.lose(bytes.arbitrary()?),
            8 => {
                let which: u8 = bytes.arbitrary()?;
                lan.end(which / 2, which & 1 == 1);
            }
            9 => {
                let [from, len] = bytes.arbitrary::<[u8; 2]>()?;
                let payload = bytes.bytes(bytes.len().min(usize::from(len)))?;
                lan.server.handle_message(payload, mac(from), lan.now);
                lan.judge(Some(mac(from)));
            }
            10 => {
                lan.server.handle_absence(address(bytes.arbitrary()?), lan.now);
                lan.judge(None);
            }
            _ => {
                // As often a moment as a while.
                let by = u64::from(bytes.arbitrary::<u8>()?);
                lan.pass(Duration::from_millis(if by & 1 == 1 { 10 * by } else { 100 * by }));
            }
        }
    }
    lan.server.end_all(lan.now);
    lan.judge(None);
    assert!(lan.sessions.is_empty() && lan.told.is_empty());
    Ok(())
}

/// The DHCP server for devices.
pub(super) fn devices(data: &[u8]) {
    let _ = serves(&mut Unstructured::new(data));
}
