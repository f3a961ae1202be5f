//! The node: an actor that holds the cores, turns messages into inputs and performs effects. It decides nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use tokio::sync::watch;

use super::desk::Desk;
use super::ledger::without_quorum;
use super::resources;
use super::shared::{Shared, View};
use super::worker::Tools;
use crate::core::election::{self, Election, RaftView};
use crate::core::liveness::{self, Liveness};
use crate::core::membership::Roster;
use crate::core::{failure, placement, recovery};
use crate::id::{MemberId, NodeId};
use crate::protocol::election::{ElectionMessage, ElectionResult, Heartbeat};
use crate::protocol::event::EventKind;
use crate::protocol::job::{Announcement, EncryptionResponse};
use crate::protocol::membership::warning_of_size;
use crate::protocol::status::{NodeState, NodeStatus, PeerStatus, RaftRole};
use crate::protocol::sync::{StateSync, StateSyncResponse};
use crate::raft::{Command, RaftNode};
use crate::time::{self, Moment};
use crate::transport::{Gate, Links, Standing};

mod perform;

/// Messages that may wait for the actor; each source keeps to it (`try_send`), and what does not fit is dropped as the network
/// would drop it.
const MAILBOX: usize = 1024;

/// A heartbeat older than this says nothing about the present.
const FRESH: Duration = Duration::from_millis(500);

/// The parts that a node is put together from.
pub struct Parts {
    /// What other threads may know.
    pub shared: Arc<Shared>,
    /// What the workers need.
    pub tools: Arc<Tools>,
    /// Where jobs are taken.
    pub desk: Desk,
    /// Outbound connections.
    pub links: Links,
    /// Cuts the node off while it is Failed.
    pub gate: Gate,
    /// Raft.
    pub raft: RaftNode,
    /// The configured nodes and where they answer HTTP: who is in the cluster until there is a membership.
    pub configured: BTreeMap<NodeId, SocketAddr>,
    /// Image workers.
    pub workers: u32,
    /// Time between two ticks.
    pub tick: Duration,
    /// The cores.
    pub election: Election,
    /// Whether peers are heard.
    pub liveness: Liveness,
    /// The coordinator's table.
    pub placement: placement::Placement,
    /// The node's life.
    pub recovery: recovery::Recovery,
    /// The failure simulation.
    pub failures: failure::Failures,
}

/// One node of the cluster.
pub struct Node {
    parts: Parts,
    raft_view: RaftView,
    rosters: watch::Receiver<Roster>,
    roster: Roster,
    last_append: Option<Moment>,
    heard: BTreeMap<MemberId, (Heartbeat, Moment)>,
    placements: u64,
    /// An election that this node won, until the ledger takes entries of its term.
    unrecorded: Option<ElectionResult>,
    started: Moment,
}

impl Node {
    /// A node from its parts, not yet started.
    pub fn new(parts: Parts) -> Self {
        let mut rosters = parts.raft.rosters();
        rosters.mark_changed();
        Node {
            parts,
            rosters,
            raft_view: RaftView::default(),
            roster: Roster::default(),
            last_append: None,
            heard: BTreeMap::new(),
            placements: 0,
            unrecorded: None,
            started: time::now(),
        }
    }

    fn me(&self) -> NodeId {
        self.parts.shared.node()
    }

    fn failed(&self) -> bool {
        self.parts.recovery.state() == NodeState::Failed
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        let now = time::now();
        self.failures(now, failure::Input::Tick, context);
        let (load, pressure, counters) = self.parts.desk.load();
        let state = self.parts.recovery.state();
        let report = placement::Input::Report {
            node: self.me(),
            state,
            load: pressure,
            workers: self.parts.workers,
            jobs_accepted: counters.accepted,
        };
        self.parts.placement.step(now, report);
        if !self.failed() {
            let appended = self.parts.raft.last_append();
            if std::mem::replace(&mut self.last_append, appended) != appended {
                self.liveness(now, liveness::Input::Appended, context);
            }
            self.liveness(now, liveness::Input::Tick, context);
        }
        let state = self.parts.recovery.state_for_elections();
        self.election(now, election::Input::Own { load, state }, context);
        self.election(now, election::Input::Disk { waits: self.parts.raft.disk_waits() }, context);
        self.election(now, election::Input::Tick, context);
        let active: BTreeSet<NodeId> = self
            .heard
            .iter()
            .filter(|(_, (heartbeat, at))| heartbeat.state == NodeState::Active && now.since(*at) < FRESH)
            .map(|(member, _)| member.node)
            .collect();
        self.recovery(now, recovery::Input::ActivePeers(active), context);
        let is_outsider = self.parts.election.is_outsider();
        self.recovery(now, recovery::Input::Outsider(is_outsider), context);
        self.recovery(now, recovery::Input::Tick, context);
    }

