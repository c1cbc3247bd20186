//! Effects of operations on a state, as the kernel has them: one definition for the simulated kernel, and for
//! what the reconciler knows of the real one between two readings.

use std::sync::Arc;

use super::op::Op;
use super::state::{Foreign, Link, Service, ServiceKey, State};
use crate::cluster::SharedMap;

/// Carries out one operation on `state`, beside services that are not ours.
///
/// # Errors
/// The refusal that the kernel would answer with; nothing is changed then.
pub fn carry_out(state: &mut State, foreign: &[Foreign], op: &Op) -> Result<(), String> {
    match op {
        // Any value of any setting: the kernel checks them, and this does not know its limits.
        Op::SetSysctl { path, value } => {
            state.sysctls.insert(path.clone(), value.clone());
        }
        Op::SetTimeouts(timeouts) => state.timeouts = Some(*timeouts),
        Op::AddLink => absent(state.link == Link::Absent).map(|()| state.link = Link::Down)?,
        Op::SetLinkUp => {
            present(state.link != Link::Absent).map(|()| state.link = Link::Up)?;
            state.unrouted.clear();
        }
        Op::DelLink => {
            present(state.link != Link::Absent)?;
            state.link = Link::Absent;
            // The kernel takes addresses and routes along with their link.
            state.addresses.clear();
            state.unrouted.clear();
            state.routes.clear();
        }
        Op::AddAddress(address) => {
            present(state.link != Link::Absent)?;
            absent(state.addresses.insert(*address))?;
        }
        Op::DelAddress(address) => {
            present(state.addresses.remove(address))?;
            state.unrouted.remove(address);
        }
        Op::AddLocalRoute(address) => {
            present(state.link == Link::Up && state.addresses.contains(address))?;
            state.unrouted.remove(address);
        }
        Op::ReplaceRules(rules) => state.rules = Some(rules.clone()),
        Op::DelRules => state.rules = None,
        Op::AddRoute(route) => {
            // A link that is down takes no routes. Adding one replaces that to the same destination.
            present(state.link == Link::Up)?;
            state.routes.retain(|known| known.destination != route.destination);
            state.routes.insert(*route);
        }
        Op::DelRoute(route) => present(state.routes.remove(route))?,
        Op::AddService(key, _) if foreign.iter().any(|foreign| foreign.key == Some(*key)) => {
            // The kernel has one table for services of all programs.
            absent(false)?;
        }
        op => carry_out_service(&mut state.services, op)?,
    }
    Ok(())
}

/// Carries out one operation on services and their servers; any other one changes nothing.
///
/// # Errors
/// The refusal that the kernel would answer with; nothing is changed then.
pub fn carry_out_service(services: &mut SharedMap<ServiceKey, Arc<Service>>, op: &Op) -> Result<(), String> {
    match op {
        Op::AddService(key, scheduling) => {
            absent(!services.contains_key(key))?;
            let service = Service { scheduling: scheduling.clone(), servers: SharedMap::default() };
            services.insert(*key, service.into());
        }
        Op::SetService(key, scheduling) => service(services, key)?.scheduling = scheduling.clone(),
        Op::DelService(key) => present(services.remove(key).is_some())?,
        Op::AddServer(key, address, server) => {
            let servers = &mut service(services, key)?.servers;
            // Before the insertion, which must not change a server that exists.
            absent(!servers.contains_key(address))?;
            servers.insert(*address, *server);
        }
        Op::SetServer(key, address, server) => {
            let servers = &mut service(services, key)?.servers;
            present(servers.insert(*address, *server).is_some())?;
        }
        Op::DelServer(key, address) => present(service(services, key)?.servers.remove(address).is_some())?,
        _ => {}
    }
    Ok(())
}

fn service<'s>(
    services: &'s mut SharedMap<ServiceKey, Arc<Service>>,
    key: &ServiceKey,
) -> Result<&'s mut Service, String> {
    services.get_mut(key).map(Arc::make_mut).ok_or_else(|| "no such service".to_owned())
}

fn absent(condition: bool) -> Result<(), String> {
    condition.then_some(()).ok_or_else(|| "exists already".to_owned())
}

fn present(condition: bool) -> Result<(), String> {
    condition.then_some(()).ok_or_else(|| "does not exist".to_owned())
}
