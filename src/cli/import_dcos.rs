//! `l4lbd import-dcos`: the configuration of dcos-net as one of l4lbd.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};

use crate::config::Config;
use crate::config::dcos::{Files, Imported};
use crate::status::text::line;

/// Files with variables, of which later ones count more.
const ENVIRONMENT: [&str; 4] = ["dns_config", "dns_config_master", "dcos-net.env", "dcos-net_auth.env"];

/// Largest file that is read. Those of DC/OS have a few kilobytes.
const LIMIT: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory with dcos-net.config, dcos-net.config.d, dns_config and master_list
    #[arg(value_name = "DIR", default_value = "/opt/mesosphere/etc")]
    directory: PathBuf,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let files = read(&self.directory)?;
        let found = !files.terms.is_empty() || !files.environment.is_empty() || files.master_list.is_some();
        ensure!(
            found,
            "{} has none of dcos-net's files (dcos-net.config, dcos-net.config.d/*, dns_config, master_list); name \
             their directory: l4lbd import-dcos DIR",
            self.directory.display()
        );
        let imported = Imported::read(&files)?;
        let text = imported.to_toml(&self.directory);
        // A value that dcos-net takes and l4lbd does not is better known now than at the start.
        Config::parse(Path::new("the imported configuration"), &text)?;
        write!(io::stdout(), "{text}")?;
        for remark in &imported.remarks {
            line(&mut io::stderr(), format_args!("l4lbd: {remark}"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads those of the files that are there.
fn read(directory: &Path) -> anyhow::Result<Files> {
    let read = |name: &str| -> anyhow::Result<Option<(String, String)>> {
        let path = directory.join(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| path.display().to_string())?,
        };
        let mut text = String::new();
        file.take(LIMIT + 1).read_to_string(&mut text).with_context(|| path.display().to_string())?;
        ensure!(text.len() as u64 <= LIMIT, "{}: larger than {LIMIT} bytes", path.display());
        Ok(Some((path.display().to_string(), text)))
    };
    let mut files = Files { master_list: read("master_list")?, ..Files::default() };
    files.terms.extend(read("dcos-net.config")?);
    let mut further: Vec<String> = match fs::read_dir(directory.join("dcos-net.config.d")) {
        Ok(entries) => entries
            .filter_map(|entry| Some(format!("dcos-net.config.d/{}", entry.ok()?.file_name().to_str()?)))
            .collect(),
        Err(_) => Vec::new(),
    };
    // dcos-net reads them in this order, and the last one counts.
    further.sort();
    for name in further {
        files.terms.extend(read(&name)?);
    }
    for name in ENVIRONMENT {
        files.environment.extend(read(name)?);
    }
    Ok(files)
}
