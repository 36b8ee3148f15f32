//! The configured routes of the kernel, changed from one config to the next: all
//! of it or nothing.

use crate::config::{Config, Route};
use crate::kernel::{KernelError, Mirror, Setup};

/// One change of the kernel's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Add(Route),
    Remove(Route),
    Replace { old: Route, new: Route },
}

impl Step {
    const fn inverse(self) -> Step {
        match self {
            Step::Add(route) => Step::Remove(route),
            Step::Remove(route) => Step::Add(route),
            Step::Replace { old, new } => Step::Replace { old: new, new: old },
        }
    }

    fn take(self, setup: &mut Setup, config: &Config, mirror: &Mirror) -> Result<(), KernelError> {
        let (Step::Add(route) | Step::Remove(route) | Step::Replace { new: route, .. }) = self;
        let index = mirror.index_of(route.port).ok_or_else(|| {
            let name = config.port(route.port).map(|port| port.kernel_interface.clone());
            KernelError::NoInterface(name.unwrap_or_default())
        })?;
        let (destination, gateway) = (route.destination, Some(route.gateway));
        match self {
            Step::Add(_) => setup.add_route(destination, gateway, index),
            Step::Remove(_) => setup.remove_route(destination, gateway, index),
            Step::Replace { .. } => setup.replace_route(destination, gateway, index),
        }
    }
}

/// Makes the kernel's routes those of `new`. On an error they are as before.
pub(super) fn change(
    old: &Config,
    new: &Config,
    setup: &mut Setup,
    mirror: &Mirror,
) -> Result<(), KernelError> {
    let mut taken = Vec::new();
    for step in steps(&old.routes, &new.routes) {
        if let Err(error) = step.take(setup, old, mirror) {
            for step in taken.into_iter().rev().map(Step::inverse) {
                if let Err(error) = step.take(setup, old, mirror) {
                    tracing::error!(%error, "a route was not put back as it was");
                }
            }
            return Err(error);
        }
        taken.push(step);
    }
    Ok(())
}

/// A route that stays but leads elsewhere is replaced in one step, so that no
/// packet finds it missing.
fn steps(old: &[Route], new: &[Route]) -> Vec<Step> {
    let find = |routes: &[Route], wanted: &Route| {
        routes.iter().find(|route| route.destination == wanted.destination).copied()
    };
    let removed = old.iter().filter(|route| find(new, route).is_none()).copied();
    let changed = new.iter().filter_map(|route| match find(old, route) {
        None => Some(Step::Add(*route)),
        Some(before) if before != *route => Some(Step::Replace { old: before, new: *route }),
        Some(_) => None,
    });
    changed.chain(removed.map(Step::Remove)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_proto::PortId;
    use homeport_proto::config::Prefix;
    use std::net::Ipv4Addr;

    fn route(second: u8, gateway: u8) -> Route {
        Route {
            destination: Prefix::new(Ipv4Addr::new(10, second, 0, 0), 16).unwrap(),
            gateway: Ipv4Addr::new(10, 0, 1, gateway),
            port: PortId(0),
        }
    }

    #[test]
    fn only_what_differs_is_changed_and_a_new_next_hop_in_one_step() {
        let old = [route(1, 1), route(2, 1), route(3, 1)];
        let new = [route(1, 1), route(2, 9), route(4, 1)];
        let expected = [
            Step::Replace { old: route(2, 1), new: route(2, 9) },
            Step::Add(route(4, 1)),
            Step::Remove(route(3, 1)),
        ];
        assert_eq!(steps(&old, &new), expected);
        assert_eq!(steps(&old, &old), []);
        let undone: Vec<Step> = expected.into_iter().rev().map(Step::inverse).collect();
        let back = [
            Step::Add(route(3, 1)),
            Step::Remove(route(4, 1)),
            Step::Replace { old: route(2, 9), new: route(2, 1) },
        ];
        assert_eq!(undone, back);
    }
}
