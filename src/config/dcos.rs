//! The configuration of dcos-net, DC/OS' own load balancer and DNS server, as one of l4lbd.
//!
//! What belongs here: which setting becomes which key. Pure; `cli/import_dcos.rs` reads the files. A setting that
//! l4lbd has no key for leads to a remark where the node would behave otherwise, and to none where it would not.
//!
//! For example, `{dcos_l4lb, [{min_named_ip, {11,0,0,0}}, {max_named_ip, {11,0,0,255}}]}` in `dcos-net.config` and
//! `RESOLVERS=10.0.0.2` in `dns_config` become `vips.range4 = "11.0.0.0-11.0.0.255"` and
//! `dns.forward = ["10.0.0.2"]`.

mod erlang;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use erlang::Term;

/// Addresses on which dcos-net answers DNS, and which its clients have in their `resolv.conf`.
const LISTEN: [&str; 3] = ["198.51.100.1", "198.51.100.2", "198.51.100.3"];

/// Last address that dcos-net gives to a name where it is not configured; DC/OS' own files do configure one more.
const LAST4: Ipv4Addr = Ipv4Addr::new(11, 255, 255, 254);

/// Names that the balancing part had over time.
const BALANCER: [&str; 3] = ["minuteman", "navstar_l4lb", "dcos_l4lb"];

/// Names that the DNS part had over time.
const DNS: [&str; 2] = ["spartan", "dcos_dns"];

/// Files of dcos-net.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Erlang terms with their file names, in the order in which they count.
    pub terms: Vec<(String, String)>,
    /// Variables of the environment, as `NAME=VALUE` in lines, with their file names.
    pub environment: Vec<(String, String)>,
    /// The JSON list of the masters' addresses.
    pub master_list: Option<(String, String)>,
}

/// Failure to read the files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{file}: {error}")]
    Terms { file: String, error: erlang::Error },
    #[error("{file}: not a list of applications with their settings, such as [{{dcos_l4lb, [...]}}].")]
    Shape { file: String },
    #[error("{file}: not a JSON list of addresses: {error}")]
    Masters { file: String, error: String },
}

/// A configuration of l4lbd, with what is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Sections and keys with their values in TOML and their origins, in the order of the sample file.
    keys: Vec<(&'static str, &'static str, String, String)>,
    /// A sentence for each difference that an administrator should know.
    pub remarks: Vec<String>,
}

impl Imported {
    /// Translates the files.
    ///
    /// # Errors
    /// For a file that is not what dcos-net reads.
    pub fn read(files: &Files) -> Result<Self, Error> {
        let settings = Settings::read(files)?;
        let mut imported = Self::default();
        imported.masters(&settings, files)?;
        imported.vips(&settings);
        imported.dns(&settings);
        imported.rest(&settings);
        Ok(imported)
    }

    /// Returns it as the text of a configuration file.
    pub fn to_toml(&self, directory: &Path) -> String {
        let mut text =
            format!("# Configuration of l4lbd, from that of dcos-net in {}.\n", directory.display());
        let mut last = "";
        for (section, key, value, origin) in &self.keys {
            if *section != last {
                let _ = writeln!(text, "\n[{section}]");
                last = section;
            }
            let _ = writeln!(text, "# from {origin}\n{key} = {value}");
        }
        text
    }

    fn set(
        &mut self,
        section: &'static str,
        key: &'static str,
        value: toml::Value,
        origin: impl Into<String>,
    ) {
        self.keys.push((section, key, value.to_string(), origin.into()));
    }

