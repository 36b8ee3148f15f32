//! A mobile node without a home address of its own among real agents: its home agent gives
//! it one, by its NAI, and it keeps it wherever it goes.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Daemon, Folder, HOMEPORT_MN};
use crate::namespace::{Namespace, join, unavailable, wait_for};

const LIMIT: Duration = Duration::from_secs(15);
const NAI: &str = "phone@train.example";
const CORRESPONDENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const HOMEPORT: &str = env!("CARGO_BIN_EXE_homeport");

/// A home agent, two foreign agents, a router with DHCP and a correspondent on one core
/// network; and the mobile node's cable, which is on the link of one of the first four.
struct Net {
    switch: Namespace,
    boxes: Vec<Namespace>,
    correspondent: Namespace,
    node: Namespace,
    folder: Folder,
    agents: Vec<Daemon>,
    dnsmasq: Child,
}

/// The boxes, what their links to the node are called, and the links' first addresses.
const BOXES: [(&str, &str, &str); 4] = [
    ("ha", "home", "10.1.0.1"),
    ("fa1", "visited", "10.2.1.1"),
    ("fa2", "visited", "10.2.2.1"),
    ("rt", "dhcp", "10.3.0.1"),
];

impl Net {
    fn new(name: &str) -> Self {
        let switch = Namespace::new(&format!("{name}-sw"));
        let plug = |namespace: &Namespace, end: &str, link: &str, port: &str| {
            join((namespace, end), (&switch, port));
            switch.ip(&format!("link set {port} master {link}"));
        };
        switch.ip("link add core type bridge");
        switch.ip("link set core up");
        let folder = Folder::new(name);
        folder.write_key("mn.key", "000102030405060708090a0b0c0d0e0f");
        let mut boxes = Vec::new();
        for (number, (name_of_box, link, _)) in BOXES.iter().enumerate() {
            let namespace = Namespace::new(&format!("{name}-{name_of_box}"));
            switch.ip(&format!("link add link{number} type bridge"));
            switch.ip(&format!("link set link{number} up"));
            plug(&namespace, "core", "core", &format!("core{number}"));
            plug(&namespace, link, &format!("link{number}"), &format!("to{number}"));
            boxes.push(namespace);
        }
        let correspondent = Namespace::new(&format!("{name}-cn"));
        plug(&correspondent, "eth0", "core", "cn");
        correspondent.ip(&format!("addr add {CORRESPONDENT}/24 dev eth0"));
        correspondent.ip("route add 10.1.0.0/24 via 10.0.0.2");
        let node = Namespace::new(&format!("{name}-mn"));
        join((&node, "eth0"), (&switch, "cable"));
        switch.ip("link set cable down");
        let router = boxes.last().unwrap();
        router.ip("addr add 10.0.0.5/24 dev core");
        router.ip("addr add 10.3.0.1/24 dev dhcp");
        router.ip("route add 10.1.0.0/24 via 10.0.0.2");
        let forwards = "echo 1 >/proc/sys/net/ipv4/ip_forward";
        assert!(router.command("sh").args(["-c", forwards]).status().unwrap().success());
        let dnsmasq = dnsmasq(router, &folder);
        let mut net = Net { switch, boxes, correspondent, node, folder, agents: vec![], dnsmasq };
        net.write_configs("10.1.0.100-10.1.0.109");
        for (number, (name, ..)) in BOXES.iter().take(3).enumerate() {
            net.agents.push(Daemon::start(&net.boxes[number], &net.folder, name));
        }
        net
    }

    fn write_configs(&self, pool: &str) {
        self.write_agents(pool);
        let socket = self.folder.path("mn.sock");
        self.folder.write(
            "mn.toml",
            &format!(
                "[daemon]\nadmin_socket = \"{}\"\nlog = \"debug\"\n\
                 [mobile_node]\ninterface = \"eth0\"\nhome_prefix = \"10.1.0.0/24\"\n\
                 home_agent = \"10.0.0.2\"\nlifetime = \"20s\"\nnai = \"{NAI}\"\n\
                 [[mobile_node.security_association]]\nhome_agent = \"10.0.0.2\"\nspi = 256\n\
                 key_file = \"mn.key\"\n",
                socket.display()
            ),
        );
    }