    fn election(&mut self, now: Moment, input: election::Input, context: &mut Context<Self>) {
        for effect in self.parts.election.step(now, input) {
            self.perform_election(now, effect, context);
        }
    }

    fn liveness(&mut self, now: Moment, input: liveness::Input, context: &mut Context<Self>) {
        for effect in self.parts.liveness.step(now, input) {
            self.perform_liveness(now, effect, context);
        }
    }

    fn recovery(&mut self, now: Moment, input: recovery::Input, context: &mut Context<Self>) {
        for effect in self.parts.recovery.step(now, input) {
            self.perform_recovery(now, effect, context);
        }
        self.publish();
    }

    fn failures(&mut self, now: Moment, input: failure::Input, context: &mut Context<Self>) {
        for effect in self.parts.failures.step(now, input) {
            self.perform_failure(now, effect, context);
        }
    }

    fn propose(&self, command: Command) {
        let (raft, me) = (self.parts.raft.clone(), self.me());
        tokio::spawn(async move {
            let what = command.to_string();
            if let Err(error) = raft.propose(command).await {
                log::warn!("node {me}: not committed: {what}: {error}");
            }
        });
    }

    fn publish(&self) {
        let recovery = &self.parts.recovery;
        self.parts.shared.publish(View {
            state: recovery.state(),
            term: self.raft_view.term,
            coordinator: self.parts.election.coordinator(),
        });
    }

    fn role(&self) -> RaftRole {
        let view = &self.raft_view;
        let votes = view.voters.contains(&self.parts.shared.member);
        match view.leader {
            Some(leader) if leader == self.me() => RaftRole::Leader,
            _ if !votes && !view.voters.is_empty() => RaftRole::Learner,
            _ if self.parts.election.phase() == election::Phase::Campaigning => RaftRole::Candidate,
            _ => RaftRole::Follower,
        }
    }
}

impl Actor for Node {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
        context.run_interval(self.parts.tick, Self::tick);
        let mut views = self.parts.raft.views();
        let node = context.address();
        tokio::spawn(async move {
            loop {
                let view = views.borrow_and_update().clone();
                if node.send(RaftChanged(view)).await.is_err() || views.changed().await.is_err() {
                    return;
                }
            }
        });
        let mut standing = self.parts.links.standing();
        let node = context.address();
        tokio::spawn(async move {
            if standing.wait_for(|standing| *standing == Standing::Unknown).await.is_ok() {
                // A node whose mailbox is closed is stopping anyway.
                let _ = node.send(ElectionInput(election::Input::NotAMember)).await;
            }
        });
        log::info!("node {}: started in state Recovering", self.me());
    }
}

/// Raft's view changed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RaftChanged(pub RaftView);

/// A heartbeat of a peer, stamped when it arrived.
#[derive(Message)]
#[rtype(result = "()")]
pub struct HeartbeatArrived {
    /// What it says.
    pub heartbeat: Heartbeat,
    /// When it came.
    pub at: Moment,
}

/// The heartbeat connection of a peer ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PeerClosed(pub MemberId);

/// An election message of a peer.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ElectionArrived {
    /// The sender.
    pub from: MemberId,
    /// The message.
    pub message: ElectionMessage,
}

/// An input of the election core that a task of its own found out.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ElectionInput(pub election::Input);

/// An input of the liveness core that a task of its own found out.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LivenessInput(pub liveness::Input);

/// The answer to a `StateSync` of this node.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SyncAnswered(pub StateSyncResponse);

/// A peer asks what it missed.
#[derive(Message)]
#[rtype(result = "StateSyncResponse")]
pub struct SyncAsked(pub StateSync);

/// A client announces requests.
#[derive(Message)]
#[rtype(result = "Vec<EncryptionResponse>")]
pub struct Announced(pub Announcement);