    /// The masters: from the list of all, else from the first setting that names one.
    fn masters(&mut self, settings: &Settings, files: &Files) -> Result<(), Error> {
        let is_encrypted =
            settings.variable("MESOS_STATE_SSL_ENABLED").is_some_and(|(_, value)| value == "true");
        let scheme = if is_encrypted { "https" } else { "http" };
        let at = |host: &str| format!("{scheme}://{}:5050", bracketed(host));
        let mut found: Option<(Vec<String>, String)> = None;
        if let Some((file, text)) = &files.master_list {
            let hosts: Vec<String> = serde_json::from_str(text)
                .map_err(|error| Error::Masters { file: file.clone(), error: error.to_string() })?;
            found = Some((hosts.iter().map(|host| at(host)).collect(), file.clone()));
        }
        // Asked for only where the list has nothing: the list is what DC/OS itself goes by.
        let uri = || {
            let (term, origin) = settings.balancer("master_uri")?;
            let uri = text(term)?;
            // The URL of the document; l4lbd wants that of the master.
            let end =
                uri.find("://").and_then(|start| uri[start + 3..].find('/').map(|slash| start + 3 + slash));
            Some((vec![uri[..end.unwrap_or(uri.len())].to_owned()], origin))
        };
        let zookeeper = || {
            let (term, origin) = settings.dns("zookeeper_servers")?;
            let servers: Vec<String> = list(term).iter().filter_map(server).collect();
            (!servers.is_empty()).then(|| (vec![format!("zk://{}/mesos", servers.join(","))], origin))
        };
        let exhibitor = || {
            let (origin, host) = settings.variable("EXHIBITOR_ADDRESS")?;
            Some((
                vec![at(host)],
                format!("EXHIBITOR_ADDRESS in {origin}, which one of the masters answers at"),
            ))
        };
        match found.filter(|(masters, _)| !masters.is_empty()).or_else(uri).or_else(zookeeper).or_else(exhibitor) {
            Some((masters, origin)) => self.set("source", "masters", strings(masters), origin),
            None => self.remarks.push(
                "No file names a master. The default of source.masters, leader.mesos, resolves on this node only \
                 while dcos-net or a mesos-dns answers: set it."
                    .to_owned(),
            ),
        }
        if is_encrypted {
            self.remarks.push(
                "The masters speak TLS: if their certificates are signed by DC/OS' own authority, name its file in \
                 source.tls_ca."
                    .to_owned(),
            );
        }
        if let Some((file, _)) = settings.variable("SERVICE_AUTH_TOKEN") {
            self.remarks.push(format!(
                "The masters want a token ({file}, not copied): put it into a file that only the user l4lbd reads, \
                 name that in source.token, and set source.token_scheme = \"token\"."
            ));
        }
        Ok(())
    }

    fn vips(&mut self, settings: &Settings) {
        let mut range = |key, first, last, first_default: IpAddr, last_default: IpAddr| {
            let set =
                |name| settings.balancer(name).and_then(|(term, origin)| Some((address(term)?, origin)));
            // Either end may be set alone; the other one is the peer's default then.
            let (first, last) = (set(first), set(last));
            let origin = match (&first, &last) {
                (Some((_, origin)), _) | (_, Some((_, origin))) => origin.clone(),
                (None, None) => "no file: what dcos-net takes then".to_owned(),
            };
            let first = first.map_or(first_default, |(address, _)| address);
            let last = last.map_or(last_default, |(address, _)| address);
            // Every name's address depends on both ends, so they are written down also where they are the defaults.
            self.set("vips", key, format!("{first}-{last}").into(), origin);
        };
        range("range4", "min_named_ip", "max_named_ip", Ipv4Addr::new(11, 0, 0, 0).into(), LAST4.into());
        range(
            "range6",
            "min_named_ip6",
            "max_named_ip6",
            Ipv6Addr::new(0xfd01, 0xc, 0, 0, 0, 0, 0, 0).into(),
            Ipv6Addr::new(0xfd01, 0xc, 0, 0, 0xffff, 0xffff, 0xffff, 0xffff).into(),
        );
        if let Some((term, origin)) = settings.balancer("enable_ipv6")
            && is_atom(term, "false")
        {
            self.set("vips", "ipv6", false.into(), origin);
        }
        // Both switch the balancing off, and there is no key for it here: a daemon that is not started does
        // not balance.
        for name in ["enable_lb", "enable_networking"] {
            if let Some((term, origin)) = settings.balancer(name)
                && is_atom(term, "false")
            {
                self.remarks.push(format!(
                    "dcos-net does not balance on this node ({name} in {origin}), and l4lbd does: do not start it \
                     here if that is to stay."
                ));
            }
        }
    }