    fn write_agents(&self, pool: &str) {
        for (number, (name, link, address)) in BOXES.iter().take(3).enumerate() {
            let core = format!("10.0.0.{}", number + 2);
            let port = |name: &str, address: &str| {
                format!(
                    "[[port]]\nname = \"{name}\"\nbackend = \"af_packet\"\ninterface = \"{name}\"\n\
                     addresses = [\"{address}/24\"]\n"
                )
            };
            let agent = if number == 0 {
                format!(
                    "[[route]]\ndestination = \"10.3.0.0/24\"\ngateway = \"10.0.0.5\"\n\
                     [[home_agent]]\nname = \"ha\"\naddress = \"{core}\"\n\
                     [[home_agent.home_network]]\nprefix = \"10.1.0.0/24\"\nport = \"home\"\n\
                     [[home_agent.security_association]]\nnai = \"{NAI}\"\nspi = 256\n\
                     key_file = \"mn.key\"\n\
                     [[home_agent.pool]]\nname = \"train\"\nranges = [\"{pool}\"]\n\
                     [[advertiser]]\nport = \"home\"\nhome_agent = \"ha\"\n"
                )
            } else {
                format!(
                    "[[foreign_agent]]\nname = \"{name}\"\ncare_of_address = \"{core}\"\n\
                     ports = [\"visited\"]\n\
                     [[advertiser]]\nport = \"visited\"\nforeign_agent = \"{name}\"\n"
                )
            };
            let socket = self.folder.path(&format!("{name}.sock"));
            let text = format!("[daemon]\nadmin_socket = \"{}\"\n", socket.display())
                + &port("core", &core)
                + &port(link, address)
                + &agent;
            self.folder.write(&format!("{name}.toml"), &text);
        }
    }

    fn start(&self) -> Daemon {
        Daemon::start_program(HOMEPORT_MN, &self.node, &self.folder, "mn")
    }

    /// Puts the cable on the link of a box.
    fn move_to(&self, number: usize) {
        self.switch.ip("link set cable down");
        self.switch.ip(&format!("link set cable master link{number}"));
        self.switch.ip("link set cable up");
    }

    fn addresses_on(&self, device: &str) -> String {
        let words = format!("-4 -o addr show dev {device}");
        String::from_utf8(self.node.output("ip", &words).stdout).unwrap()
    }

    /// The node's kernel but for the tunnel.
    fn host(&self) -> String {
        let look = "ip -4 -o addr | grep -v hp-mn | sed 's/ *valid_lft.*//'; \
                    ip route show table all; ip rule; ip neigh show nud permanent";
        let output = self.node.command("sh").args(["-c", look]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| !line.contains("fe80") && !line.contains("ff00"));
        lines.fold(String::new(), |text, line| text + line.trim_end() + "\n")
    }

    fn is_reached(&self, address: Ipv4Addr) {
        wait_for("a packet each way", LIMIT, || {
            let pings = |from: &Namespace, to: Ipv4Addr| {
                from.output("ping", &format!("-c1 -W1 {to}")).status.success()
            };
            (pings(&self.node, CORRESPONDENT) && pings(&self.correspondent, address)).then_some(())
        });
    }

    /// `homeport` as people ask an agent.
    fn homeport(&self, agent: &str, words: &[&str]) -> String {
        let mut command = Command::new(HOMEPORT);
        command.arg("--socket").arg(self.folder.path(&format!("{agent}.sock"))).args(words);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.dnsmasq.kill();
        let _ = self.dnsmasq.wait();
    }
}

