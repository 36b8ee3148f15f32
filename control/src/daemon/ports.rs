//! From the ports of the config to ports that run: the device, its shield against
//! the kernel and its kernel twin, or what it claims of an interface that the kernel
//! keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use homeport_dataplane::launch::PortSetup;
use homeport_dataplane::port::Port;
use homeport_dataplane::port::af_packet::AfPacketPort;
use homeport_dataplane::port::af_xdp::{AfXdpOptions, AfXdpPort, Claims, Scope};
use homeport_dataplane::port::interface;
use homeport_dataplane::port::shield::IngressDrop;
use homeport_dataplane::port::twin::Twin;
use homeport_proto::{MacAddress, PortId};

use super::dpdk::Dpdk;
use crate::config::{self, Backend, Config};
use crate::event_loop::table_sizes;
use crate::kernel::{self, Setup, SharedLink, shared};

/// The ports of a dataplane, and what guards their interfaces. The guards are
/// dropped last.
pub(super) struct Ports {
    /// For the dataplane, by their numbers.
    pub(super) setups: Vec<PortSetup>,
    /// To be kept while the ports are.
    pub(super) guards: Vec<Guard>,
    /// What drives those of them that are DPDK's.
    pub(super) dpdk: Dpdk,
    /// What those of AF_XDP take from the kernel, if there are any.
    pub(super) claims: Option<Arc<Claims>>,
    /// The interfaces that stay the kernel's, by their port.
    pub(super) shared: BTreeMap<PortId, u32>,
}

/// Leaves an interface as it was found, when dropped.
pub(super) struct Guard {
    interface: String,
    mtu: Option<u16>,
    _shield: Option<IngressDrop>,
    _shared: Option<SharedLink>,
}

