//! What was asked and not answered yet. The id of a view is on disk before the view is asked for, and stays there until the picture
//! is; so whatever crashes or gets lost between, the same request is asked again and costs nothing more.

use std::fs::File;
use std::io::{Read, Seek, Write};

use serde::{Deserialize, Serialize};

use super::Identity;
use crate::config::secrets::{SecretDirectory, SecretsError};
use crate::id::{ImageId, RequestId};
use crate::protocol::rights::ImageAction;

/// Longest entry that is read, in bytes.
const ENTRY_LIMIT: u64 = 4096;

/// An entry of the journal. While it is held, no other process of this user asks for the same.
#[derive(Debug)]
pub struct Journalled {
    directory: SecretDirectory,
    name: String,
    /// The request to ask with.
    pub id: RequestId,
    /// What it asks for.
    pub action: ImageAction,
    /// Whether it may have been asked before.
    pub is_repeated: bool,
    /// Holds the lock.
    _file: File,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    id: RequestId,
    action: ImageAction,
}

impl Journalled {
    /// The entry for this action on that image: one that waits for its answer since before, else a new one with the id `fresh`, which is
    /// durable when this returns. The action of an older one may have other numbers.
    ///
    /// # Errors
    /// The journal cannot be used.
    pub fn take(
        identity: &Identity,
        image: ImageId,
        action: ImageAction,
        fresh: RequestId,
    ) -> Result<Journalled, SecretsError> {
        let directory = identity.directory.child("journal")?;
        let name = match action {
            ImageAction::Lease { .. } => format!("{image}.lease"),
            _ => image.to_string(),
        };
        let mut file = directory.open_locked(&name)?;
        let unusable = |source| SecretsError::Unusable { path: directory.path(&name), source };
        // An entry that is not whole was never asked with: it is written before anything is sent.
        if let Some(Entry { id, action }) = read(&mut file).map_err(unusable)? {
            return Ok(Journalled { directory, name, id, action, is_repeated: true, _file: file });
        }
        let mut line = serde_json::to_vec(&Entry { id: fresh, action }).expect("ids and numbers are JSON");
        line.push(b'\n');
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&line)?;
            file.sync_all()
        };
        write(&mut file).map_err(unusable)?;
        Ok(Journalled { directory, name, id: fresh, action, is_repeated: false, _file: file })
    }

    /// What was asked for is complete, or refused: the entry goes.
    ///
    /// # Errors
    /// The system refuses.
    pub fn close(self) -> Result<(), SecretsError> {
        self.directory.remove(&self.name)
    }
}

fn read(file: &mut File) -> std::io::Result<Option<Entry>> {
    let mut bytes = Vec::new();
    file.take(ENTRY_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok()))
}
