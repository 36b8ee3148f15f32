//! From the ports of the config to ports that run: the device, its shield against
//! the kernel, and its kernel twin.

use anyhow::{Context, Result, bail};
use homeport_dataplane::launch::PortSetup;
use homeport_dataplane::port::Port;
use homeport_dataplane::port::af_packet::AfPacketPort;
use homeport_dataplane::port::interface;
use homeport_dataplane::port::shield::IngressDrop;
use homeport_dataplane::port::twin::Twin;
use homeport_proto::MacAddress;

use super::dpdk::Dpdk;
use crate::config::{self, Backend, Config};
use crate::kernel::{self, Setup};

/// The ports of a dataplane, and what guards their interfaces. The guards are
/// dropped last.
pub(super) struct Ports {
    /// For the dataplane, by their numbers.
    pub(super) setups: Vec<PortSetup>,
    /// To be kept while the ports are.
    pub(super) guards: Vec<Guard>,
    /// What drives those of them that are DPDK's.
    pub(super) dpdk: Dpdk,
}

/// Leaves an interface as it was found, when dropped.
pub(super) struct Guard {
    interface: String,
    mtu: Option<u16>,
    _shield: IngressDrop,
}

impl Guard {
    /// Shields an interface; its MTU stays.
    #[cfg(feature = "dpdk")]
    pub(super) fn shield(interface: &str) -> Result<Self> {
        let shield = IngressDrop::install(interface)?;
        Ok(Guard { interface: interface.to_owned(), mtu: None, _shield: shield })
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
    let mut ports = Ports { setups: Vec::new(), guards: Vec::new(), dpdk };
    for port in &config.ports {
        let (device, guard): (Box<dyn Port>, Option<Guard>) = match &port.backend {
            Backend::AfPacket { interface } => {
                let (device, guard) = open_af_packet(port, interface)?;
                (Box::new(device), Some(guard))
            }
            Backend::Dpdk { device } => ports.dpdk.open(port, device, config)?,
        };
        ports.guards.extend(guard);
        let mac = device.mac();
        let twin = open_twin(port, mac)?;
        let (name, tenant) = (port.name.clone(), port.tenant);
        let queues = vec![device];
        ports.setups.push(PortSetup { name, tenant, queues, twin: Some(Box::new(twin)) });
        tracing::info!(port = port.name, device = port.backend.device(), %mac, "port opened");
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
    setup: &mut Setup,
) -> Result<()> {
    for (port, mac) in config.ports.iter().zip(macs) {
        let twin = kernel::Twin {
            name: port.kernel_twin.clone(),
            mac: *mac,
            mtu: port.mtu,
            addresses: port.addresses.iter().map(|at| (at.address, at.prefix_len)).collect(),
        };
        let index = setup.configure(&twin).with_context(|| {
            format!("setting up the kernel twin {} of [[port]] \"{}\"", twin.name, port.name)
        })?;
        for route in config.routes.iter().filter(|route| route.port == port.id) {
            setup
                .add_route(route.destination, Some(route.gateway), index)
                .with_context(|| format!("[[route]] destination = \"{}\"", route.destination))?;
        }
    }
    Ok(())
}

fn check(port: &config::Port, setup: &Setup) -> Result<()> {
    let name = &port.name;
    if let Backend::AfPacket { interface } = &port.backend
        && setup.index_of(interface)?.is_none()
    {
        bail!("[[port]] \"{name}\" interface = \"{interface}\": there is no such interface");
    }
    let twin = &port.kernel_twin;
    if setup.index_of(twin)?.is_some() {
        bail!(
            "[[port]] \"{name}\" kernel_twin = \"{twin}\": there is an interface of this name already; \
             stop what made it, or choose another name"
        );
    }
    Ok(())
}

fn open_af_packet(port: &config::Port, interface: &str) -> Result<(AfPacketPort, Guard)> {
    let key = || format!("[[port]] \"{}\" interface = \"{interface}\"", port.name);
    let mtu = interface::mtu(interface).with_context(key)?;
    let changed = mtu != u32::from(port.mtu);
    if changed {
        let key = || format!("[[port]] \"{}\" mtu = {}", port.name, port.mtu);
        interface::set_mtu(interface, port.mtu).with_context(key)?;
        tracing::info!(port = port.name, from = mtu, to = port.mtu, "interface MTU changed");
    }
    let shield = IngressDrop::install(interface).with_context(key)?;
    let guard = Guard {
        interface: interface.to_owned(),
        mtu: u16::try_from(mtu).ok().filter(|_| changed),
        _shield: shield,
    };
    let device = AfPacketPort::open(interface).with_context(key)?;
    Ok((device, guard))
}

fn open_twin(port: &config::Port, mac: MacAddress) -> Result<Twin> {
    Twin::create(&port.kernel_twin, mac, port.mtu).with_context(|| {
        format!("[[port]] \"{}\" kernel_twin = \"{}\"", port.name, port.kernel_twin)
    })
}
