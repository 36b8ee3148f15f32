//! Ports on devices of DPDK, where the program was built with it.

#[cfg(feature = "dpdk")]
use anyhow::Context;
use anyhow::Result;
use homeport_dataplane::port::Port;

use super::ports::Guard;
use crate::config::{Config, Port as PortConfig};

/// DPDK, if a port of the config is one of its.
#[derive(Clone, Copy)]
pub(super) struct Dpdk {
    #[cfg(feature = "dpdk")]
    eal: Option<homeport_dataplane::port::dpdk::Eal>,
}

#[cfg(feature = "dpdk")]
impl Dpdk {
    /// Starts DPDK for the devices of a config, if it has any.
    pub(super) fn start(config: &Config) -> Result<Self> {
        use crate::config::Backend;
        use homeport_dataplane::port::dpdk;

        let devices: Vec<&str> = config
            .ports
            .iter()
            .filter_map(|port| match &port.backend {
                Backend::Dpdk { device } => Some(device.as_str()),
                Backend::AfPacket { .. } | Backend::AfXdp { .. } => None,
            })
            .collect();
        if devices.is_empty() {
            return Ok(Dpdk { eal: None });
        }
        let eal = dpdk::start(devices, buffers(config)).context("starting DPDK")?;
        Ok(Dpdk { eal: Some(eal) })
    }

    /// Opens a device, shielded from the kernel where the kernel has it too.
    pub(super) fn open(
        self,
        port: &PortConfig,
        device: &str,
        config: &Config,
    ) -> Result<(Box<dyn Port>, Option<Guard>)> {
        use homeport_dataplane::port::dpdk::{DpdkPort, kernel_interface};

        let key = || format!("[[port]] \"{}\" device = \"{device}\"", port.name);
        let eal = self.eal.context("DPDK was not started").with_context(key)?;
        let guard = kernel_interface(device).map(Guard::shield).transpose().with_context(key)?;
        let opened = DpdkPort::open(eal, device, port.mtu, buffers(config)).with_context(key)?;
        Ok((Box::new(opened), guard))
    }

    /// To be called by each thread that receives or sends.
    pub(super) fn register_thread(self) {
        if let Some(eal) = self.eal {
            eal.register_thread();
        }
    }
}

#[cfg(feature = "dpdk")]
fn buffers(config: &Config) -> u32 {
    u32::try_from(config.dataplane.buffers).unwrap_or(u32::MAX)
}

#[cfg(not(feature = "dpdk"))]
impl Dpdk {
    #[expect(clippy::unnecessary_wraps, reason = "with DPDK it can fail")]
    pub(super) fn start(_config: &Config) -> Result<Self> {
        Ok(Dpdk {})
    }

    pub(super) fn open(
        self,
        port: &PortConfig,
        device: &str,
        _config: &Config,
    ) -> Result<(Box<dyn Port>, Option<Guard>)> {
        anyhow::bail!(
            "[[port]] \"{}\" device = \"{device}\": this homeportd was built without DPDK; \
             build it with the cargo feature `dpdk`, or use backend = \"af_packet\"",
            port.name
        )
    }

    pub(super) fn register_thread(self) {}
}