impl Guard {
    /// Shields an interface; its MTU stays.
    #[cfg(feature = "dpdk")]
    pub(super) fn shield(interface: &str) -> Result<Self> {
        let shield = IngressDrop::install(interface)?;
        Ok(Guard {
            interface: interface.to_owned(),
            mtu: None,
            _shield: Some(shield),
            _shared: None,
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mtu) = self.mtu
            && let Err(error) = interface::set_mtu(&self.interface, mtu)
        {
            tracing::warn!(%error, "the MTU was not restored");
        }
    }
}

/// Opens the ports of a config.
///
/// # Errors
/// What is missing or in the way, with the key of the config that names it.
pub(super) fn open(config: &Config) -> Result<Ports> {
    // What can be told beforehand is told before anything is changed.
    let setup = Setup::new()?;
    for port in &config.ports {
        check(port, &setup)?;
    }
    let dpdk = Dpdk::start(config)?;
    let claims = claims(config)?;
    let (setups, guards, shared) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut ports = Ports { setups, guards, dpdk, claims, shared };
    for port in &config.ports {
        let (queues, guard): (Vec<Box<dyn Port>>, Option<Guard>) = match &port.backend {
            Backend::AfPacket { interface } => {
                let (device, guard) = open_af_packet(port, interface)?;
                (vec![Box::new(device)], Some(guard))
            }
            Backend::AfXdp { interface, .. } => {
                let (queues, guard) = open_af_xdp(port, interface, config, &mut ports)?;
                (queues, Some(guard))
            }
            Backend::Dpdk { device } => {
                let (device, guard) = ports.dpdk.open(port, device, config)?;
                (vec![device], guard)
            }
        };
        ports.guards.extend(guard);
        let mac = queues.first().map_or(MacAddress::UNSPECIFIED, |queue| queue.mac());
        let twin: Option<Box<dyn Port>> =
            if port.backend.is_shared() { None } else { Some(Box::new(open_twin(port, mac)?)) };
        let (name, tenant) = (port.name.clone(), port.tenant);
        let mode =
            queues.first().and_then(|queue| queue.mode()).unwrap_or_else(|| port.backend.word());
        tracing::info!(port = port.name, device = port.backend.device(), %mac, mode, "port opened");
        ports.setups.push(PortSetup { name, tenant, queues, twin });
    }
    Ok(ports)
}

/// Gives the twins their addresses, sets them up, and adds the routes.
///
/// # Errors
/// What the kernel refused, with the key of the config.
pub(super) fn configure_twins(
    config: &Config,
    macs: &[MacAddress],
    shared: &BTreeMap<PortId, u32>,
    setup: &mut Setup,
) -> Result<()> {
    for (port, mac) in config.ports.iter().zip(macs) {
        let index = match shared.get(&port.id) {
            Some(index) => *index,
            None => configure_twin(port, *mac, setup)?,
        };
        for route in config.routes.iter().filter(|route| route.port == port.id) {
            setup
                .add_route(route.destination, Some(route.gateway), index)
                .with_context(|| format!("[[route]] destination = \"{}\"", route.destination))?;
        }
    }
    Ok(())
}

fn configure_twin(port: &config::Port, mac: MacAddress, setup: &mut Setup) -> Result<u32> {
    let twin = kernel::Twin {
        name: port.kernel_interface.clone(),
        mac,
        mtu: port.mtu,
        addresses: port.addresses.iter().map(|at| (at.address, at.prefix_len)).collect(),
    };
    setup.configure(&twin).with_context(|| {
        format!("setting up the kernel twin {} of [[port]] \"{}\"", twin.name, port.name)
    })
}

fn check(port: &config::Port, setup: &Setup) -> Result<()> {
    let name = &port.name;
    if let Backend::AfPacket { interface } | Backend::AfXdp { interface, .. } = &port.backend
        && setup.index_of(interface)?.is_none()
    {
        bail!("[[port]] \"{name}\" interface = \"{interface}\": there is no such interface");
    }
    let twin = &port.kernel_interface;
    if !port.backend.is_shared() && setup.index_of(twin)?.is_some() {
        bail!(
            "[[port]] \"{name}\" kernel_twin = \"{twin}\": there is an interface of this name already; \
             stop what made it, or choose another name"
        );
    }
    Ok(())
}

fn open_af_packet(port: &config::Port, interface: &str) -> Result<(AfPacketPort, Guard)> {
    let key = || format!("[[port]] \"{}\" interface = \"{interface}\"", port.name);
    let mtu = change_mtu(port, interface)?;
    let shield = IngressDrop::install(interface).with_context(key)?;
    let guard =
        Guard { interface: interface.to_owned(), mtu, _shield: Some(shield), _shared: None };
    let device = AfPacketPort::open(interface).with_context(key)?;
    Ok((device, guard))
}

/// Gives an interface the MTU of its port. Returns the one that is to be restored.
fn change_mtu(port: &config::Port, interface: &str) -> Result<Option<u16>> {
    let key = || format!("[[port]] \"{}\" interface = \"{interface}\"", port.name);
    let mtu = interface::mtu(interface).with_context(key)?;
    if mtu == u32::from(port.mtu) {
        return Ok(None);
    }
    let key = || format!("[[port]] \"{}\" mtu = {}", port.name, port.mtu);
    interface::set_mtu(interface, port.mtu).with_context(key)?;
    tracing::info!(port = port.name, from = mtu, to = port.mtu, "interface MTU changed");
    Ok(u16::try_from(mtu).ok())
}

/// The claims of the AF_XDP ports of a config, if it has any.
fn claims(config: &Config) -> Result<Option<Arc<Claims>>> {
    let Some(port) = config.ports.iter().find(|port| port.backend.is_shared()) else {
        return Ok(None);
    };
    // Visitors are claimed one by one, too.
    let (_, visitors) = table_sizes(config);
    let visitors = u32::try_from(visitors).unwrap_or(u32::MAX);
    let nodes = config.dataplane.exact_claims.saturating_add(visitors);
    let claims = Claims::new(nodes).with_context(|| {
        format!(
            "[[port]] \"{}\" backend = \"af_xdp\": making maps (bpf(2)) needs CAP_BPF and \
             CAP_NET_ADMIN",
            port.name
        )
    })?;
    Ok(Some(Arc::new(claims)))
}

fn open_af_xdp(
    port: &config::Port,
    interface: &str,
    config: &Config,
    ports: &mut Ports,
) -> Result<(Vec<Box<dyn Port>>, Guard)> {
    let key = || format!("[[port]] \"{}\" interface = \"{interface}\"", port.name);
    let (Backend::AfXdp { queues, mode, .. }, Some(claims)) = (&port.backend, &ports.claims) else {
        bail!("[[port]] \"{}\" is no port of backend af_xdp", port.name);
    };
    let mtu = change_mtu(port, interface)?;
    let addresses: Vec<_> = port.addresses.iter().map(|at| (at.address, at.prefix_len)).collect();
    let shared = SharedLink::configure(interface, &addresses).with_context(key)?;
    for problem in shared::forwarding_problems(interface)? {
        tracing::warn!(port = port.name, "{problem}");
    }
    ports.shared.insert(port.id, shared.index());
    let guard =
        Guard { interface: interface.to_owned(), mtu, _shield: None, _shared: Some(shared) };
    let is_inside = config.napts.iter().any(|napt| napt.inside.contains(&port.id));
    let options = AfXdpOptions {
        mode: *mode,
        queues: *queues,
        scope: if is_inside { Scope::Transit } else { Scope::Claimed },
        tenant: port.tenant,
        port: port.id,
        workers: config.dataplane.cores.len().max(1),
    };
    let opened = AfXdpPort::open(interface, claims, &options).with_context(key)?;
    Ok((opened.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect(), guard))
}

fn open_twin(port: &config::Port, mac: MacAddress) -> Result<Twin> {
    Twin::create(&port.kernel_interface, mac, port.mtu).with_context(|| {
        format!("[[port]] \"{}\" kernel_twin = \"{}\"", port.name, port.kernel_interface)
    })
}
