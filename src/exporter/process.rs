//! Metrics of the process, by the names that every client library of Prometheus gives them.

use std::fmt;
use std::fs;

use crate::metrics::{Collect, Family, Writer};

/// Ticks of the kernel in a second, as proc(5) counts times: 100 on every architecture but Alpha.
const TICKS: f64 = 100.0;

const CPU: Family =
    Family::counter("process_cpu_seconds", &[], "Processor time of the daemon, of user and kernel together");
const RESIDENT: Family = Family::gauge("process_resident_memory_bytes", &[], "Memory of the daemon in use");
const VIRTUAL: Family = Family::gauge("process_virtual_memory_bytes", &[], "Address space of the daemon");
const THREADS: Family = Family::gauge("process_threads", &[], "Threads of the daemon");
const OPEN_FDS: Family = Family::gauge("process_open_fds", &[], "Open file descriptors");
const MAX_FDS: Family = Family::gauge("process_max_fds", &[], "Limit of open file descriptors");
const STARTED: Family = Family::gauge("process_start_time_seconds", &[], "Time of the daemon's start");

/// Figures of this process; what the kernel does not tell is missing.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    cpu: Option<f64>,
    resident: Option<f64>,
    virtual_size: Option<f64>,
    threads: Option<f64>,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
    started: Option<f64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let process =
            Self::parse(&text("/proc/self/stat"), &text("/proc/self/status"), &text("/proc/self/limits"));
        let boot = number_after(&text("/proc/stat"), "btime ");
        Self {
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64),
            // The start is counted from the kernel's.
            started: process.started.zip(boot).map(|(start, boot)| start + boot),
            ..process
        }
    }

    /// Reads the texts of `/proc/self/stat`, `status` and `limits`.
    fn parse(stat: &str, status: &str, limits: &str) -> Self {
        // The program's name comes before, and may contain anything.
        let fields: Vec<f64> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect())
            .unwrap_or_default();
        // Numbered from 4 on, which follows the state (proc(5)).
        let field = |number: usize| fields.get(number - 4).copied();
        Self {
            cpu: field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS),
            resident: number_after(status, "VmRSS:").map(|kibibytes| kibibytes * 1024.0),
            virtual_size: field(23),
            threads: field(20),
            open_fds: None,
            max_fds: number_after(limits, "Max open files"),
            started: field(22).map(|ticks| ticks / TICKS),
        }
    }
}

/// Returns the first number after the start of a line.
fn number_after(text: &str, start: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(start))?;
    rest.split_whitespace().next()?.parse().ok()
}

impl Collect for Process {
    fn collect(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        writer.family(CPU, |samples| self.cpu.map_or(Ok(()), |cpu| samples.fraction([], cpu)))?;
        for (family, value) in [
            (RESIDENT, self.resident),
            (VIRTUAL, self.virtual_size),
            (THREADS, self.threads),
            (OPEN_FDS, self.open_fds),
            (MAX_FDS, self.max_fds),
            (STARTED, self.started),
        ] {
            writer.gauge(family, value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_proc() {
        let stat = "7 (l4 ) lbd) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 1234 1048576 10 18446744073709551615";
        let process = Process::parse(
            stat,
            "Name:\tx\nVmRSS:\t   2048 kB\n",
            "Max open files            1024    4096    files\n",
        );
        assert_eq!(
            process,
            Process {
                cpu: Some(2.0),
                resident: Some(2_097_152.0),
                virtual_size: Some(1_048_576.0),
                threads: Some(9.0),
                open_fds: None,
                max_fds: Some(1024.0),
                started: Some(12.34),
            }
        );
        assert_eq!(Process::parse("", "", ""), Process::default());
    }

    #[test]
    fn this_process_has_all_of_them() {
        let process = Process::read();
        assert!(process.resident > Some(1e5) && process.open_fds > Some(2.0) && process.started > Some(1e9));
    }
}
