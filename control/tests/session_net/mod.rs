//! A mobile node with a LAN, and a hand-made agent at the other end of its cable whose
//! bytes and frames are real.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use homeport_control::mobile::frame::{self, Station};
use homeport_control::mobile::host::index_of;
use homeport_control::mobile::sockets::PacketSocket;
use homeport_dataplane::port::interface;
use homeport_proto::message::advertisement::AgentFlags;
use homeport_proto::message::session::SessionName;
use homeport_proto::message::{
    AgentAdvertisement, AuthenticationKind, Extension, Message, MessageWriter, MobilityAgent,
    RegistrationReply, ReplyCode,
};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, Spi,
};
use homeport_proto::{Lifetime, MacAddress};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::daemon::{Daemon, Folder, HOMEPORT_MN};
use crate::namespace::{Namespace, join, wait_for};

pub(crate) const LIMIT: Duration = Duration::from_secs(15);
pub(crate) const HOME: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
pub(crate) const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 2, 3, 1);
pub(crate) const HOME_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub(crate) const CARE_OF: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub(crate) const CORRESPONDENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// What the agent answers a session that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// What it asks for, or the next address.
    Accept,
    /// Nothing.
    Silence,
    /// A denial of the foreign agent, which has no address of it to send it to.
    DenyByBroadcast,
}

/// What the agent knows.
#[derive(Debug)]
pub(crate) struct Book {
    answer: Answer,
    given: BTreeMap<Vec<u8>, Ipv4Addr>,
    released: Vec<Vec<u8>>,
    denied: u64,
}