    fn dns(&mut self, settings: &Settings) {
        let port = settings.dns("udp_port").and_then(|(term, origin)| match term {
            Term::Integer(port) => Some((u16::try_from(*port).ok()?, origin)),
            _ => None,
        });
        let (port, origin) = port.unwrap_or((53, "no file: what clients of DC/OS ask".to_owned()));
        let listen = LISTEN.map(|address| format!("{address}:{port}"));
        self.set("dns", "listen", strings(listen), origin);
        let configured = settings
            .dns("upstream_resolvers")
            .map(|(term, origin)| (list(term).iter().filter_map(server).collect::<Vec<String>>(), origin));
        let resolvers = || {
            let (file, value) = settings.variable("RESOLVERS")?;
            let servers = value.split(',').map(|server| server.trim().to_owned());
            Some((servers.filter(|server| !server.is_empty()).collect(), format!("RESOLVERS in {file}")))
        };
        let upstreams = configured.filter(|(servers, _)| !servers.is_empty()).or_else(resolvers);
        match upstreams {
            Some((servers, origin)) => {
                // What dcos-net itself listens on would be a circle.
                let is_own = |server: &String| LISTEN.iter().any(|own| server.split(':').next() == Some(own));
                let servers: Vec<String> = servers.into_iter().filter(|server| !is_own(server)).collect();
                self.set("dns", "forward", strings(servers), origin);
            }
            None => self.remarks.push(
                "No file names upstream resolvers; dcos-net asks 8.8.8.8 and 4.2.2.1 then. l4lbd refuses names of \
                 other zones unless dns.forward names servers."
                    .to_owned(),
            ),
        }
        for (name, consequence) in [
            ("forward_zones", "l4lbd has no servers for single zones: such names go to those in dns.forward"),
            ("zones", "l4lbd has no static names: these are not served"),
        ] {
            if let Some((term, origin)) = settings.dns(name)
                && *term != Term::Map(Vec::new())
                && *term != Term::List(Vec::new())
            {
                self.remarks.push(format!("{name} in {origin}: {consequence}."));
            }
        }
        if let Some((term, origin)) = settings.dns("mesos_resolvers")
            && !list(term).is_empty()
        {
            let servers = list(term).iter().filter_map(server).collect::<Vec<_>>().join(", ");
            self.remarks.push(format!(
                "mesos_resolvers in {origin}: l4lbd has the names of the zone mesos itself; dns.mesos can name \
                 {servers} instead."
            ));
        }
    }

    fn rest(&mut self, settings: &Settings) {
        if let Some((term, origin)) = settings.of("dcos_net", "is_master")
            && is_atom(term, "true")
        {
            self.remarks.push(format!(
                "This node is a master ({origin}), where dcos-net answers DNS on all addresses: add them to \
                 dns.listen and their clients to dns.clients if others ask it."
            ));
        }
        if let Some((term, origin)) = settings.of("dcos_overlay", "enable_overlay")
            && is_atom(term, "true")
        {
            self.remarks.push(format!(
                "Virtual networks are on (enable_overlay in {origin}). l4lbd does not make them: containers in them \
                 lose their network when dcos-net no longer keeps it."
            ));
        }
    }
}

/// Settings of all files.
#[derive(Debug, Default)]
struct Settings {
    /// Values by application and name, with the file that has the last word.
    terms: BTreeMap<(String, String), (Term, String)>,
    /// Values by name, with their file.
    variables: BTreeMap<String, (String, String)>,
}