/// Somebody asks for the status.
#[derive(Message)]
#[rtype(result = "Box<NodeStatus>")]
pub struct StatusAsked;

/// Which members were heard, and how long ago.
#[derive(Message)]
#[rtype(result = "BTreeMap<MemberId, Duration>")]
pub struct HeardAsked;

/// This node is to leave the membership: if it leads, it gives the lead to another, and takes none for so long.
#[derive(Message)]
#[rtype(result = "()")]
pub struct GiveUpLead(pub Duration);

/// Somebody commands a failure.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FailCommanded(pub Duration);

/// The process was told to stop: the node takes no more jobs, and hands over if it leads. Answers whether that may still come to
/// something, so that it is worth waiting for.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct StopCommanded(pub &'static str);

/// The parent process ends the failure, if there is one.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FailureEnded;

impl Handler<RaftChanged> for Node {
    type Result = ();

    fn handle(&mut self, RaftChanged(view): RaftChanged, context: &mut Self::Context) {
        let now = time::now();
        if let (None, Some(id)) = (self.parts.tools.cluster_id.get(), self.parts.raft.cluster_id()) {
            log::info!("node {}: the cluster id is {id}", self.me());
            // Set once; a second value cannot come, since the ledger names itself once.
            let _ = self.parts.tools.cluster_id.set(id);
        }
        self.follow_membership(now, context);
        self.raft_view = view.clone();
        let leads = view.leader == Some(self.me());
        let own_term = leads && view.last_log.term == view.term && view.applied >= view.last_log.length;
        let applied = recovery::Input::Applied { applied: view.applied, own_term };
        let followed = view.leader.filter(|leader| *leader != self.me());
        self.liveness(now, liveness::Input::Follows { leader: followed }, context);
        self.election(now, election::Input::Raft(view), context);
        self.recovery(now, applied, context);
        if own_term && let Some(result) = self.unrecorded.take() {
            self.propose(Command::RecordElection(result));
        }
    }
}

impl Handler<HeartbeatArrived> for Node {
    type Result = ();

    fn handle(&mut self, HeartbeatArrived { heartbeat, at }: HeartbeatArrived, context: &mut Self::Context) {
        if self.failed() {
            return;
        }
        let member = heartbeat.member;
        self.heard.insert(member, (heartbeat.clone(), at));
        // Of two lives of one node, as there are while it is replaced, only the one counts that stands for it.
        if !self.stands(member) {
            return;
        }
        let node = member.node;
        let report = placement::Input::Report {
            node,
            state: heartbeat.state,
            load: heartbeat.pressure,
            workers: heartbeat.workers,
            jobs_accepted: heartbeat.jobs_accepted,
        };
        self.parts.placement.step(at, report);
        self.liveness(at, liveness::Input::Heard { node }, context);
        self.election(at, election::Input::Heartbeat(heartbeat), context);
    }
}

impl Handler<PeerClosed> for Node {
    type Result = ();

    fn handle(&mut self, PeerClosed(member): PeerClosed, context: &mut Self::Context) {
        if !self.failed() && self.stands(member) {
            self.liveness(time::now(), liveness::Input::Closed { node: member.node }, context);
        }
    }
}

impl Handler<ElectionArrived> for Node {
    type Result = ();

    fn handle(&mut self, ElectionArrived { from, message }: ElectionArrived, context: &mut Self::Context) {
        if !self.failed() {
            log::debug!("node {}: from node {}: {message:?}", self.me(), from.node);
            self.election(time::now(), election::Input::Received { from, message }, context);
        }
    }
}

impl Handler<ElectionInput> for Node {
    type Result = ();

    fn handle(&mut self, ElectionInput(input): ElectionInput, context: &mut Self::Context) {
        self.election(time::now(), input, context);
    }
}

impl Handler<LivenessInput> for Node {
    type Result = ();

    fn handle(&mut self, LivenessInput(input): LivenessInput, context: &mut Self::Context) {
        self.liveness(time::now(), input, context);
    }
}

impl Handler<SyncAnswered> for Node {
    type Result = ();

    fn handle(&mut self, SyncAnswered(answer): SyncAnswered, context: &mut Self::Context) {
        self.recovery(time::now(), recovery::Input::Synced(answer), context);
    }
}

