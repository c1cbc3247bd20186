//! `l4lbd check`

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::unistd::{User, geteuid};

use super::{ConfigFile, USAGE};
use crate::config::{Config, DEFAULT_PATH, Loaded};
use crate::dataplane::firewall::{Chains, destinations};
use crate::dataplane::host::link::Routing;
use crate::dataplane::kernel::capabilities;
use crate::source::Location;
use crate::source::http::secret::SecretRef;
use crate::status::build::passage_text;
use crate::status::text::line;
use crate::vip::alloc::AddressRange;

/// User of the service, by systemd/l4lbd.service.
const SERVICE_USER: &str = "l4lbd";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Loaded { config, remarks, .. } = self.config.load_with_remarks()?;
        let path = self.config.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let exists = path.exists();
        let problems = file_problems(&config, path);
        if problems.is_empty() {
            let remark = if exists { "is valid" } else { "does not exist, the defaults apply" };
            writeln!(io::stdout(), "{} {remark}", path.display())?;
        }
        for remark in remarks.into_iter().chain(firewall_remark(&config)) {
            writeln!(io::stdout(), "{remark}")?;
        }
        for text in &problems {
            line(&mut io::stderr(), format_args!("l4lbd: {text}"))?;
        }
        Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(USAGE) })
    }
}

/// Returns a sentence for each file that the daemon needs and would not find, or could not read.
pub(super) fn file_problems(config: &Config, path: &Path) -> Vec<String> {
    let own = path.exists().then_some(path);
    missing_files(config).chain(hidden_files(config, own)).collect()
}

/// Returns a remark if this node has containers and a firewall that drops what it has no rule for. Nothing without
/// root, who alone may list rules. Rules themselves are not judged: the status tells what is really dropped.
fn firewall_remark(config: &Config) -> Option<String> {
    let listing = Command::new("nft").args(["-j", "list", "chains"]).stdin(Stdio::null()).output().ok()?;
    let firewalls = Chains::parse(&String::from_utf8_lossy(&listing.stdout)).denying();
    if firewalls.is_empty() {
        return None;
    }
    // Routes of the VIPs' link are not looked at, so that its name does not matter.
    let read = async { Routing::open(&config.dataplane.link)?.read().await };
    let node = super::runtime().ok()?.block_on(read).ok()?.node;
    // With programs at sockets no packet has a VIP's address.
    let has_packets = config.dataplane.kind.0.is_none_or(|kind| capabilities(kind).packets);
    let ranges = [config.vips.range4, config.vips.range6];
    let vips = has_packets.then(|| ranges.iter().flat_map(AddressRange::networks).collect());
    let destinations = destinations(vips, &config.dns.listen);
    let (names, commands) = passage_text(&firewalls, &node, &destinations)?;
    let what = if has_packets { "VIPs and the DNS server" } else { "the DNS server" };
    Some(format!(
        "the firewall of this node ({names}) drops what it has no rule for, and containers reach {what} only if it lets \
         them; if it does not yet: {commands}; see FIREWALLS in l4lbd-networks(7)"
    ))
}

/// A file that a configuration names for the daemon to read.
struct NamedFile<'a> {
    /// Key that names it.
    key: &'static str,
    path: &'a Path,
    /// Set for passwords, tokens and keys, which members of the service's group must not read.
    is_secret: bool,
}

/// Returns a sentence for each file that does not exist.
fn missing_files(config: &Config) -> impl Iterator<Item = String> {
    // In a directory that this user cannot search, nothing is known of a file.
    let is_missing = |path: &Path| matches!(path.try_exists(), Ok(false));
    named_files(config).filter(move |file| is_missing(file.path)).map(|NamedFile { key, path, .. }| {
        format!("{key}: {} does not exist; create it, or correct the path", path.display())
    })
}

/// Returns a sentence for each file that root can read and the service cannot. Nothing without root, who alone can
/// find out, and on a node without the service's user.
fn hidden_files(config: &Config, file: Option<&Path>) -> Vec<String> {
    let service = geteuid().is_root().then(|| User::from_name(SERVICE_USER).ok().flatten()).flatten();
    let Some(service) = service else { return Vec::new() };
    let own = file.map(|path| NamedFile { key: "the configuration file", path, is_secret: false });
    let files = own.into_iter().chain(named_files(config));
    files.filter(|file| file.path.exists() && !is_readable(file.path, &service)).map(hidden).collect()
}

/// Returns a sentence for a file that the service cannot read, with the commands that let it.
fn hidden(file: NamedFile<'_>) -> String {
    let (key, path) = (file.key, file.path.display());
    let remedy = match file.is_secret {
        true => format!("chown {SERVICE_USER} {path} && chmod 400 {path}"),
        false => format!("chgrp {SERVICE_USER} {path} && chmod g+r {path}"),
    };
    format!(
        "{key}: the service's user {SERVICE_USER} cannot read {path}, so that the service would fail after a \
         restart; to let it: {remedy} (and x on the directories above)"
    )
}

