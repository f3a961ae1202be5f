//! The simulated cluster: real `Group`s (campaign, network, state machine), a network that delays, loses and parts, nodes that
//! crash, and the checks of what must hold at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use image_cloud::core::membership::{Plan, Situation, plan_admission, plan_removal};
use image_cloud::id::{Incarnation, LogPosition, MemberId, NodeId, Term};
use image_cloud::protocol::election::{Campaign, Cause, ElectionResult};
use image_cloud::protocol::frame::Lane;
use image_cloud::protocol::membership::{Change, Introduction, Place};
use image_cloud::protocol::status::Leadership;
use image_cloud::raft::group::{ELECTION_WAIT, Group};
use image_cloud::raft::machine::{Applied, Machine};
use image_cloud::raft::types::position;
use image_cloud::raft::{Command, RaftSettings, RaftTransport, TransportError};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{AsyncRuntime, ServerState};

use openraft_rt_sim::SimRuntime;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Honesty, SharedDisk};
use super::invariants::{Invariant, Invariants, Observed, Violation};

/// The nodes that the cluster begins with.
pub const NODES: usize = 3;

/// Timers of the runtime may be late by a tick of theirs.
const TIMER_SLACK: Duration = Duration::from_millis(5);

/// Places for nodes: those, and some that come and go.
pub const SLOTS: usize = 5;

type SimGroup = Group<SimRuntime>;

pub fn member(index: usize) -> MemberId {
    MemberId { node: NodeId(index as u16 + 1), incarnation: Incarnation(index as u64 + 100) }
}

/// The members that the cluster begins with. Where they are is nothing to this network.
pub fn members() -> BTreeMap<MemberId, Place> {
    (0..NODES).map(|index| (member(index), place_of(index))).collect()
}

fn place_of(index: usize) -> Place {
    let address = |port: usize| SocketAddr::from(([127, 0, 0, 1], port as u16));
    Place::new(address(1 + index), address(1001 + index))
}

struct Slot {
    /// Whose disk is here. Another one comes only when this one was removed, or when the disk is lost.
    member: MemberId,
    group: Option<SimGroup>,
    life: u64,
}

struct Shared {
    rng: SmallRng,
    slots: Vec<Slot>,
    /// Directed links that carry nothing.
    cut: BTreeSet<(usize, usize)>,
    loss: f64,
    violation: Option<Violation>,
    /// Disks made so far: each makes another incarnation.
    made: u64,
    /// Members whose disk is gone for ever.
    lost: BTreeSet<MemberId>,
    /// Changes of the membership that were done.
    changes: usize,
    /// Messages that carry entries or tell a commit, by who is sent them.
    appends: BTreeMap<usize, usize>,
    disks: Vec<SharedDisk>,
}

#[derive(Clone)]
pub struct World {
    shared: Arc<Mutex<Shared>>,
    honesty: Honesty,
    invariants: Arc<Mutex<Invariants>>,
    /// Acknowledged commands and where they stand.
    acknowledged: Arc<Mutex<BTreeMap<u64, LogPosition>>>,
}

struct SimTransport {
    world: World,
    from: usize,
    life: u64,
}

impl RaftTransport for SimTransport {
    fn call(
        &self,
        to: MemberId,
        lane: Lane,
        request: Vec<u8>,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let (world, from, life) = (self.world.clone(), self.from, self.life);
        let (sender, receiver) = (world.member(from), to);
        let to = to.node.0 as usize - 1;
        if lane == Lane::Append {
            *world.shared().appends.entry(to).or_default() += 1;
        }
        let exchange = async move {
            world.travel(from, to).await;
            // Another life at the same address, or a node that has seen the sender removed: the listener lets nobody in.
            let lets_in = |group: &SimGroup| group.me() == receiver && !group.roster().removed.contains(&sender);
            let target = world.running(to).filter(|(group, _)| world.life(from) == life && lets_in(group));
            let Some((group, target_life)) = target else {
                return std::future::pending().await;
            };
            // The target works on, whether or not somebody still waits for the answer.
            let answer = SimRuntime::spawn(async move {
                group.receive(sender, request, |_| unreachable!("nobody hands writes on")).await
            })
            .await;
            world.travel(to, from).await;
            if world.life(to) != target_life {
                return std::future::pending().await;
            }
            answer.unwrap_or_default()
        };
        Box::pin(async move { SimRuntime::timeout(limit, exchange).await.map_err(|_| TransportError::Timeout) })
    }
}