fn dnsmasq(router: &Namespace, folder: &Folder) -> Child {
    let leases = folder.path("leases");
    let child = router
        .command("dnsmasq")
        .args("--keep-in-foreground --conf-file=/dev/null --port=0 --interface=dhcp".split(' '))
        .args("--bind-interfaces --no-ping --dhcp-authoritative --user=root --pid-file=".split(' '))
        .arg("--dhcp-range=10.3.0.100,10.3.0.200,255.255.255.0,2m")
        .arg(format!("--dhcp-leasefile={}", leases.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("dnsmasq", LIMIT, || leases.exists().then_some(()));
    child
}

/// What the mobile node says of itself once it is there with an address.
fn arrived(mn: &Daemon, is_there: impl Fn(&Value) -> bool) -> (Value, Ipv4Addr) {
    wait_for("the arrival", LIMIT, || {
        let view = mn.get("mobile-node");
        let address = view["home_address"].as_str().map(|text| text.parse().unwrap());
        let settled = ["registered", "home"].iter().any(|state| view["state"] == *state);
        let address = address.filter(|_| settled && is_there(&view))?;
        Some((view, address))
    })
}

fn counter(mn: &Daemon, name: &str) -> u64 {
    let counters = mn.get("counters");
    let all = counters["counters"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap()["value"].as_u64().unwrap()
}

// Shows 2794-2-a, 5944-3.6.1.2-j.
#[test]
fn a_node_without_home_address_gets_one_and_keeps_it_on_the_whole_tour_and_when_started_anew() {
    if unavailable("a_node_without_home_address") {
        return;
    }
    let net = Net::new("own");
    let before = net.host();
    let mut mn = net.start();
    assert_eq!(mn.get("mobile-node")["home_address"], Value::Null);
    let shown = net.homeport("mn", &["show", "mobile-node"]);
    assert!(shown.contains("none yet"), "{shown}");
    assert!(!net.addresses_on("hp-mn").contains("inet"));

    net.move_to(1);
    let (view, address) = arrived(&mn, |view| view["foreign_agent"] == "10.2.1.1");
    assert_eq!(view["home_address_given"], true);
    assert_eq!(address.octets()[..3], [10, 1, 0]);
    assert!((100..=109).contains(&address.octets()[3]), "{address}");
    assert!(net.addresses_on("hp-mn").contains(&format!("{address}/32")));
    let explained = net.homeport("ha", &["explain", &address.to_string()]);
    assert!(explained.contains("assigned: The session asked for an address"), "{explained}");
    net.is_reached(address);

    for number in [2, 3, 0, 1] {
        net.move_to(number);
        let (view, now) = arrived(&mn, |view| match number {
            0 => view["state"] == "home",
            3 => view["co_located"] == true,
            _ => view["foreign_agent"] == format!("10.2.{number}.1"),
        });
        assert_eq!(now, address, "{view}");
        net.is_reached(address);
    }
    assert_eq!(counter(&mn, "home_addresses_given"), 1);

    // A command goes by it, as by any home address.
    let look = "ip route; ping -c1 -W2 10.0.0.100 >/dev/null";
    let mut command = net.node.command(HOMEPORT_MN);
    command.arg("--config").arg(net.folder.path("mn.toml"));
    let command =
        command.args(["run", "--session", "app", "--", "sh", "-c", look]).output().unwrap();
    let routes = String::from_utf8(command.stdout).unwrap();
    assert!(
        command.status.success() && routes.contains(&format!("default via {address}")),
        "{routes}"
    );

    mn.stop();
    assert_eq!(net.host(), before);
    let mut mn = net.start();
    assert_eq!(arrived(&mn, |_| true).1, address);
    let explained = net.homeport("ha", &["explain", &address.to_string()]);
    assert!(explained.contains("known: The session was known"), "{explained}");
    net.is_reached(address);
    mn.kill();
    let mut mn = net.start();
    assert_eq!(arrived(&mn, |_| true).1, address);
    net.is_reached(address);
    mn.stop();
    assert_eq!(net.host(), before);
}

/// It asks at home for the first time, and there its home agent forgets it.
#[test]
fn a_node_asks_at_home_too_and_takes_another_address_from_a_home_agent_that_has_forgotten_it() {
    if unavailable("a_node_asks_at_home_too") {
        return;
    }
    let mut net = Net::new("anew");
    let before = net.host();
    let mut mn = net.start();
    net.move_to(0);
    let (_, first) = arrived(&mn, |view| view["state"] == "home");
    assert!(net.addresses_on("eth0").contains(&format!("{first}/24")));
    net.is_reached(first);
    net.move_to(1);
    arrived(&mn, |view| view["foreign_agent"] == "10.2.1.1");
    net.is_reached(first);

    net.write_configs("10.1.0.200-10.1.0.209");
    net.agents.remove(0).stop();
    net.agents.insert(0, Daemon::start(&net.boxes[0], &net.folder, "ha"));
    let (_, second) = arrived(&mn, |view| {
        view["home_address"].as_str().is_some_and(|it| it != first.to_string())
    });
    assert!((200..=209).contains(&second.octets()[3]), "{second}");
    let held = net.addresses_on("hp-mn") + &net.addresses_on("eth0");
    assert!(held.contains(&format!("{second}/32")) && !held.contains(&first.to_string()), "{held}");
    let names = ["home_addresses_given", "home_addresses_lost", "home_addresses_changed"];
    assert_eq!(names.map(|name| counter(&mn, name)), [2, 1, 1]);
    mn.wait_for_log("the home agent has given another home address");
    net.is_reached(second);
    mn.stop();
    assert_eq!(net.host(), before);
}

/// Without `state_dir` it would get the first of the pool.
#[test]
fn a_node_gets_back_what_it_had_though_its_home_agent_has_forgotten_it_unless_it_is_anothers() {
    if unavailable("a_node_gets_back_what_it_had") {
        return;
    }
    let mut net = Net::new("back");
    let text = std::fs::read_to_string(net.folder.path("mn.toml")).unwrap();
    let state = net.folder.path("mn-state");
    let state_dir = format!("[daemon]\nstate_dir = \"{}\"\n", state.display());
    net.folder.write("mn.toml", &text.replacen("[daemon]\n", &state_dir, 1));
    let mut mn = net.start();
    net.move_to(1);
    let first = arrived(&mn, |_| true).1;
    mn.kill();
    let forget = |net: &mut Net, pool: &str| {
        net.write_agents(pool);
        net.agents.remove(0).stop();
        net.agents.insert(0, Daemon::start(&net.boxes[0], &net.folder, "ha"));
    };
    forget(&mut net, "10.1.0.90-10.1.0.109");
    let mut mn = net.start();
    assert_eq!(arrived(&mn, |_| true).1, first);
    let explained = net.homeport("ha", &["explain", &first.to_string()]);
    assert!(explained.contains("named: The session was not known"), "{explained}");
    net.is_reached(first);
    // It is not to be had any more.
    mn.kill();
    forget(&mut net, "10.1.0.200-10.1.0.209");
    let mut mn = net.start();
    let second = arrived(&mn, |_| true).1;
    assert!((200..=209).contains(&second.octets()[3]), "{second}");
    assert_eq!(counter(&mn, "home_addresses_lost"), 0);
    net.is_reached(second);
    mn.stop();
    forget(&mut net, "10.1.0.190-10.1.0.209");
    let mut mn = net.start();
    assert_eq!(arrived(&mn, |_| true).1, second);
    mn.stop();
}
