//! The table of users. A name goes to the first who takes it, also if it is written otherwise: `Alice` and `alice` are one name.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::stored;
use crate::id::{UserId, UserKeyId};
use crate::protocol::ledger::{Caller, RefusedWhy};
use crate::protocol::user::{Admission, Date, InvitationId, SIGNED_WITHIN_MS, Signed, User, UserCommand, UserKeys};

/// What is kept beside the name of a user, about, in bytes.
const BESIDE_A_NAME: u64 = 256;

/// Invitations that may be open.
const INVITATIONS_LIMIT: usize = 10_000;

/// The table. Persistent maps: a clone shares everything that does not change afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredUsers")]
pub(super) struct Users {
    users: OrdMap<UserId, Entry>,
    invitations: OrdMap<InvitationId, Date>,
    /// Who has a name, by the name as it is compared.
    #[serde(skip_serializing)]
    names: OrdMap<String, UserId>,
    #[serde(skip_serializing)]
    name_bytes: u64,
}

/// A table as a snapshot has it.
#[derive(Deserialize)]
struct StoredUsers {
    #[serde(deserialize_with = "stored::map::<UserId, _, _, _>")]
    users: OrdMap<UserId, Entry>,
    #[serde(deserialize_with = "stored::map::<InvitationId, _, _, _>")]
    invitations: OrdMap<InvitationId, Date>,
}

impl From<StoredUsers> for Users {
    fn from(StoredUsers { users, invitations }: StoredUsers) -> Users {
        let names = users.iter().map(|(id, entry)| (as_compared(&entry.name), *id)).collect();
        let name_bytes = users.values().map(|entry| entry.name.len() as u64).sum();
        Users { users, invitations, names, name_bytes }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: String,
    keys: UserKeys,
    key: UserKeyId,
    is_expelled: bool,
}

impl Entry {
    fn shown(&self, id: UserId) -> User {
        User { id, name: self.name.clone(), keys: self.keys, is_expelled: self.is_expelled }
    }
}

fn as_compared(name: &str) -> String {
    name.to_lowercase()
}

/// Whether a signature was made about now.
fn check_time(signed: Signed, entry_date: Date) -> Result<(), RefusedWhy> {
    let is_near = signed.at.0.abs_diff(entry_date.0) <= SIGNED_WITHIN_MS;
    if is_near { Ok(()) } else { Err(RefusedWhy::NotOfThisTime { now_unix_ms: entry_date.0 }) }
}

impl Users {
    /// Whether the signature is of now, and by the present keys of a user who may ask for something.
    pub fn check(&self, caller: Caller, signed: Signed, entry_date: Date) -> Result<UserId, RefusedWhy> {
        let Caller::User(user) = caller else { return Err(RefusedWhy::UnknownCaller) };
        let entry = self.users.get(&user).ok_or(RefusedWhy::UnknownCaller)?;
        if entry.is_expelled {
            return Err(RefusedWhy::UserExpelled);
        }
        if entry.key != signed.key {
            return Err(RefusedWhy::KeyReplaced);
        }
        check_time(signed, entry_date)?;
        Ok(user)
    }

    /// Does a command. One that is done already is done: nothing changes then.
    pub fn apply(
        &mut self,
        caller: Caller,
        signed: Option<Signed>,
        command: &UserCommand,
        entry_date: Date,
    ) -> Result<(), RefusedWhy> {
        match command {
            UserCommand::Register { name, keys, admission } => {
                let signed = signed.filter(|signed| signed.key == keys.id() && caller == Caller::User(keys.user()));
                check_time(signed.ok_or(RefusedWhy::KeyReplaced)?, entry_date)?;
                self.register(name, *keys, *admission, entry_date)
            }
            UserCommand::Rotate { to } => {
                let user = self.check(caller, signed.ok_or(RefusedWhy::KeyReplaced)?, entry_date)?;
                if let Some(entry) = self.users.get_mut(&user) {
                    (entry.keys, entry.key) = (*to, to.id());
                }
                Ok(())
            }
            // The other commands are an administrator's, whose token the node that was asked has seen.
            _ if caller != Caller::Administrator => Err(RefusedWhy::NotAnAdministrator),
            UserCommand::Invite { invitation, until } => {
                self.invitations = self
                    .invitations
                    .iter()
                    .filter(|(_, until)| **until > entry_date)
                    .map(|(id, until)| (*id, *until))
                    .collect();
                if self.invitations.len() >= INVITATIONS_LIMIT {
                    return Err(RefusedWhy::TooManyInvitations);
                }
                self.invitations.insert(*invitation, *until);
                Ok(())
            }
            UserCommand::Expel { user } => {
                self.users.get_mut(user).ok_or(RefusedWhy::NoSuchUser)?.is_expelled = true;
                Ok(())
            }
        }
    }

    fn register(
        &mut self,
        name: &str,
        keys: UserKeys,
        admission: Admission,
        entry_date: Date,
    ) -> Result<(), RefusedWhy> {
        let (user, compared) = (keys.user(), as_compared(name));
        let (known, owner) = (self.users.get(&user), self.names.get(&compared));
        if known.is_some_and(|entry| !entry.is_expelled) && owner == Some(&user) {
            return Ok(());
        }
        // Who was not invited learns nothing, not even which names are taken.
        if let Admission::Invited(invitation) = admission
            && !self.is_invited(invitation, entry_date)
        {
            return Err(RefusedWhy::NotInvited);
        }
        match (known, owner) {
            (Some(_), _) => return Err(RefusedWhy::KeysTaken),
            (None, Some(_)) => return Err(RefusedWhy::NameTaken),
            (None, None) => {}
        }
        if let Admission::Invited(invitation) = admission {
            self.invitations.remove(&invitation);
        }
        self.name_bytes += name.len() as u64;
        self.names.insert(compared, user);
        self.users.insert(user, Entry { name: name.to_owned(), keys, key: keys.id(), is_expelled: false });
        Ok(())
    }

    /// Whether the invitation is open.
    pub fn is_invited(&self, invitation: InvitationId, entry_date: Date) -> bool {
        self.invitations.get(&invitation).is_some_and(|until| *until > entry_date)
    }

    /// Whether rights may be given to that user.
    pub fn may_have_rights(&self, user: UserId) -> bool {
        self.users.get(&user).is_some_and(|entry| !entry.is_expelled)
    }

    pub fn get(&self, user: UserId) -> Option<User> {
        self.users.get(&user).map(|entry| entry.shown(user))
    }

    pub fn named(&self, name: &str) -> Option<User> {
        self.get(*self.names.get(&as_compared(name))?)
    }

    /// Users in the order of their ids, behind one.
    pub fn list(&self, after: Option<UserId>, limit: usize) -> Vec<User> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = self.users.range((after.map_or(Unbounded, Excluded), Unbounded));
        range.take(limit).map(|(id, entry)| entry.shown(*id)).collect()
    }

    /// Bytes that the table takes, about.
    pub fn footprint_bytes(&self) -> u64 {
        2 * self.name_bytes + BESIDE_A_NAME * self.users.len() as u64 + 64 * self.invitations.len() as u64
    }
}