impl Handler<SyncAsked> for Node {
    type Result = actix::MessageResult<SyncAsked>;

    fn handle(&mut self, SyncAsked(request): SyncAsked, _context: &mut Self::Context) -> Self::Result {
        let active = self.parts.recovery.state_for_elections() == NodeState::Active;
        log::debug!(
            "node {}: node {} asks for the state (it has applied {})",
            self.me(),
            request.node,
            request.applied
        );
        actix::MessageResult(StateSyncResponse {
            node: self.me(),
            active,
            coordinator: self.parts.election.coordinator(),
            placements: self.parts.placement.entries(),
            commit: self.raft_view.commit,
        })
    }
}

impl Handler<Announced> for Node {
    type Result = Vec<EncryptionResponse>;

    fn handle(&mut self, Announced(announcement): Announced, _context: &mut Self::Context) -> Self::Result {
        let now = time::now();
        let me = self.me();
        let state = self.parts.recovery.state();
        let coordinator = self.parts.election.coordinator();
        let leads = coordinator.is_some_and(|coordinator| coordinator.node == me);
        let (_, load, _) = self.parts.desk.load();
        let mut answers = Vec::with_capacity(announcement.requests.len());
        for request in announcement.requests {
            let request_id = request.request_id;
            let placement = if leads { self.place(now) } else { None };
            if let Some(node) = placement {
                log::debug!(
                    "node {me}: places {} {request_id} ({} bytes) on node {node}",
                    request.operation,
                    request.size_bytes
                );
            }
            answers.push(EncryptionResponse { request_id, node: me, state, load, coordinator, placement });
        }
        answers
    }
}

impl Node {
    /// Everybody who is concerned learns of a changed membership, the connections first.
    fn follow_membership(&mut self, now: Moment, context: &mut Context<Self>) {
        // An error means that Raft has ended, and its membership stays as it is.
        if !self.rosters.has_changed().unwrap_or(false) {
            return;
        }
        let roster = self.rosters.borrow_and_update().clone();
        self.parts.links.follow(&roster);
        if roster.voters != self.roster.voters && !roster.is_changing() {
            let voters: Vec<String> = roster.voters.iter().map(ToString::to_string).collect();
            log::info!("node {}: the voters are {}", self.me(), voters.join(", "));
            if let Some(warning) = warning_of_size(roster.voters.len()) {
                log::warn!("node {}: {warning}", self.me());
            }
        }
        self.roster = roster;
        if self.roster.is_empty() {
            return;
        }
        let (me, nodes) = (self.me(), self.roster.nodes());
        let peers = nodes.iter().copied().filter(|node| *node != me).collect();
        self.liveness(now, liveness::Input::Peers(peers), context);
        let nodes = nodes.into_iter().chain([me]).collect();
        self.parts.placement.step(now, placement::Input::Nodes(nodes));
        let places = &self.roster.places;
        self.heard.retain(|member, _| places.contains_key(member));
    }

    /// Whether that member is the one that is meant by its node's name.
    fn stands(&self, member: MemberId) -> bool {
        self.roster.is_empty() || self.roster.stands_for(member.node) == Some(member)
    }

    /// The other nodes and where they answer HTTP.
    fn peers(&self) -> BTreeMap<NodeId, SocketAddr> {
        let known = |node| self.roster.place_of(node).map(|place| (node, place.http));
        let all = match self.roster.is_empty() {
            true => self.parts.configured.clone(),
            false => self.roster.nodes().into_iter().filter_map(known).collect(),
        };
        all.into_iter().filter(|(node, _)| *node != self.me()).collect()
    }

    /// The last heartbeat of the member that stands for a node.
    fn heard_of(&self, node: NodeId) -> Option<&(Heartbeat, Moment)> {
        let stands = self.roster.stands_for(node);
        let is_it = |member: &MemberId| stands.map_or(member.node == node, |stands| stands == *member);
        self.heard.iter().find(|(member, _)| is_it(member)).map(|(_, heard)| heard)
    }

    fn place(&mut self, now: Moment) -> Option<NodeId> {
        self.parts.placement.step(now, placement::Input::Place).into_iter().find_map(|effect| match effect {
            placement::Effect::Placed(node) => {
                self.placements += 1;
                Some(node)
            }
            placement::Effect::NoActiveNode => None,
        })
    }
}

