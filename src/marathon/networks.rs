//! Networks of apps and pods.

use std::collections::BTreeSet;

use super::wire::{MarathonApp, MarathonNetwork};
use crate::cluster::shortened;
use crate::mesos::{Lenient, LenientList};

/// Networks of an app or a pod: their mode, which is one for all of them, and their names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MarathonNetworks {
    pub mode: NetworkMode,
    pub names: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// Ports are the agent's.
    #[default]
    Host,
    /// All ports are mapped to ports of the agent.
    Bridge,
    /// Tasks have addresses of their own.
    Container,
}

impl MarathonNetworks {
    /// Reads the networks of an app. Before Marathon 1.5 other members held them.
    ///
    /// # Errors
    /// When it cannot be known where the app's ports are.
    pub fn of_app(app: &MarathonApp) -> Result<Self, String> {
        let docker = app.container.as_ref().and_then(|container| container.docker.as_ref());
        let mut networks = Self::of_list(&app.networks)?;
        if app.networks.iter().flatten().next().is_none() {
            networks.mode = match docker.and_then(|docker| docker.network.as_deref()) {
                Some("BRIDGE") => NetworkMode::Bridge,
                Some("USER") => NetworkMode::Container,
                None | Some("HOST") if app.ip_address.is_some() => NetworkMode::Container,
                None | Some("HOST") => NetworkMode::Host,
                Some(other) => return Err(unknown(other)),
            };
        }
        networks.names.extend(app.ip_address.as_ref().and_then(|ip| ip.network_name.clone()));
        Ok(networks)
    }

    /// Reads a list of networks; an empty one means the host's.
    ///
    /// # Errors
    /// When a mode is not known, or a network cannot be read.
    pub fn of_list(list: &LenientList<MarathonNetwork>) -> Result<Self, String> {
        let mut networks = Self::default();
        for (index, network) in list.iter().flatten().enumerate() {
            let network = match network {
                Lenient::Read(network) => network,
                Lenient::Unreadable { error, json } => {
                    return Err(format!("the network {json:?} cannot be read: {error}"));
                }
            };
            let mode = match network.mode.as_deref() {
                None | Some("host") => NetworkMode::Host,
                Some("container/bridge") => NetworkMode::Bridge,
                Some("container") => NetworkMode::Container,
                Some(other) => return Err(unknown(other)),
            };
            // Marathon allows several networks only of one mode.
            if index == 0 {
                networks.mode = mode;
            }
            networks.names.extend(network.name.clone());
        }
        Ok(networks)
    }

    /// Returns the network of every address, if there is no doubt: Marathon does not say which network
    /// the address of an app's task is on.
    pub fn only_name(&self) -> Option<&String> {
        self.names.first().filter(|_| self.names.len() == 1)
    }
}

fn unknown(mode: &str) -> String {
    format!(
        "the network mode {:?} is not known, only host, container/bridge and container",
        shortened(mode.to_owned())
    )
}
