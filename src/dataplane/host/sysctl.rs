//! Kernel settings below `/proc/sys`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Reads the values of `paths`; settings that the kernel doesn't have are left out.
pub fn read<'a>(paths: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, String> {
    paths.into_iter().filter_map(|path| Some((path.to_owned(), value(path)?))).collect()
}

/// Reads one value, without the line end; `None` if the kernel has no such setting.
pub fn value(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?;
    // Values of several words are separated by tabs, which stay.
    Some(text.trim().to_owned())
}

/// Sets one value.
///
/// # Errors
/// When the kernel has no such setting, refuses the value, or the process may not write it.
pub fn write(path: &str, value: &str) -> io::Result<()> {
    std::fs::write(Path::new("/proc/sys").join(path), value)
}
