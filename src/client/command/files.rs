//! Files in and out: bounded reading; writing that never leaves half a file and never overwrites unasked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::exit::{CommandError, Exit};

/// Stands for stdin or stdout.
const STREAM: &str = "-";

/// Reads a file of at most `limit` bytes, or stdin for `-`.
pub fn read(path: &Path, limit: u64) -> Result<Bytes, CommandError> {
    let (reader, size): (Box<dyn Read>, u64) = if path == Path::new(STREAM) {
        (Box::new(io::stdin().lock()), 0)
    } else {
        let cannot_read =
            |error| CommandError::file(format!("cannot read {}", path.display()), &error, "name a picture file");
        let file = File::open(path).map_err(cannot_read)?;
        let metadata = file.metadata().map_err(cannot_read)?;
        if metadata.is_dir() {
            return Err(CommandError::new(
                Exit::Usage,
                format!("{} is a directory; name a picture file", path.display()),
            ));
        }
        (Box::new(file), metadata.len().min(limit))
    };
    let mut bytes = Vec::with_capacity(size as usize + 1);
    reader
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CommandError::file(format!("cannot read {}", path.display()), &error, "try again"))?;
    if bytes.len() as u64 > limit {
        let mebibytes = limit >> 20;
        let text = format!(
            "{} has more than {mebibytes} MiB; use a smaller file, or raise limits.sealed_mib in the configuration",
            path.display()
        );
        return Err(CommandError::new(Exit::Failed, text));
    }
    Ok(bytes.into())
}

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    Stdout,
    /// A file that must not exist yet.
    New(PathBuf),
    /// A file that is replaced if it exists.
    Replace(PathBuf),
}

/// Whether existing files are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    Replace,
}

impl From<Force> for Existing {
    fn from(force: Force) -> Self {
        if force.force { Existing::Replace } else { Existing::Refuse }
    }
}

/// The picture that a command is about, by its place or by name: either is the first that somebody tries.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct PictureArgument {
    /// The picture; `-` for stdin
    #[arg(value_name = "PICTURE")]
    picture: Option<PathBuf>,
    /// The same by name
    #[arg(short, long, value_name = "PICTURE")]
    input: Option<PathBuf>,
}

impl PictureArgument {
    pub fn path(&self) -> &Path {
        self.picture.as_deref().or(self.input.as_deref()).expect("clap refuses a command line with neither")
    }
}

/// The flag of all commands that write one file.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Force {
    /// Replace the output file if it exists; without this an existing file is never overwritten
    #[arg(long)]
    pub force: bool,
}

impl Sink {
    /// Checks before any work is done that the result can go there.
    pub fn check(path: &Path, existing: Existing) -> Result<Sink, CommandError> {
        if path == Path::new(STREAM) {
            return Ok(Sink::Stdout);
        }
        match existing {
            Existing::Replace => Ok(Sink::Replace(path.to_owned())),
            Existing::Refuse if path.symlink_metadata().is_ok() => Err(exists(path)),
            Existing::Refuse => Ok(Sink::New(path.to_owned())),
        }
    }

    /// Writes the whole result, or nothing: through a temporary file beside it.
    pub fn write(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let path = match self {
            Sink::Stdout => return super::output::print_bytes(bytes),
            Sink::New(path) | Sink::Replace(path) => path,
        };
        let cannot_write = |error: io::Error| {
            CommandError::file(format!("cannot write {}", path.display()), &error, "choose another file with -o")
        };
        let temporary = temporary_beside(path).map_err(cannot_write)?;
        let mut file = OpenOptions::new().create_new(true).write(true).open(&temporary).map_err(cannot_write)?;
        let written = file.write_all(bytes).and_then(|()| self.rename(&temporary, path));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            let taken = error.kind() == ErrorKind::AlreadyExists;
            return Err(if taken { exists(path) } else { cannot_write(error) });
        }
        Ok(())
    }

    /// Gives a finished file its name. A new one's must be free still: whoever took it since the check keeps it.
    fn rename(&self, temporary: &Path, path: &Path) -> io::Result<()> {
        if let Sink::New(_) = self {
            match fs::hard_link(temporary, path) {
                Ok(()) => return fs::remove_file(temporary),
                // Some disks have no links: there an empty file holds the name.
                Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
                    OpenOptions::new().create_new(true).write(true).open(path)?;
                }
                Err(error) => return Err(error),
            }
        }
        fs::rename(temporary, path)
    }

    /// Takes a written result away again; what it has replaced is gone, so it stays there.
    pub fn take_back(&self) {
        if let Sink::New(path) = self {
            // Whatever stops that, there is another error to tell.
            let _ = fs::remove_file(path);
        }
    }

    /// For people.
    pub fn name(&self) -> String {
        match self {
            Sink::Stdout => "stdout".into(),
            Sink::New(path) | Sink::Replace(path) => path.display().to_string(),
        }
    }
}

/// A file under a temporary name beside the place where it will be: opened before something is spent on its content. It is gone
/// when it is dropped unpublished.
pub struct Draft {
    temporary: PathBuf,
    file: File,
}

impl Draft {
    pub fn beside(path: &Path) -> Result<Draft, CommandError> {
        let cannot_write = |error: io::Error| {
            CommandError::file(format!("cannot write {}", path.display()), &error, "choose another file with -o")
        };
        let temporary = temporary_beside(path).map_err(cannot_write)?;
        let file = OpenOptions::new().create_new(true).write(true).open(&temporary).map_err(cannot_write)?;
        Ok(Draft { temporary, file })
    }

    /// Gives it its content and its name, durably.
    pub fn publish(mut self, bytes: &[u8], sink: &Sink) -> Result<(), CommandError> {
        let (Sink::New(path) | Sink::Replace(path)) = sink else { return sink.write(bytes) };
        let mut publish = || {
            self.file.write_all(bytes)?;
            self.file.sync_all()?;
            sink.rename(&self.temporary, path)?;
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
        };
        publish().map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(path),
            _ => CommandError::file(format!("cannot write {}", path.display()), &error, "choose another file with -o"),
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn exists(path: &Path) -> CommandError {
    let text = format!("{} exists; choose another file with -o, or replace it with --force", path.display());
    CommandError::new(Exit::Failed, text)
}

fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "not a file name"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    // Its own each time: a view that is denied has one for the picture and one for the cover, and a killed program leaves its own behind.
    temporary.push(format!(".{:016x}.part", rand::random::<u64>()));
    Ok(path.with_file_name(temporary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_file_is_replaced_only_when_asked_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.png");
        let sink = Sink::check(&path, Existing::Refuse).unwrap();
        sink.write(b"one").unwrap();
        assert!(sink.write(b"two").unwrap_err().text.unwrap().contains("--force"), "taken since the check");
        assert_eq!(Sink::check(&path, Existing::Refuse).unwrap_err().exit, Exit::Failed);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        Sink::check(&path, Existing::Replace).unwrap().write(b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_that_cannot_be_read_or_written_say_so_with_their_code() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("no/such.png");
        assert_eq!(read(&missing, 1).unwrap_err().exit, Exit::NotFound);
        assert_eq!(read(directory.path(), 1).unwrap_err().exit, Exit::Usage);
        let error = Sink::check(&missing, Existing::Refuse).unwrap().write(b"x").unwrap_err();
        assert_eq!(error.exit, Exit::NotFound);
        assert!(error.text.unwrap().contains("no/such.png"));
    }
}
