//! When each follower is sent what: `core::thrift`, on the clock of whatever runtime Raft runs on.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::InstantOf;
use openraft::{AsyncRuntime, Instant};
use tokio::sync::Notify;

use crate::core::thrift::Thrift;
use crate::id::MemberId;
use crate::raft::log_store::Followers;
use crate::raft::types::Types;
use crate::time::Moment;

/// When the clock begins: before that nothing was sent, and long ago.
const BEGINNING: Moment = Moment::from_millis(60_000);

pub(crate) struct Pace<R: AsyncRuntime> {
    begun: InstantOf<Types<R>>,
    thrift: Mutex<Thrift>,
    hurried: Notify,
    /// The log of this node, once it is known.
    log: OnceLock<Followers>,
}

impl<R: AsyncRuntime> Pace<R> {
    pub fn new() -> Self {
        Pace { begun: Types::<R>::now(), thrift: Mutex::default(), hurried: Notify::new(), log: OnceLock::new() }
    }

    /// Who votes besides this node; none while two memberships count.
    pub fn followers(&self, followers: Option<BTreeSet<MemberId>>) {
        self.thrift().followers(followers);
    }

    /// Everybody gets entries at once for so long, those that wait at this moment too: the lead changes hands.
    pub fn hurry(&self, time: Duration) {
        self.thrift().hurry(self.now() + time);
        self.hurried.notify_waiters();
    }

    /// Lets entries for this follower wait for others to travel with.
    pub async fn pause(&self, to: MemberId) {
        let hurried = pin!(self.hurried.notified());
        let pause = self.thrift().pause(to, self.now());
        if !pause.is_zero() {
            futures::future::select(hurried, pin!(Types::<R>::sleep(pause))).await;
        }
    }

    pub fn sent(&self, to: MemberId, is_full: bool) {
        self.thrift().sent(to, is_full, self.now());
    }

    pub fn answered(&self, to: MemberId, succeeded: bool) {
        self.thrift().answered(to, succeeded, self.now());
    }

    /// Whom to tell what followers have.
    pub fn set_log(&self, log: Followers) {
        // Set once, when Raft has been started.
        let _ = self.log.set(log);
    }

    /// A member has all entries up to this one. Only those of voters are of use to a leader.
    pub fn acknowledged(&self, by: MemberId, index: u64) {
        if let Some(log) = self.log.get().filter(|_| self.thrift().counts(by)) {
            log.acknowledged(index);
        }
    }

    fn now(&self) -> Moment {
        BEGINNING + self.begun.elapsed()
    }

    fn thrift(&self) -> MutexGuard<'_, Thrift> {
        self.thrift.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