/// A foreign agent, the home agent behind it and a correspondent in one box.
pub(crate) struct Agent {
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Advertises itself as it is told to, and answers.
    pub(crate) fn start(namespace: &Namespace, flags: AgentFlags, node: MacAddress) -> Self {
        let book = Book {
            answer: Answer::Accept,
            given: BTreeMap::new(),
            released: Vec::new(),
            denied: 0,
        };
        let book = Arc::new(Mutex::new(book));
        let stop = Arc::new(AtomicBool::new(false));
        let (socket, frames, mac) = namespace.inside(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 434)).unwrap();
            let frames = PacketSocket::open(index_of("visited").unwrap()).unwrap();
            (socket, frames, interface::mac("visited").unwrap())
        });
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (its_book, its_stop) = (Arc::clone(&book), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            // On the home link it is the home agent's own address that replies come from.
            let (link, speaker) = match flags.contains(AgentFlags::HOME_AGENT) {
                true => (HOME_ROUTER, HOME_AGENT),
                false => (GATEWAY, GATEWAY),
            };
            let (us, speaker) = (Station { mac, address: link }, Station { mac, address: speaker });
            let mut sequence = 0;
            while !its_stop.load(Ordering::Relaxed) {
                if sequence % 10 == 0 && flags != AgentFlags::default() {
                    frames.send(&advertisement(us, flags, sequence / 10)).unwrap();
                }
                sequence += 1;
                for _ in 0..64 {
                    let mut bytes = [0; 1024];
                    let Ok((len, from)) = socket.recv_from(&mut bytes) else { break };
                    let answered = answer(&bytes[..len], &mut its_book.lock().unwrap());
                    let Some((reply, to)) = answered else { continue };
                    if flags == AgentFlags::default() {
                        socket.send_to(&reply, from).unwrap();
                        continue;
                    }
                    // RFC 5944 §3.7.2.3: to the home address, at the node's link-layer
                    // address; or to everybody there.
                    let to = Station { mac: node, address: to };
                    let sent = frame::udp((speaker, 434), (to, from.port()), 64, &reply).unwrap();
                    frames.send(&sent).unwrap();
                }
            }
        });
        Agent { book, stop, thread: Some(thread) }
    }

    pub(crate) fn set(&self, answer: Answer) {
        self.book.lock().unwrap().answer = answer;
    }

    pub(crate) fn given(&self, name: &[u8]) -> Option<Ipv4Addr> {
        self.book.lock().unwrap().given.get(name).copied()
    }

    pub(crate) fn has_released(&self, name: &[u8]) -> bool {
        self.book.lock().unwrap().released.iter().any(|one| one == name)
    }

    /// Of all sessions, with an empty name.
    pub(crate) fn wait_for_release(&self, name: &[u8]) {
        wait_for("the release", LIMIT, || self.has_released(name).then_some(()));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

pub(crate) fn advertisement(us: Station, flags: AgentFlags, sequence: u16) -> Vec<u8> {
    let care_of = flags.contains(AgentFlags::FOREIGN_AGENT).then_some(CARE_OF);
    let advertisement = AgentAdvertisement {
        code: 0,
        lifetime: 30,
        routers: vec![(us.address, 0)],
        mobility: Some(MobilityAgent {
            sequence,
            registration_lifetime: Lifetime(60),
            flags,
            care_of_addresses: care_of.into_iter().collect(),
        }),
        prefix_lengths: vec![24],
        challenge: None,
    };
    let group = Ipv4Addr::new(224, 0, 0, 1);
    let to = Station { mac: MacAddress::of_multicast(group), address: group };
    frame::icmp(us, to, 1, &advertisement.emit()).unwrap()
}

pub(crate) fn association() -> MobilitySecurityAssociation {
    MobilitySecurityAssociation {
        spi: Spi(256),
        algorithm: Algorithm::HmacMd5,
        key: Key::new((0..16).collect()),
        replay: ReplayProtection::default(),
    }
}

/// The reply to a request, if any, and the address that it is for.
pub(crate) fn answer(bytes: &[u8], book: &mut Book) -> Option<(Vec<u8>, Ipv4Addr)> {
    let Message::Request(request) = Message::parse(bytes).unwrap() else { panic!() };
    let authentication = request.mobile_home_authentication().unwrap();
    assert!(request.verify(authentication, &association()));
    let named = SessionName::of(&request).unwrap();
    let session = named.filter(|named| !named.name.sub_nai.is_empty());
    let body = request.body;
    let mut reply = RegistrationReply {
        code: ReplyCode::ACCEPTED,
        lifetime: body.lifetime,
        home_address: body.home_address,
        home_agent: body.home_agent,
        identification: body.identification,
    };
    if named.is_some_and(|named| named.releases && named.name.sub_nai.is_empty()) {
        book.given.clear();
        book.released.push(Vec::new());
    }
    if let Some(named) = session {
        let name = named.name.sub_nai.to_vec();
        if named.releases {
            book.given.remove(&name);
            book.released.push(name);
        } else {
            match book.answer {
                Answer::Accept => {
                    let next = u8::try_from(20 + book.given.len() + book.released.len()).unwrap();
                    let known = book.given.get(&name).copied();
                    let asked = Some(body.home_address).filter(|one| !one.is_unspecified());
                    let address = known.or(asked).unwrap_or(Ipv4Addr::new(10, 1, 0, next));
                    book.given.insert(name, address);
                    reply.home_address = address;
                }
                Answer::Silence => return None,
                Answer::DenyByBroadcast => {
                    book.denied += 1;
                    reply.code = ReplyCode(66);
                    let writer = MessageWriter::reply(&reply);
                    return Some((writer.finish(), Ipv4Addr::BROADCAST));
                }
            }
        }
    }
    let mut writer = MessageWriter::reply(&reply);
    if let Some(named) = named {
        writer.extension(&Extension::NetworkAccessIdentifier(named.name.nai)).unwrap();
        if session.is_some() {
            writer.extension(&Extension::SubNai(named.name.sub_nai)).unwrap();
        }
    }
    writer.authenticate(AuthenticationKind::MobileHome, &association());
    let to = match reply.home_address {
        Ipv4Addr::UNSPECIFIED => Ipv4Addr::BROADCAST,
        address => address,
    };
    Some((writer.finish(), to))
}

/// The LAN in the config of a mobile node.
pub(crate) const LAN: &str = "[mobile_node.lan]\ninterface = \"lan0\"\nsub_nai = \"host-name\"";

/// A mobile node, the box at the other end of its cable, and a device on its LAN.
pub(crate) struct Net {
    pub(crate) node: Namespace,
    pub(crate) other: Namespace,
    pub(crate) device: Namespace,
    pub(crate) folder: Folder,
    pub(crate) agent: Agent,
}

impl Net {
    pub(crate) fn new(name: &str, flags: AgentFlags, lan: &str) -> Self {
        let [node, other, device] =
            ["mn", "gw", "dev"].map(|end| Namespace::new(&format!("{name}-{end}")));
        // Different indexes, or Linux may tell of the carrier a second late.
        other.ip("link add unused type bridge");
        join((&node, "eth0"), (&other, "visited"));
        join((&node, "lan0"), (&device, "eth0"));
        other.ip(&format!("addr add {GATEWAY}/24 dev visited"));
        for address in [HOME_AGENT, CARE_OF, CORRESPONDENT] {
            other.ip(&format!("addr add {address}/32 dev lo"));
        }
        let loose =
            "for f in all default visited; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done";
        assert!(other.command("sh").args(["-c", loose]).status().unwrap().success());
        let folder = Folder::new(name);
        folder.write_key("mn.key", "000102030405060708090a0b0c0d0e0f");
        folder.write(
            "mn.toml",
            &format!(
                "[daemon]\nadmin_socket = \"{}\"\nlog = \"debug\"\n\
                 [mobile_node]\ninterface = \"eth0\"\nhome_address = \"{HOME}\"\n\
                 home_prefix = \"10.1.0.0/24\"\nhome_agent = \"{HOME_AGENT}\"\n\
                 lifetime = \"60s\"\nnai = \"phone@train.example\"\n\
                 {lan}\n[[mobile_node.security_association]]\nhome_agent = \"{HOME_AGENT}\"\n\
                 spi = 256\nkey_file = \"mn.key\"\n",
                folder.path("mn.sock").display()
            ),
        );
        let mac = node.inside(|| interface::mac("eth0").unwrap());
        // The agent knows its visitors' link-layer address, and asks nobody.
        let visiting = flags.contains(AgentFlags::FOREIGN_AGENT);
        if visiting {
            for address in
                [HOME].into_iter().chain((20..30).map(|one| Ipv4Addr::new(10, 1, 0, one)))
            {
                other.ip(&format!("route add {address}/32 dev visited"));
                let neighbor =
                    format!("neigh replace {address} lladdr {mac} dev visited nud permanent");
                other.ip(&neighbor);
            }
        } else {
            other.ip("route add 10.1.0.0/24 dev visited");
        }
        let agent = Agent::start(&other, flags, mac);
        Net { node, other, device, folder, agent }
    }

    /// On the link of a foreign agent.
    pub(crate) fn abroad(name: &str, lan: &str) -> Self {
        Net::new(name, AgentFlags::FOREIGN_AGENT.with(AgentFlags::REVERSE_TUNNEL), lan)
    }

    pub(crate) fn start(&self) -> Daemon {
        let mn = Daemon::start_program(HOMEPORT_MN, &self.node, &self.folder, "mn");
        wait_for("the registration", LIMIT, || {
            let state = mn.get("mobile-node")["state"].clone();
            ["registered", "home"].iter().any(|known| state == *known).then_some(())
        });
        mn
    }

    /// A stock DHCP client of the device.
    pub(crate) fn dhcp_client(&self, more: &str) -> Client {
        let script = "#!/bin/sh\ncase $1 in\n\
             deconfig) ip addr flush dev eth0; ip link set eth0 up;;\n\
             bound|renew) ip addr flush dev eth0; ip addr add $ip/$mask dev eth0\n\
             ip route replace default via $router;;\nesac\n";
        let path = self.folder.path("udhcpc.sh");
        std::fs::write(&path, script).unwrap();
        let mut executable = std::fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut executable, 0o755);
        std::fs::set_permissions(&path, executable).unwrap();
        let child = self
            .device
            .command("busybox")
            .args("udhcpc -f -i eth0 -t 20 -T 1 -A 1 -R -x hostname:camera -s".split(' '))
            .arg(path)
            .args(more.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Client(child)
    }

    pub(crate) fn address_of_device(&self) -> Option<String> {
        let output = self.device.output("ip", "-4 -o addr show dev eth0");
        let text = String::from_utf8(output.stdout).unwrap();
        let mut words = text.split_whitespace();
        words.find(|word| *word == "inet")?;
        words.next().map(str::to_owned)
    }

    /// `homeport-mn` as people run it beside the mobile node.
    pub(crate) fn homeport_mn(&self, words: &[&str]) -> Command {
        let mut command = self.node.command(HOMEPORT_MN);
        command.arg("--config").arg(self.folder.path("mn.toml")).args(words);
        command
    }

    pub(crate) fn said(&self, words: &[&str]) -> Output {
        self.homeport_mn(words).output().unwrap()
    }

    /// What the node's kernel holds that is not the tunnel's.
    pub(crate) fn host(&self) -> String {
        let look = "ip -4 -o addr | grep -v hp-mn | sed 's/ *valid_lft.*//'; \
             ip route show table all; ip rule; ip neigh show nud permanent; ip neigh show proxy; \
             cd /proc/sys/net/ipv4; \
             for f in conf/all conf/eth0 conf/lan0; do for k in forwarding rp_filter proxy_arp \
             send_redirects arp_ignore; do echo $f/$k $(cat $f/$k); done; done; \
             cat neigh/eth0/proxy_delay neigh/lan0/proxy_delay";
        let output = self.node.command("sh").args(["-c", look]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter(|line| !line.contains("fe80") && !line.contains("ff00"))
            .fold(String::new(), |text, line| text + line.trim_end() + "\n")
    }
}

/// A program that ends with the test.
pub(crate) struct Client(pub(crate) Child);

impl Client {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn pings(from: &Namespace, to: Ipv4Addr) -> bool {
    from.output("ping", &format!("-c1 -W2 {to}")).status.success()
}

pub(crate) fn session(mn: &Daemon, name: &str) -> Option<Value> {
    let all = mn.get("sessions");
    all["sessions"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned()
}

pub(crate) fn counter(mn: &Daemon, name: &str) -> u64 {
    let all = mn.get("counters");
    let all = all["counters"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap()["value"].as_u64().unwrap()
}