/// Lists the files that a configuration names for the daemon to read.
fn named_files(config: &Config) -> impl Iterator<Item = NamedFile<'_>> {
    let (source, marathon) = (&config.source, &config.marathon);
    let secrets = [
        ("source.basic", &source.basic),
        ("source.token", &source.token),
        ("source.service_account", &source.service_account),
        ("marathon.basic", &marathon.basic),
        ("marathon.token", &marathon.token),
        ("marathon.service_account", &marathon.service_account),
        ("http.token", &config.http.token),
    ];
    let secrets = secrets.into_iter().filter_map(|(key, secret)| match secret {
        Some(SecretRef::File(path)) => Some(NamedFile { key, path, is_secret: true }),
        Some(SecretRef::Env(_)) | None => None,
    });
    let certificates = [
        ("source.tls_ca", &source.tls_ca, false),
        ("source.tls_cert", &source.tls_cert, false),
        ("source.tls_key", &source.tls_key, true),
    ];
    let certificates = certificates
        .into_iter()
        .filter_map(|(key, path, is_secret)| Some(NamedFile { key, path: path.as_deref()?, is_secret }));
    let documents = source.masters.iter().filter_map(|master| match master {
        Location::File(path) => Some(NamedFile { key: "source.masters", path, is_secret: false }),
        Location::Http(_) | Location::Zk(_) => None,
    });
    secrets.chain(certificates).chain(documents)
}

/// Returns false if the kernel denies a process of `user` to read the file. It decides itself, because modes, ACLs
/// and the directories above all count.
fn is_readable(path: &Path, user: &User) -> bool {
    let asked = Command::new("test")
        .args(["-r".as_ref(), path.as_os_str()])
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .stdin(Stdio::null())
        .status();
    // Where the program cannot be run nothing is known.
    !asked.is_ok_and(|status| status.code() == Some(1))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_a_user_cannot_read_is_found() {
        // Root reads everything, so that another user stands in for the service then.
        let user = match User::from_uid(geteuid()).unwrap() {
            Some(user) if !user.uid.is_root() => user,
            _ => User::from_name("nobody").unwrap().unwrap(),
        };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        write(&file, "x").unwrap();
        let mode = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
        mode(directory.path(), 0o755);
        for (bits, readable) in [(0o000, false), (0o444, true)] {
            mode(&file, bits);
            assert_eq!(is_readable(&file, &user), readable, "{bits:o}");
        }
        mode(directory.path(), 0o600);
        assert!(!is_readable(&file, &user), "a directory that cannot be searched");
        mode(directory.path(), 0o700);
    }

    #[test]
    fn every_named_file_is_looked_at() {
        let text = r#"
            [source]
            masters = ["file:/a"]
            token = "file:/b"
            tls_ca = "/c"
            [marathon]
            urls = ["http://10.0.0.1:8080"]
            basic = "file:/d"
            [http]
            token = "file:/e"
        "#;
        let config = Config::parse(Path::new("l4lbd.toml"), text).unwrap();
        let mut files: Vec<(&Path, bool)> =
            named_files(&config).map(|file| (file.path, file.is_secret)).collect();
        files.sort();
        let expected = [("/a", false), ("/b", true), ("/c", false), ("/d", true), ("/e", true)];
        assert_eq!(files, expected.map(|(path, is_secret)| (Path::new(path), is_secret)));
    }

    #[test]
    fn files_that_do_not_exist_are_told_by_their_key() {
        let directory = tempfile::tempdir().unwrap();
        let (there, missing) = (directory.path().join("there"), directory.path().join("missing"));
        write(&there, "x").unwrap();
        let text = format!("[source]\nbasic = \"file:{}\"\ntls_ca = {missing:?}\n", there.display());
        let config = Config::parse(Path::new("l4lbd.toml"), &text).unwrap();
        let problems: Vec<String> = missing_files(&config).collect();
        let expected =
            format!("source.tls_ca: {} does not exist; create it, or correct the path", missing.display());
        assert_eq!(problems, [expected]);
        // The whole command, as a script sees it; the service's user, if there is one here, can read the file.
        set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let file = directory.path().join("l4lbd.toml");
        let checked = |text: &str| {
            write(&file, text).unwrap();
            Args { config: ConfigFile { config: Some(file.clone()) } }.run().unwrap()
        };
        assert_eq!(checked(&text), ExitCode::from(USAGE));
        assert_eq!(checked(""), ExitCode::SUCCESS);
    }

    #[test]
    fn a_remedy_for_a_secret_gives_it_to_no_group() {
        let remedy = |is_secret| hidden(NamedFile { key: "k", path: Path::new("/f"), is_secret });
        assert!(remedy(true).contains("chown l4lbd /f && chmod 400 /f"), "{}", remedy(true));
        assert!(remedy(false).contains("chgrp l4lbd /f && chmod g+r /f"), "{}", remedy(false));
    }
}