impl World {
    pub fn new(seed: u64, honesty: Honesty) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let disks = (0..SLOTS).map(|_| SharedDisk::new(rng.random(), honesty)).collect();
        let slots = (0..SLOTS).map(|index| Slot { member: member(index), group: None, life: 0 }).collect();
        let shared = Shared {
            rng,
            slots,
            cut: BTreeSet::new(),
            loss: 0.0,
            violation: None,
            made: SLOTS as u64,
            lost: BTreeSet::new(),
            changes: 0,
            appends: BTreeMap::new(),
            disks,
        };
        World {
            shared: Arc::new(Mutex::new(shared)),
            honesty,
            invariants: Arc::default(),
            acknowledged: Arc::default(),
        }
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    pub fn random<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.shared().rng)
    }

    /// Whose disk is in that slot.
    pub fn member(&self, index: usize) -> MemberId {
        self.shared().slots[index].member
    }

    fn disk(&self, index: usize) -> SharedDisk {
        self.shared().disks[index].clone()
    }

    fn life(&self, index: usize) -> u64 {
        self.shared().slots[index].life
    }

    pub fn running(&self, index: usize) -> Option<(SimGroup, u64)> {
        let shared = self.shared();
        let slot = &shared.slots[index];
        slot.group.clone().map(|group| (group, slot.life))
    }

    /// One message's way: a delay, or for ever if it is lost.
    async fn travel(&self, from: usize, to: usize) {
        let (lost, micros) = {
            let mut shared = self.shared();
            let loss = shared.loss;
            let lost = shared.cut.contains(&(from, to)) || shared.rng.random_bool(loss);
            (lost, shared.rng.random_range(100..3_000))
        };
        if lost {
            std::future::pending::<()>().await;
        }
        SimRuntime::sleep(Duration::from_micros(micros)).await;
    }

    pub async fn start(&self, index: usize) {
        let life = self.life(index);
        let mut settings = RaftSettings::new(self.member(index), PathBuf::new());
        settings.snapshot_after = 25;
        settings.keep_after_snapshot = 5;
        let transport = Arc::new(SimTransport { world: self.clone(), from: index, life });
        let disk = self.disk(index);
        let machine = Machine::load(Arc::new(disk.clone())).expect("a simulated snapshot");
        let group = match SimGroup::start(&settings, transport, disk.open(), machine).await {
            Ok(group) => group,
            Err(error) => {
                let seen = format!("node {} does not start: {error}", self.member(index));
                return self.violated(Violation::new(Invariant::Progress, seen));
            }
        };
        self.shared().slots[index].group = Some(group.clone());
        SimRuntime::spawn(self.clone().watch_leaders(index, life, group));
    }

    /// Sees every change of the role.
    async fn watch_leaders(self, index: usize, life: u64, group: SimGroup) {
        let mut metrics = group.raft().server_metrics();
        loop {
            let now = metrics.borrow_watched().clone();
            if self.life(index) != life {
                return;
            }
            if now.state == ServerState::Leader && now.vote.is_committed() {
                let term = now.vote.leader_id().term;
                let checked = self.invariants.lock().unwrap().election_safety(term, now.id);
                if let Err(violation) = checked {
                    self.violated(violation);
                }
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    pub fn crash(&self, index: usize) {
        let group = {
            let mut shared = self.shared();
            let slot = &mut shared.slots[index];
            slot.life += 1;
            slot.group.take()
        };
        self.disk(index).crash();
        if let Some(group) = group {
            SimRuntime::spawn(async move { group.shutdown().await });
        }
    }

    /// The disk of a node stalls, or works again.
    pub fn set_stalled(&self, index: usize, stalls: bool) {
        self.disk(index).set_stalled(stalls);
    }

    /// Cuts one node off, in both directions or only outwards.
    pub fn isolate(&self, index: usize, inwards: bool) {
        let mut shared = self.shared();
        for other in (0..SLOTS).filter(|other| *other != index) {
            shared.cut.insert((index, other));
            if inwards {
                shared.cut.insert((other, index));
            }
        }
    }

    pub fn heal_network(&self) {
        self.shared().cut.clear();
    }

    pub fn set_loss(&self, loss: f64) {
        self.shared().loss = loss;
    }

    fn violated(&self, violation: Violation) {
        self.shared().violation.get_or_insert(violation);
    }

    /// Who leads by its own word, the latest term first.
    pub fn leader(&self) -> Option<(usize, Leadership)> {
        (0..SLOTS)
            .filter_map(|index| {
                let (group, _) = self.running(index)?;
                let now = group.raft().server_metrics().borrow_watched().clone();
                let leads = now.state == ServerState::Leader && now.vote.is_committed();
                let leadership = Leadership { term: Term(now.vote.leader_id().term), node: now.id.node };
                leads.then_some((index, leadership))
            })
            .max_by_key(|(_, leadership)| leadership.term)
    }

    pub fn last_log(&self, index: usize) -> LogPosition {
        self.running(index).map_or(LogPosition::default(), |(group, _)| {
            position(group.raft().data_metrics().borrow_watched().last_log)
        })
    }

    /// The leadership that a node last knew of.
    pub fn known_leadership(&self, index: usize) -> Option<Leadership> {
        let (group, _) = self.running(index)?;
        let vote = group.raft().server_metrics().borrow_watched().vote;
        let leader = vote.leader_id();
        Some(Leadership { term: Term(leader.term), node: leader.voted_for.node })
    }

    /// Whether a node runs there that is a voter by its own log.
    pub fn is_voter(&self, index: usize) -> bool {
        self.running(index).is_some_and(|(group, _)| group.roster().voters.contains(&group.me()))
    }

    /// Asks without waiting for the answer, as the election core does.
    pub fn campaign(&self, index: usize, campaign: Campaign, vacancy: Option<Leadership>) {
        // Whoever is no voter by its own log asks nobody: that much the core makes sure of.
        if let Some((group, _)) = self.running(index).filter(|_| self.is_voter(index)) {
            let world = self.clone();
            SimRuntime::spawn(async move { world.bounded(2, group.campaign(campaign, vacancy)).await });
        }
    }

    /// The same for a hand-over.
    pub fn hand_over(&self, index: usize, to: MemberId) {
        if let Some((group, _)) = self.running(index) {
            let world = self.clone();
            SimRuntime::spawn(async move { world.bounded(3, group.hand_over(to)).await });
        }
    }

    /// What an election asks of Raft, which waits so many times at most, one after the other. None if it waits longer.
    pub async fn bounded<T: Send>(&self, waits: u32, asked: impl Future<Output = T> + Send) -> Option<T> {
        let limit = waits * ELECTION_WAIT + TIMER_SLACK;
        let answer = SimRuntime::timeout(limit, asked).await.ok();
        if answer.is_none() {
            self.violated(Violation::new(Invariant::BoundedWaits, format!("an election waits longer than {limit:?}")));
        }
        answer
    }

    /// Proposes at a node and takes note if it is acknowledged.
    pub fn propose(&self, index: usize, number: u64) {
        let Some((group, _)) = self.running(index) else { return };
        let world = self.clone();
        SimRuntime::spawn(async move {
            if let Ok(applied) = group.propose(record(number)).await {
                world.acknowledged.lock().unwrap().insert(number, applied.position);
            }
        });
    }

    /// The same, and waits for the acknowledgement.
    pub async fn write(&self, index: usize, number: u64) -> Result<(), String> {
        let (group, _) = self.running(index).ok_or("it does not run")?;
        let applied = group.propose(record(number)).await.map_err(|error| error.to_string())?;
        self.acknowledged.lock().unwrap().insert(number, applied.position);
        Ok(())
    }

    /// Every node by its own word, for the message of a violation.
    pub fn describe(&self) -> String {
        let nodes = (0..SLOTS).map(|index| match self.running(index) {
            Some((group, _)) => group.raft().metrics().borrow_watched().to_string(),
            None => format!("node {} is down", index + 1),
        });
        nodes.collect::<Vec<_>>().join("\n")
    }

    pub fn acknowledged(&self) -> BTreeMap<u64, LogPosition> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Everything that must hold at every moment.
    pub fn check(&self) -> Result<(), Violation> {
        if let Some(violation) = self.shared().violation.clone() {
            return Err(violation);
        }
        let nodes: Vec<_> = (0..SLOTS).map(|index| (self.member(index), self.observe(index))).collect();
        self.invariants.lock().unwrap().check(&nodes)
    }

    fn observe(&self, index: usize) -> Observed {
        let running = self.running(index);
        let life = self.life(index);
        let disk = self.disk(index);
        let mut disk = disk.lock();
        let just_purged = std::mem::take(&mut disk.purged);
        let (log, purged) = (disk.seen.entries.clone(), disk.seen.purged);
        let vote_term = disk.seen.vote.map_or(0, |vote| vote.leader_id().term);
        let mut observed = Observed { life, log, purged, just_purged, ..Observed::default() };
        if let Some((group, _)) = running {
            // What a node says of itself lags behind its disk: a leader that has voted in a later term leads no more.
            let now = group.raft().server_metrics().borrow_watched().clone();
            let leads = now.state == ServerState::Leader && now.vote.is_committed();
            observed.leads_in = Some(now.vote.leader_id().term).filter(|term| leads && *term == vote_term);
            let committed = group.raft().data_metrics().borrow_watched().local_committed;
            observed.committed = committed.map(|id| (id, vote_term));
            observed.applied = Some(group.machine().applied().clone());
        }
        observed
    }

    /// At the end, when all have applied the same: nothing that was acknowledged is missing, and all states are equal.
    pub fn check_end(&self) -> Result<(), Violation> {
        let invariants = self.invariants.lock().unwrap();
        for (number, place) in self.acknowledged.lock().unwrap().iter() {
            let found = invariants.committed(place.length - 1);
            let is_it = found.is_some_and(|entry| {
                entry.payload == openraft::EntryPayload::Normal(record(*number))
                    && position(Some(entry.log_id)) == *place
            });
            if !is_it {
                let seen = format!("{number} was acknowledged at {place}, there is {found:?}");
                return Err(Violation::new(Invariant::Durability, seen));
            }
        }
        let missing = |what: &str| Violation::new(Invariant::Progress, what.to_owned());
        let (leader, _) = self.leader().ok_or_else(|| missing("nobody leads"))?;
        let roster = self.running(leader).map(|(group, _)| group.roster()).unwrap_or_default();
        if roster.is_changing() || roster.voters.len() < NODES {
            return Err(missing("a change of the members is not finished"));
        }
        // Lost disks that nobody has replaced are no fault of Raft.
        let voters = roster.voters.iter().filter(|voter| !self.shared().lost.contains(voter)).copied();
        let states: Vec<_> = voters.map(|voter| self.state_of(voter)).collect();
        if states.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(missing(&format!("states differ: {states:?}")));
        }
        if states.iter().any(Option::is_none) || states[0].as_ref().is_none_or(|it| it.state.cluster_id().is_none()) {
            return Err(missing("a voter is missing, or the cluster has no name"));
        }
        Ok(())
    }

    fn state_of(&self, member: MemberId) -> Option<Applied> {
        let (group, _) = self.running(member.node.0 as usize - 1)?;
        (group.me() == member).then(|| group.machine().applied().clone())
    }

    /// Whether the member in that slot was removed, as far as anybody who runs knows: it will never vote again.
    pub fn is_removed(&self, index: usize) -> bool {
        let member = self.member(index);
        (0..SLOTS).filter_map(|other| self.running(other)).any(|(group, _)| group.roster().removed.contains(&member))
    }

    /// Whether the cluster began with that slot, or somebody was taken in there since.
    fn is_used(&self, index: usize) -> bool {
        index < NODES || self.member(index) != member(index)
    }

    /// Whether a node of that slot is to run when everything is healed.
    pub fn belongs(&self, index: usize) -> bool {
        self.is_used(index) && !self.is_removed(index)
    }

    /// Starts a node with an empty disk in a slot whose last member will not come back.
    async fn start_empty(&self, index: usize) -> MemberId {
        self.crash(index);
        let member = {
            let mut shared = self.shared();
            shared.made += 1;
            let seed = shared.rng.random();
            let incarnation = Incarnation(100 + shared.made);
            shared.disks[index] = SharedDisk::new(seed, self.honesty);
            shared.slots[index].member.incarnation = incarnation;
            shared.slots[index].member
        };
        self.start(index).await;
        member
    }

    /// A disk is lost for ever, if the cluster can bear that: only one at a time among those that anybody takes for members.
    fn may_lose_a_disk(&self) -> bool {
        let rosters: Vec<_> =
            (0..SLOTS).filter_map(|index| self.running(index)).map(|(group, _)| group.roster()).collect();
        // Somebody who does not run may know a membership that nobody else does.
        let all_run = (0..SLOTS).all(|index| !self.belongs(index) || self.running(index).is_some());
        let shared = self.shared();
        let is_lost = |member: &MemberId| shared.lost.contains(member);
        all_run && !rosters.iter().any(|roster| roster.places.keys().any(is_lost))
    }

    /// One change of the membership as a leader makes it, by the rules of the core; `kind` and `index` say which.
    pub async fn change_members(&self, kind: Change, index: usize) -> Option<()> {
        let (leader, _) = self.leader()?;
        let (group, _) = self.running(leader)?;
        let live: BTreeSet<MemberId> =
            (0..SLOTS).filter_map(|other| self.running(other)).map(|(group, _)| group.me()).collect();
        let old = self.member(index);
        if kind == Change::Remove {
            let roster = group.roster();
            if roster.voters.len() <= NODES {
                return None;
            }
            let situation = Situation { roster: &roster, me: group.me(), live: &live };
            return match plan_removal(situation, old.node).ok()? {
                Plan::Remove { leaves } => self.done(group.change_voters(&roster, None, &leaves).await.is_ok()),
                _ => None,
            };
        }
        // A slot of its own is empty for whoever was never there or was removed; a member's disk must be lost before.
        let is_free = !self.is_used(index) || self.is_removed(index);
        if !is_free {
            if kind == Change::Add || !self.may_lose_a_disk() || index == leader {
                return None;
            }
            self.shared().lost.insert(old);
        }
        let new = self.start_empty(index).await;
        let roster = group.roster();
        let found = Introduction { member: new, place: place_of(index), last_log: LogPosition::default() };
        let situation = Situation { roster: &roster, me: group.me(), live: &live };
        let kind = if roster.stands_for(new.node).is_some() { Change::Replace } else { Change::Add };
        let place = Place { since_unix_ms: Some(new.incarnation.0), ..place_of(index) };
        let Plan::TakeIn { member, place, leaves } = plan_admission(situation, kind, new.node, place, found).ok()?
        else {
            return None;
        };
        group.take_in(&roster, member, place).await.ok()?;
        group.wait_until_caught_up(member, Duration::from_millis(500)).await.ok()?;
        let roster = group.roster();
        self.done(group.change_voters(&roster, Some(member), &leaves).await.is_ok())
    }

    fn done(&self, done: bool) -> Option<()> {
        self.shared().changes += usize::from(done);
        done.then_some(())
    }

    /// Changes of the membership that were done.
    pub fn changes(&self) -> usize {
        self.shared().changes
    }

    /// Messages that carried entries or told a commit since this was asked last, by who was sent them.
    pub fn take_appends(&self) -> BTreeMap<usize, usize> {
        std::mem::take(&mut self.shared().appends)
    }

    /// Whoever leads finishes what a leader before it left half done.
    pub fn finish_changes(&self) {
        if let Some((leader, _)) = self.leader()
            && let Some((group, _)) = self.running(leader)
        {
            let roster = group.roster();
            if roster.is_changing() {
                SimRuntime::spawn(async move { group.finish_change(&roster).await });
            }
        }
    }
}

pub fn record(number: u64) -> Command {
    Command::RecordElection(ElectionResult {
        coordinator: Leadership { term: Term(0), node: NodeId(1) },
        vacancy: None,
        caller: None,
        cause: Cause::NoCoordinator,
        standings: Vec::new(),
        campaign: None,
        votes: Vec::new(),
        voters: 3,
        took_micros: number,
        handed_over_to: None,
    })
}
