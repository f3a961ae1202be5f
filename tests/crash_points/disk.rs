//! A disk that remembers what was synced: fed with a recording, it says what a power cut may leave.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::recording::Event;

/// Names of files, below the recorded root, and what is in them.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What becomes of that which was written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All of it is lost.
    Lost,
    /// All of it is there.
    Kept,
    /// It ends at some byte, and so does what was appended to the file.
    Cut,
    /// It ends at some byte, but the file has its length already.
    Blank,
    /// A block of it is lost, and what follows is there.
    Hole,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// Whether these are the zeros that are written ahead of the frames, which are none.
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => {
                content.resize(content.len().max(offset + bytes.len()), 0);
                content[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Change::Truncate(length) => content.resize(*length, 0),
        }
    }

    /// Bytes that it writes and that can be missed: zeros are written where nothing is.
    fn written(&self) -> usize {
        match self {
            Change::Write { bytes, .. } if !is_blank(bytes) => bytes.len(),
            Change::Write { .. } | Change::Truncate(_) => 0,
        }
    }

    /// The first bytes of what it writes.
    fn first(&self, length: usize) -> Change {
        match self {
            Change::Write { offset, bytes } => Change::Write { offset: *offset, bytes: bytes[..length].to_vec() },
            Change::Truncate(_) => self.clone(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct File {
    synced: Vec<u8>,
    pending: Vec<Change>,
}

impl File {
    fn seen(&self) -> Vec<u8> {
        let mut content = self.synced.clone();
        self.pending.iter().for_each(|change| change.apply(&mut content));
        content
    }

    fn after(&self, fate: Fate, rng: &mut SmallRng) -> Vec<u8> {
        let all: usize = self.pending.iter().map(Change::written).sum();
        match fate {
            Fate::Lost => self.synced.clone(),
            Fate::Kept => self.seen(),
            // To be made shorter or longer is one step.
            _ if all == 0 => {
                if rng.random_bool(0.5) {
                    self.seen()
                } else {
                    self.synced.clone()
                }
            }
            Fate::Cut => self.written_up_to(rng.random_range(0..all)),
            Fate::Blank => {
                let mut content = self.written_up_to(rng.random_range(0..all));
                content.resize(self.seen().len(), 0);
                content
            }
            Fate::Hole => {
                let Some(Change::Write { offset, bytes }) = self.pending.iter().rev().find(|write| write.written() > 0)
                else {
                    return self.seen();
                };
                let mut content = self.seen();
                let begin = offset + rng.random_range(0..bytes.len());
                let end = (begin + rng.random_range(1..=512)).min(offset + bytes.len()).min(content.len());
                let before = |at| self.synced.get(at).copied().unwrap_or(0);
                content[begin..end].iter_mut().zip(begin..).for_each(|(byte, at)| *byte = before(at));
                content
            }
        }
    }

    /// So many bytes of what was written and not synced, and the changes of length before them.
    fn written_up_to(&self, bytes: usize) -> Vec<u8> {
        let mut content = self.synced.clone();
        let mut left = bytes;
        for change in &self.pending {
            if change.written() > left {
                change.first(left).apply(&mut content);
                break;
            }
            left -= change.written();
            change.apply(&mut content);
        }
        content
    }
}

type Names = BTreeMap<String, usize>;

#[derive(Clone, Debug)]
enum Naming {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Naming {
    fn apply(&self, names: &mut Names) {
        match self {
            Naming::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Naming::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Naming::Remove(name) => drop(names.remove(name)),
        }
    }

    fn directory(&self) -> &str {
        let (Naming::Create(name, _) | Naming::Rename(name, _) | Naming::Remove(name)) = self;
        name.rsplit_once('/').map_or(".", |(directory, _)| directory)
    }
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    names: Names,
    synced_names: Names,
    /// Changes of names that no sync of their directory has made durable, in order.
    namings: Vec<Naming>,
}

impl Disk {
    /// A disk on which these files are durable.
    pub fn holding(files: &Files) -> Disk {
        let mut disk = Disk::default();
        for (name, content) in files {
            disk.names.insert(name.clone(), disk.files.len());
            disk.files.push(File { synced: content.clone(), pending: Vec::new() });
        }
        disk.synced_names = disk.names.clone();
        disk
    }

    /// What the recorded process did next.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Create(name) => {
                self.name(Naming::Create(name.clone(), self.files.len()));
                self.files.push(File::default());
            }
            Event::Write { name, offset, bytes } => {
                self.change(name, Change::Write { offset: *offset, bytes: bytes.clone() });
            }
            Event::Truncate { name, length } => self.change(name, Change::Truncate(*length)),
            Event::Rename(from, to) => self.name(Naming::Rename(from.clone(), to.clone())),
            Event::Remove(name) => self.name(Naming::Remove(name.clone())),
            Event::Sync(name) => match self.names.get(name) {
                Some(&file) => {
                    let file = &mut self.files[file];
                    file.synced = file.seen();
                    file.pending.clear();
                }
                None => {
                    let (durable, rest) =
                        std::mem::take(&mut self.namings).into_iter().partition(|naming| naming.directory() == name);
                    self.namings = rest;
                    let durable: Vec<Naming> = durable;
                    durable.iter().for_each(|naming| naming.apply(&mut self.synced_names));
                }
            },
            Event::Mark(_) => {}
        }
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.namings.push(naming);
    }

    fn change(&mut self, name: &str, change: Change) {
        let file = self.names[name];
        self.files[file].pending.push(change);
    }

    /// What every process sees, also after one was killed.
    pub fn seen(&self) -> Files {
        self.names.iter().map(|(name, file)| (name.clone(), self.files[*file].seen())).collect()
    }

    /// Whether a power cut now would find everything synced.
    pub fn is_synced(&self) -> bool {
        self.namings.is_empty() && self.names.values().all(|file| self.files[*file].pending.is_empty())
    }

    /// What a power cut leaves. Names change in the order in which they were changed, as in a journal; each file has its fate for itself.
    pub fn after_power_cut(&self, fate: Fate, rng: &mut SmallRng) -> Files {
        let kept = match fate {
            Fate::Lost => 0,
            Fate::Kept => self.namings.len(),
            _ => rng.random_range(0..=self.namings.len()),
        };
        let mut names = self.synced_names.clone();
        self.namings[..kept].iter().for_each(|naming| naming.apply(&mut names));
        names.iter().map(|(name, file)| (name.clone(), self.files[*file].after(fate, rng))).collect()
    }
}

/// Writes the files into a directory, with the directories that they and the program need.
pub fn write(root: &Path, files: &Files, directories: &[&str]) {
    for directory in directories {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (name, content) in files {
        fs::write(root.join(name), content).unwrap();
    }
}
