//! Files of a directory that are read and replaced as a whole, also where another user can write to the directory.
//! A new file may be written further by the run that has made it.
//!
//! All access is relative to the directory's descriptor. No link is followed, only regular files are read, and a
//! temporary file always has a new name, so that what lies in the directory cannot lead a write to another place.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// Mode of new directories.
const DIRECTORY_MODE: u32 = 0o700;

/// Mode of files.
const FILE_MODE: u32 = 0o600;

/// End of the names of temporary files.
const TEMPORARY: &str = ".new";

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    file: File,
}

impl Directory {
    /// Opens a directory.
    ///
    /// # Errors
    /// When there is none, or it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Without O_DIRECTORY, a FIFO of this name would hold up the start until it has a writer.
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Opens a directory, and creates it where it is missing, with mode 0700.
    ///
    /// # Errors
    /// When it cannot be created or opened.
    pub fn create(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
        Self::open(path)
    }

    /// Reads a regular file of at most `limit` bytes; `None` where there is no file.
    ///
    /// # Errors
    /// When it cannot be read, is a link or no regular file, or is larger.
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        // A FIFO without a writer would block without O_NONBLOCK, which regular files ignore.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.file, name, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => {
                return Err(io::Error::other("it is a symbolic link, which is not followed"));
            }
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let too_large = || io::Error::other(format!("it is larger than {limit} bytes"));
        if metadata.len() > limit {
            return Err(too_large());
        }
        let mut content = Vec::new();
        // The file may grow meanwhile.
        file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 > limit { Err(too_large()) } else { Ok(Some(content)) }
    }

    /// Replaces a file, so that a reader or a crash sees the old content or the new one. The new file has mode 0600.
    /// If root writes, it belongs to the owner of the directory, who reads it at the next start.
    ///
    /// # Errors
    /// When a step fails; the old file stays then.
    pub fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.replace_by(name, |new| new.write_all(content)).map(drop)
    }

    /// Replaces a file as [`Self::replace`] does, with what `write` writes. Returns the new file, to be written
    /// further.
    ///
    /// # Errors
    /// When a step fails; the old file stays then.
    pub fn replace_by(
        &self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<File> {
        // Random, so that the name can be neither guessed nor taken.
        let temporary = format!("{name}.{:016x}{TEMPORARY}", rand::random::<u64>());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let new = openat(&self.file, temporary.as_str(), flags, Mode::from_bits_truncate(FILE_MODE))?;
        let steps = || {
            let mut new = File::from(new);
            // The umask has taken bits away, or a default ACL has given some.
            new.set_permissions(Permissions::from_mode(FILE_MODE))?;
            if geteuid().is_root() {
                let directory = self.file.metadata()?;
                fchown(&new, Some(directory.uid()), Some(directory.gid()))?;
            }
            write(&mut new)?;
            // A rename may be on disk before the content, and a crash would leave an empty file.
            new.sync_all()?;
            renameat(&self.file, temporary.as_str(), &self.file, name)?;
            // A rename lasts only once the directory itself is on disk.
            self.file.sync_all()?;
            Ok(new)
        };
        steps().inspect_err(|_| {
            // Gone if the rename was done. Else a full disk would fill further.
            let _ = unlinkat(&self.file, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        })
    }

    /// Returns true if `file` is the one of this name.
    pub fn has(&self, name: &str, file: &File) -> bool {
        let named = fstatat(&self.file, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let (Ok(named), Ok(open)) = (named, file.metadata()) else { return false };
        // As long as the file is open, no other one gets its inode number.
        (named.st_dev, named.st_ino) == (open.dev(), open.ino())
    }

    /// Renames a file.
    ///
    /// # Errors
    /// When the file is missing or the directory cannot be written.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.file, from, &self.file, to)?)
    }

    /// Removes temporary files of `name` that killed writers have left. To be called by the only writer.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn remove_leftovers(&self, name: &str) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let file = entry?.file_name();
            let file = file.to_string_lossy();
            let is_leftover = file
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('.') && rest.ends_with(TEMPORARY));
            if is_leftover {
                unlinkat(&self.file, file.as_ref(), UnlinkatFlags::NoRemoveDir)?;
            }
        }
        Ok(())
    }
}

/// Replaces the file at `path`, see [`Directory::replace`].
///
/// # Errors
/// When `path` names no file, or a step fails.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::other("the path names no file"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Directory::open(parent.unwrap_or(Path::new(".")))?.replace(name, content)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        (folder, directory)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_replaced_file_is_read_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/below");
        let directory = Directory::create(&path).unwrap();
        assert_eq!(directory.read("file", 10).unwrap(), None);
        for content in [b"first".as_slice(), b"second"] {
            directory.replace("file", content).unwrap();
            assert_eq!(directory.read("file", 10).unwrap().unwrap(), content);
        }
        assert_eq!(mode(&path), DIRECTORY_MODE);
        assert_eq!(mode(&path.join("file")), FILE_MODE);
        assert_eq!(names(&path), ["file"]);
    }

    #[test]
    fn a_new_file_is_written_further_while_it_has_its_name() {
        let (folder, directory) = directory();
        let mut file = directory.replace_by("file", |file| file.write_all(b"one")).unwrap();
        assert!(directory.has("file", &file) && !directory.has("other", &file));
        file.write_all(b", two").unwrap();
        assert_eq!(directory.read("file", 100).unwrap().unwrap(), b"one, two");
        directory.rename("file", "other").unwrap();
        assert!(!directory.has("file", &file) && directory.has("other", &file));
        symlink("other", folder.path().join("file")).unwrap();
        assert!(!directory.has("file", &file), "by a link");
        let failed = directory.replace_by("third", |_| Err(io::Error::other("full")));
        assert_eq!(
            (failed.unwrap_err().to_string(), names(folder.path())),
            ("full".to_owned(), vec!["file".to_owned(), "other".to_owned()])
        );
    }

    #[test]
    fn no_link_is_followed() {
        let (folder, directory) = directory();
        let target = folder.path().join("target");
        fs::write(&target, "precious").unwrap();
        symlink(&target, folder.path().join("file")).unwrap();
        let error = directory.read("file", 100).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        directory.replace("file", b"ours").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert_eq!(directory.read("file", 100).unwrap().unwrap(), b"ours");
    }

    #[test]
    fn only_a_regular_file_within_the_limit_is_read() {
        let (folder, directory) = directory();
        mkfifo(&folder.path().join("fifo"), Mode::S_IRWXU).unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        for name in ["fifo", "folder"] {
            let error = directory.read(name, 100).unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file", "{name}");
        }
        directory.replace("file", &[0; 101]).unwrap();
        assert!(directory.read("file", 100).is_err());
        assert!(directory.read("file", 101).unwrap().is_some());
    }

    #[test]
    fn only_leftovers_of_the_file_are_removed() {
        let (folder, directory) = directory();
        let kept = ["file", "file.damaged-1", "other.0123456789abcdef.new"];
        for name in kept.into_iter().chain(["file.0123456789abcdef.new", "file.new"]) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        directory.remove_leftovers("file").unwrap();
        assert_eq!(names(folder.path()), kept);
    }
}