impl Handler<HeardAsked> for Node {
    type Result = actix::MessageResult<HeardAsked>;

    fn handle(&mut self, _: HeardAsked, _context: &mut Self::Context) -> Self::Result {
        let now = time::now();
        actix::MessageResult(self.heard.iter().map(|(member, (_, at))| (*member, now.since(*at))).collect())
    }
}

impl Handler<GiveUpLead> for Node {
    type Result = ();

    fn handle(&mut self, GiveUpLead(limit): GiveUpLead, context: &mut Self::Context) {
        let now = time::now();
        self.election(now, election::Input::GiveUpLead { until: now + limit }, context);
    }
}

impl Handler<FailCommanded> for Node {
    type Result = ();

    fn handle(&mut self, FailCommanded(duration): FailCommanded, context: &mut Self::Context) {
        self.failures(time::now(), failure::Input::Command(duration), context);
    }
}

impl Handler<StopCommanded> for Node {
    type Result = bool;

    fn handle(&mut self, StopCommanded(why): StopCommanded, context: &mut Self::Context) -> bool {
        let now = time::now();
        self.recovery(now, recovery::Input::Stop { why: why.to_owned() }, context);
        let (load, _, _) = self.parts.desk.load();
        let state = self.parts.recovery.state_for_elections();
        self.election(now, election::Input::Own { load, state }, context);
        let is_heard = |(_, at): &(Heartbeat, Moment)| now.since(*at) < FRESH;
        self.role() == RaftRole::Leader && self.heard.values().any(is_heard)
    }
}

impl Handler<FailureEnded> for Node {
    type Result = ();

    fn handle(&mut self, _: FailureEnded, context: &mut Self::Context) {
        self.failures(time::now(), failure::Input::End, context);
    }
}

impl Handler<StatusAsked> for Node {
    type Result = actix::MessageResult<StatusAsked>;

    fn handle(&mut self, _: StatusAsked, _context: &mut Self::Context) -> Self::Result {
        let now = time::now();
        let shared = &self.parts.shared;
        let (load, _, counters) = self.parts.desk.load();
        let usage = resources::usage();
        let view = &self.raft_view;
        let without_quorum = without_quorum(shared, &self.parts.raft);
        let coordinator = self.parts.election.coordinator().filter(|_| without_quorum.is_none());
        let peer = |(node, address): (NodeId, SocketAddr)| {
            let heard = self.heard_of(node);
            PeerStatus {
                node,
                address: Some(address.to_string()),
                state: heard.map_or(NodeState::Recovering, |(heartbeat, _)| heartbeat.state),
                load: heard.map_or_else(Default::default, |(heartbeat, _)| heartbeat.load),
                last_seen_ms: heard.map(|(_, at)| now.since(*at).as_millis() as u64),
            }
        };
        actix::MessageResult(Box::new(NodeStatus {
            node: self.me(),
            incarnation: shared.member.incarnation,
            address: shared.address.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.parts.recovery.state(),
            is_outsider: self.parts.election.is_outsider(),
            role: self.role(),
            term: view.term,
            coordinator,
            without_quorum_ms: without_quorum.map(|quiet| quiet.as_millis() as u64),
            cause: coordinator.and_then(|coordinator| self.parts.raft.cause_of(coordinator)),
            load,
            workers: self.parts.workers,
            queued: counters.queued,
            running: counters.running,
            jobs_done: counters.done,
            jobs_refused: counters.refused,
            repeats_answered: counters.repeated,
            placements: self.placements,
            commit: view.commit,
            applied: view.applied,
            last_log: view.last_log,
            uptime_ms: now.since(self.started).as_millis() as u64,
            cpu_ms: usage.cpu.as_millis() as u64,
            memory_bytes: usage.memory_bytes,
            cluster_id: self.parts.tools.cluster_id.get().map(ToString::to_string),
            faults: self.parts.links.faults().standing(),
            peers: self.peers().into_iter().map(peer).collect(),
        }))
    }
}

/// Records an event and logs what is worth a line.
fn record(shared: &Shared, level: log::Level, line: &str, what: EventKind) {
    let view = shared.view();
    log::log!(level, "node {} term {} {}: {line}", shared.node(), view.term, view.state);
    shared.record(what);
}