impl Settings {
    fn read(files: &Files) -> Result<Self, Error> {
        let mut settings = Self::default();
        for (file, text) in &files.terms {
            let terms = erlang::parse(text).map_err(|error| Error::Terms { file: file.clone(), error })?;
            let shape = || Error::Shape { file: file.clone() };
            for term in terms {
                // A file has one list of applications, or the applications one after the other.
                let applications = if let Term::List(items) = term { items } else { vec![term] };
                for application in &applications {
                    let (application, values) = pair(application).ok_or_else(shape)?;
                    for value in list(values) {
                        // `{Name, Value}`, or the name alone for one that is true.
                        let (name, value) = match pair(value) {
                            Some((name, value)) => (name, value.clone()),
                            None => (atom(value).ok_or_else(shape)?, Term::Atom("true".to_owned())),
                        };
                        let key = (application.to_owned(), name.to_owned());
                        settings.terms.insert(key, (value, file.clone()));
                    }
                }
            }
        }
        // Later files have the last word, as in the shell that reads them.
        for (file, text) in &files.environment {
            for line in text.lines() {
                let line = line.trim().trim_start_matches("export ");
                if let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                    let value = value.trim_matches(['"', '\'']).to_owned();
                    settings.variables.insert(name.to_owned(), (file.clone(), value));
                }
            }
        }
        Ok(settings)
    }

    fn of(&self, application: &str, name: &str) -> Option<(&Term, String)> {
        let (term, file) = self.terms.get(&(application.to_owned(), name.to_owned()))?;
        Some((term, file.clone()))
    }

    fn balancer(&self, name: &str) -> Option<(&Term, String)> {
        BALANCER.iter().rev().find_map(|application| self.of(application, name))
    }

    fn dns(&self, name: &str) -> Option<(&Term, String)> {
        DNS.iter().rev().find_map(|application| self.of(application, name))
    }

    /// Returns a variable's file and its value.
    fn variable(&self, name: &str) -> Option<(&str, &str)> {
        self.variables.get(name).map(|(file, value)| (file.as_str(), value.as_str()))
    }
}

fn atom(term: &Term) -> Option<&str> {
    if let Term::Atom(name) = term { Some(name) } else { None }
}

fn is_atom(term: &Term, name: &str) -> bool {
    atom(term) == Some(name)
}

fn text(term: &Term) -> Option<&str> {
    if let Term::Text(text) = term { Some(text) } else { None }
}

fn list(term: &Term) -> &[Term] {
    if let Term::List(items) = term { items } else { &[] }
}

/// Returns the parts of `{Name, Value}`.
fn pair(term: &Term) -> Option<(&str, &Term)> {
    let Term::Tuple(parts) = term else { return None };
    let [name, value] = parts.as_slice() else { return None };
    Some((atom(name)?, value))
}

/// Reads an address: a tuple of four or eight numbers, or text.
fn address(term: &Term) -> Option<IpAddr> {
    if let Some(text) = text(term) {
        return text.parse().ok();
    }
    let Term::Tuple(parts) = term else { return None };
    let numbers: Vec<u16> = parts
        .iter()
        .map(|part| if let Term::Integer(number) = part { u16::try_from(*number).ok() } else { None })
        .collect::<Option<_>>()?;
    if let Ok(groups) = <[u16; 8]>::try_from(numbers.as_slice()) {
        return Some(Ipv6Addr::from(groups).into());
    }
    let octets: Vec<u8> =
        numbers.into_iter().map(|number| u8::try_from(number).ok()).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into())
}

/// Reads `{Address, Port}`, where the address may be a name in text.
fn server(term: &Term) -> Option<String> {
    let Term::Tuple(parts) = term else { return None };
    let [host, Term::Integer(port)] = parts.as_slice() else { return None };
    let port = u16::try_from(*port).ok()?;
    match address(host) {
        Some(address) => Some(SocketAddr::new(address, port).to_string()),
        None => Some(format!("{}:{port}", text(host)?)),
    }
}

/// Returns a host as a URL has it.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

fn strings(items: impl IntoIterator<Item = String>) -> toml::Value {
    toml::Value::Array(items.into_iter().map(toml::Value::String).collect())
}

#[cfg(test)]
mod tests;
