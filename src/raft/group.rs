//! One node's part in the Raft group, over any runtime: how it campaigns, hands over, proposes and answers.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardReason, ForwardToLeader, InitializeError, LinearizableReadError,
    RaftError as ApiError,
};
use openraft::raft::{AppendEntriesResponse, ReadPolicy, TransferLeaderRequest};
use openraft::storage::RaftLogStorage;
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::InstantOf;
use openraft::{AsyncRuntime, Config, Instant, Raft, ServerState, SnapshotPolicy};

use crate::core::membership::admission::{Kind, Standing, admit};
use crate::id::{LogPosition, MemberId, Term};
use crate::protocol::codec;
use crate::protocol::election::Campaign;
use crate::protocol::frame::Lane;
use crate::protocol::ledger::Write;
use crate::protocol::membership::Place;
use crate::protocol::status::Leadership;
use crate::raft::ballot::Ballot;
use crate::raft::error::{CampaignError, HandOverError, ProposeError, RaftError};
use crate::raft::forward::{NotWritten, Written};
use crate::raft::machine::Machine;
use crate::raft::network::{self, Chunk, Envelope, MESSAGE_ENTRIES, Network, RaftTransport, Request, Response};
use crate::raft::pace::Pace;
use crate::raft::types::{Command, Snapshot, SnapshotMeta, Types, Vote, position};
use crate::raft::{Applied, RaftSettings};
use crate::time::{self, Moment};

/// No wait of an election is longer: one hung await must not hold up the next round.
pub const ELECTION_WAIT: Duration = Duration::from_millis(100);

/// Entries that the target of a hand-over may lack: under load the leader's last ones are always on their way, and the target
/// waits for them before it campaigns (at most the shortest election timeout).
const ON_ITS_WAY: u64 = 4 * MESSAGE_ENTRIES;

/// How long everybody gets every entry at once when the lead changes hands: at the old leader longer than any hand-over takes, at the new
/// one until it has seen who is prompt.
const HURRY: Duration = Duration::from_secs(1);

/// How long a proposal may take before its outcome counts as unknown.
const PROPOSE_WAIT: Duration = Duration::from_secs(5);

/// How long a majority may take to confirm a read.
const READ_WAIT: Duration = Duration::from_secs(1);

/// A leader that was heard, or acknowledged by a majority, so recently is there: the longest election timeout three times over.
const LEADER_KNOWN: Duration = Duration::from_secs(1);

/// The largest snapshot that is taken from a peer, in bytes.
const SNAPSHOT_LIMIT_BYTES: u64 = codec::SNAPSHOT_LIMIT_BYTES as u64;

/// A node's part in the group. Clones share it.
pub struct Group<R: AsyncRuntime> {
    raft: Raft<Types<R>, Machine>,
    me: MemberId,
    machine: Machine,
    transport: Arc<dyn RaftTransport>,
    ballot: Arc<Ballot>,
    pace: Arc<Pace<R>>,
    incoming: Arc<Mutex<Option<Incoming>>>,
    /// The leader that was last accepted.
    heard: Arc<Mutex<Option<Heard<R>>>>,
}

impl<R: AsyncRuntime> Clone for Group<R> {
    fn clone(&self) -> Self {
        Group {
            raft: self.raft.clone(),
            me: self.me,
            machine: self.machine.clone(),
            transport: self.transport.clone(),
            ballot: self.ballot.clone(),
            pace: self.pace.clone(),
            incoming: self.incoming.clone(),
            heard: self.heard.clone(),
        }
    }
}

/// Whose append or snapshot was accepted, and when: on Raft's own clock, which a simulation turns, and on the node's.
struct Heard<R: AsyncRuntime> {
    leader: MemberId,
    at: InstantOf<Types<R>>,
    moment: Moment,
}

/// A snapshot that is being received.
struct Incoming {
    vote: Vote,
    meta: SnapshotMeta,
    bytes: Vec<u8>,
}

impl<R: AsyncRuntime> Group<R> {
    /// Starts Raft over the given storage.
    ///
    /// # Errors
    /// [`RaftError::Settings`], [`RaftError::Stopped`].
    pub async fn start<L: RaftLogStorage<Types<R>>>(
        settings: &RaftSettings,
        transport: Arc<dyn RaftTransport>,
        log_store: L,
        machine: Machine,
    ) -> Result<Group<R>, RaftError> {
        let me = settings.member;
        let ballot = Arc::new(Ballot::default());
        let pace = Arc::new(Pace::new());
        let network = Network { me, transport: transport.clone(), ballot: ballot.clone(), pace: pace.clone() };
        let config = Arc::new(configuration(settings)?);
        let raft = Raft::new(me, config, network, log_store, machine.clone())
            .await
            .map_err(|error| RaftError::Stopped { node: me, error: error.to_string() })?;
        drop(R::spawn(follow_voters(raft.clone(), me, pace.clone())));
        Ok(Group { raft, me, machine, transport, ballot, pace, incoming: Arc::default(), heard: Arc::default() })
    }

    /// The library's handle, for views and tests.
    pub fn raft(&self) -> &Raft<Types<R>, Machine> {
        &self.raft
    }

    /// This node.
    pub fn me(&self) -> MemberId {
        self.me
    }

    /// What has been applied.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn transport(&self) -> &dyn RaftTransport {
        self.transport.as_ref()
    }

    pub(crate) fn pace(&self) -> &Pace<R> {
        &self.pace
    }

    pub(crate) fn ballot(&self) -> &Ballot {
        &self.ballot
    }

    /// When this node last accepted an append, empty or not, of a leader.
    pub fn last_append(&self) -> Option<Moment> {
        self.heard().as_ref().map(|heard| heard.moment)
    }

    /// Begins the log with these members and their places. Two nodes that begin with the same members do no harm.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub async fn initialise(&self, members: BTreeMap<MemberId, Place>) -> Result<(), CampaignError> {
        if members.is_empty() {
            return Err(CampaignError::NoMembers);
        }
        match within::<R, _>(self.raft.initialize(members)).await? {
            Ok(()) => Ok(()),
            Err(ApiError::APIError(InitializeError::NotAllowed(error))) => {
                Err(CampaignError::AlreadyInitialised { term: Term(error.vote.leader_id().term) })
            }
            Err(ApiError::APIError(InitializeError::NotInMembers(_))) => Err(CampaignError::NotAMember { me: self.me }),
            Err(ApiError::Fatal(fatal)) => Err(self.stopped(&fatal).into()),
        }
    }

    /// Asks the voters for this node's confirmation. Success is never reported here: it shows in the views.
    ///
    /// [`Campaign::AgreedDeath`] needs the leadership that a majority found gone. It asks the voters as a node does to whom
    /// that leader has handed over: they need not wait for their lease to run out, but their votes and their check of the
    /// log are the same as ever.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub async fn campaign(&self, campaign: Campaign, vacancy: Option<Leadership>) -> Result<(), CampaignError> {
        match campaign {
            Campaign::Initialise => Err(CampaignError::NoMembers),
            // Without pre-vote, a healthy leader would be deposed by the higher term of a node that cannot win.
            Campaign::PreVote => {
                within::<R, _>(self.raft.trigger().elect(true)).await?.map_err(|fatal| self.stopped(&fatal).into())
            }
            Campaign::AgreedDeath => self.succeed(vacancy.ok_or(CampaignError::NoVacancy)?).await,
        }
    }

    async fn succeed(&self, vacancy: Leadership) -> Result<(), CampaignError> {
        let state = self.raft.with_raft_state(|state| *state.vote_ref());
        let vote = within::<R, _>(state).await?.map_err(|fatal| self.stopped(&fatal))?;
        let latest = Term(vote.leader_id().term);
        let other_leader = vote.is_committed() && vote.leader_id().voted_for.node != vacancy.node;
        if latest != vacancy.term || other_leader {
            return Err(CampaignError::Moved { vacancy, latest });
        }
        // The library compares the vote once more when it handles the request, so a term that begins meanwhile stops this.
        // No position is asked for: this node's own log is all there is to stand with, and the voters compare it. Asked for, the
        // library would wait for an append of that leader, which never comes if it died after its first heartbeat.
        let request = TransferLeaderRequest::new(vote, self.me, None);
        match within::<R, _>(self.raft.handle_transfer_leader(request)).await? {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(CampaignError::Refused(refused.to_string())),
            Err(fatal) => Err(self.stopped(&fatal).into()),
        }
    }

    /// As leader: hands over to a voter that answers now and has the log but for what is on its way. Whether it worked shows in the
    /// views: a transfer whose target dies at this very moment leaves a leader that refuses writes, until another node campaigns.
    ///
    /// # Errors
    /// [`HandOverError`]: nothing was begun.
    pub async fn hand_over(&self, to: MemberId) -> Result<(), HandOverError> {
        let state = self.raft.with_raft_state(|state| {
            let voters = state.membership_state.effective().voter_ids().collect::<BTreeSet<_>>();
            (state.server_state, Term(state.vote_ref().leader_id().term), state.log_ids.last().copied(), voters)
        });
        let (role, term, last_log, voters) = within::<R, _>(state)
            .await
            .map_err(|Hung| HandOverError::Hung(ELECTION_WAIT))?
            .map_err(|fatal| self.stopped(&fatal))?;
        if role != ServerState::Leader {
            return Err(HandOverError::NotLeader);
        }
        if to == self.me || !voters.contains(&to) {
            return Err(HandOverError::NotAVoter { to });
        }
        self.pace.hurry(HURRY);
        // The library would wait for ever for a target that is down, and refuse every write meanwhile.
        let not_ready = |why: String| HandOverError::NotReady { to, why };
        let (their_term, their_log) = self.position_of(to).await.map_err(not_ready)?;
        let own_log = position(last_log);
        let is_close = their_log.length + ON_ITS_WAY >= own_log.length;
        if their_term != term || !is_close {
            let have = format!("its log ends at {their_log} in term {their_term}");
            return Err(not_ready(format!("{have}, this one at {own_log} in term {term}")));
        }
        match within::<R, _>(self.raft.trigger().transfer_leader(to)).await {
            Ok(asked) => asked.map_err(|fatal| self.stopped(&fatal).into()),
            // Begun or not: the views will tell.
            Err(Hung) => Ok(()),
        }
    }

    /// Which of these answer at this moment, this node included: asked now, since whoever died a moment ago was heard a moment ago.
    pub async fn answering(&self, members: &BTreeSet<MemberId>) -> BTreeSet<MemberId> {
        let ask = |member: MemberId| async move {
            let answers = member == self.me || self.position_of(member).await.is_ok();
            answers.then_some(member)
        };
        futures::future::join_all(members.iter().copied().map(ask)).await.into_iter().flatten().collect()
    }

    async fn position_of(&self, to: MemberId) -> Result<(Term, LogPosition), String> {
        let call =
            network::call::<R>(self.transport.as_ref(), self.me, to, Lane::Vote, Request::Position, ELECTION_WAIT);
        match within::<R, _>(call).await {
            Ok(Ok(Response::Position { term, last_log })) => Ok((term, last_log)),
            Ok(Ok(_)) => Err("it answered with something else".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(Hung) => Err(format!("no answer within {} ms", ELECTION_WAIT.as_millis())),
        }
    }

    /// Lets Raft elect by itself, by randomised timeouts and with pre-vote, or not.
    pub fn set_native_elections(&self, enabled: bool) {
        self.raft.runtime_config().elect(enabled);
    }

    /// Whether this node leads by what Raft has told last.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`], with the leader that Raft knows.
    pub fn must_lead(&self) -> Result<(), ProposeError> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        match metrics.state {
            ServerState::Leader => Ok(()),
            // A node that has come back from its disk may take itself for its last leader.
            _ => Err(ProposeError::NotLeader { leader: metrics.current_leader.filter(|&leader| leader != self.me) }),
        }
    }

    /// The leader that a refusal of the library names. A leader that hands over names its heir, who does not lead yet.
    pub(crate) fn leader_of(&self, refusal: &ForwardToLeader<Types<R>>) -> Option<MemberId> {
        let leads = refusal.reason == ForwardReason::NotLeader;
        refusal.leader_id.filter(|&leader| leads && leader != self.me)
    }

    /// As leader: appends a command and waits until it is committed and applied.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let written = Types::<R>::timeout(PROPOSE_WAIT, self.raft.client_write(command)).await;
        match written {
            Ok(Ok(response)) => Ok(Applied { position: position(Some(response.log_id)), outcome: response.data }),
            Ok(Err(ApiError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: self.leader_of(&forward) })
            }
            Ok(Err(ApiError::APIError(error))) => Err(ProposeError::Unknown(error.to_string())),
            Ok(Err(ApiError::Fatal(fatal))) => Err(self.stopped(&fatal).into()),
            Err(_) => Err(ProposeError::Unknown(format!("no answer within {} s", PROPOSE_WAIT.as_secs()))),
        }
    }

    /// Makes sure that this node leads and has applied everything that was committed before this call: what is read from its state
    /// afterwards is linearizable. A majority has been asked; no lease is trusted, since a leader that is found gone by agreement
    /// is replaced before its lease is over.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`], [`ProposeError::NoQuorum`], [`ProposeError::Stopped`].
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        match Types::<R>::timeout(READ_WAIT, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(ApiError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: self.leader_of(&forward) })
            }
            Ok(Err(ApiError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(ProposeError::NoQuorum)
            }
            Ok(Err(ApiError::Fatal(fatal))) => Err(self.stopped(&fatal).into()),
        }
    }

    /// Answers a request that [`RaftTransport::call`] carried here, on a connection of `caller`. Empty only if the answer could not be
    /// encoded.
    ///
    /// `writes` takes the writes that other members hand on to the leader.
    pub async fn receive(
        &self,
        caller: MemberId,
        request: Vec<u8>,
        writes: impl FnOnce(Write) -> BoxFuture<'static, Result<Written, NotWritten>>,
    ) -> Vec<u8> {
        let response = match codec::decode::<Envelope<R>>(&request) {
            Ok(Envelope { to, from, .. }) if to != self.me => {
                log::debug!("node {}: node {from} means {to}, another life of this disk", self.me);
                Response::Refused(format!("node {} lives here now, not {to}", self.me))
            }
            Ok(envelope) => match admit(caller, envelope.from, kind_of(&envelope.request), self.standing(caller)) {
                Ok(()) => {
                    let answer = match envelope {
                        Envelope { request: Request::Write(write), .. } => Ok(Response::Written(writes(*write).await)),
                        envelope => self.answer(envelope).await,
                    };
                    answer.unwrap_or_else(|fatal| Response::Refused(self.stopped(&fatal).to_string()))
                }
                Err(why) => {
                    log::warn!("node {}: refused a request of Raft: {why}", self.me);
                    Response::Refused(why.to_string())
                }
            },
            Err(error) => Response::Refused(error.to_string()),
        };
        codec::encode(&response).unwrap_or_default()
    }

    /// What is known of a caller. Asked for every request: the usual answer looks at a few names and copies nothing.
    fn standing(&self, caller: MemberId) -> Standing {
        let is_member = {
            let server = self.raft.server_metrics();
            let server = server.borrow_watched();
            let mut known =
                server.membership_config.nodes().chain(server.committed_membership_config.nodes()).peekable();
            known.peek().is_none() || known.any(|(member, _)| member.node == caller.node)
        };
        if is_member {
            return Standing::Member;
        }
        let (mut this_life, mut any_life) = (false, false);
        for removed in self.machine.applied().state.removed() {
            this_life |= removed == caller;
            any_life |= removed.node == caller.node;
        }
        let is_removed = this_life || (any_life && self.knows_a_leader_other_than(caller));
        if is_removed { Standing::Removed } else { Standing::Unknown }
    }

    /// Whether this node leads with a majority behind it, or follows somebody else. Whoever was taken in again while this node was away
    /// may be the only one who can tell it so.
    fn knows_a_leader_other_than(&self, caller: MemberId) -> bool {
        let is_leader = self.raft.server_metrics().borrow_watched().state == ServerState::Leader;
        if is_leader {
            let is_alone = self.raft.server_metrics().borrow_watched().membership_config.voter_ids().count() == 1;
            let acknowledged = self.raft.data_metrics().borrow_watched().last_quorum_acked;
            return is_alone || acknowledged.is_some_and(|at| at.elapsed() < LEADER_KNOWN);
        }
        self.heard().as_ref().is_some_and(|heard| heard.leader != caller && heard.at.elapsed() < LEADER_KNOWN)
    }

    async fn answer(&self, envelope: Envelope<R>) -> Result<Response<R>, Fatal<Types<R>>> {
        let from = envelope.from;
        Ok(match envelope.request {
            Request::Append(request) => {
                let response = self.raft.append_entries(request).await.map_err(fatal)?;
                if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                    self.note_append(from);
                }
                Response::Append(response)
            }
            Request::Vote(request) => Response::Vote(self.raft.vote(request).await.map_err(fatal)?),
            Request::PreVote(request) => Response::Vote(self.raft.pre_vote(request).await.map_err(fatal)?),
            Request::Transfer(request) => {
                let request = self.without_needless_wait(request).await?;
                Response::Transfer(self.raft.handle_transfer_leader(request).await?)
            }
            Request::Chunk(chunk) => match self.assemble(chunk) {
                Ok(Some((vote, snapshot))) => {
                    let response = self.raft.install_full_snapshot(vote, snapshot).await?;
                    self.note_append(from);
                    Response::Installed(response)
                }
                Ok(None) => Response::Chunk,
                Err(why) => Response::Refused(why),
            },
            Request::Write(_) => Response::Refused("a write is none of Raft's own requests".to_owned()),
            Request::Position => {
                let state = |state: &openraft::RaftState<Types<R>>| {
                    (Term(state.vote_ref().leader_id().term), position(state.log_ids.last().copied()))
                };
                let (term, last_log) = self.raft.with_raft_state(state).await?;
                Response::Position { term, last_log }
            }
        })
    }

    /// The library waits until an append of this life has brought the position that a transfer names, though the log may hold it since
    /// the last life: then a node that has just come back would take over after an election timeout, that is, not at all. The
    /// position needs no sync of its own either: the vote of the campaign is synced behind it in the same log.
    async fn without_needless_wait(
        &self,
        request: TransferLeaderRequest<Types<R>>,
    ) -> Result<TransferLeaderRequest<Types<R>>, Fatal<Types<R>>> {
        let (vote, expected) = (*request.from_leader(), request.last_log_id().copied());
        let has_it = move |state: &openraft::RaftState<Types<R>>| {
            *state.vote_ref() == vote && state.log_ids.last().copied() >= expected
        };
        let has_it = *request.to_node_id() == self.me && self.raft.with_raft_state(has_it).await?;
        Ok(if has_it { TransferLeaderRequest::new(vote, self.me, None) } else { request })
    }

    fn note_append(&self, leader: MemberId) {
        *self.heard() = Some(Heard { leader, at: Types::<R>::now(), moment: time::now() });
    }

    fn heard(&self) -> MutexGuard<'_, Option<Heard<R>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a chunk behind the ones before it; gives the snapshot when it is whole.
    fn assemble(&self, chunk: Chunk) -> Result<Option<(Vote, Snapshot)>, String> {
        let Chunk { vote, meta, offset, total, bytes } = chunk;
        if total > SNAPSHOT_LIMIT_BYTES {
            return Err(format!("a snapshot of {total} bytes is over the limit of {SNAPSHOT_LIMIT_BYTES}"));
        }
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        if offset == 0 {
            *incoming = Some(Incoming { vote, meta: meta.clone(), bytes: Vec::new() });
        }
        let fits = |incoming: &&mut Incoming| {
            incoming.vote == vote && incoming.meta == meta && incoming.bytes.len() as u64 == offset
        };
        let Some(current) = incoming.as_mut().filter(fits) else {
            *incoming = None;
            return Err(format!("a chunk of a snapshot at {offset} does not follow the one before it"));
        };
        current.bytes.extend_from_slice(&bytes.0);
        if (current.bytes.len() as u64) < total {
            return Ok(None);
        }
        let whole = incoming.take().map(|whole| (whole.vote, Snapshot { meta: whole.meta, snapshot: whole.bytes }));
        Ok(whole)
    }

    /// Stops Raft. The log is closed when its last user is gone, shortly after.
    pub async fn shutdown(&self) {
        if self.raft.shutdown().await.is_err() {
            log::debug!("node {}: raft ended with a panic", self.me);
        }
    }

    pub(crate) fn stopped(&self, fatal: &Fatal<Types<R>>) -> RaftError {
        let node = self.me;
        let Fatal::StorageError(fault) = fatal else {
            return RaftError::Stopped { node, error: fatal.to_string() };
        };
        let error = fault.source().map_or_else(|| fault.to_string(), ToString::to_string);
        // The library writes the type of the system's answer before it.
        let error = error.strip_prefix("std::io::error::Error: ").unwrap_or(&error).to_owned();
        RaftError::Disk { node, error }
    }
}

/// Tells the pace who votes, and when this node begins to lead, until Raft has ended.
async fn follow_voters<R: AsyncRuntime>(raft: Raft<Types<R>, Machine>, me: MemberId, pace: Arc<Pace<R>>) {
    let mut metrics = raft.server_metrics();
    let (mut known, mut led_in) = (None, None);
    loop {
        let followers = {
            let metrics = metrics.borrow_watched();
            let leads_in = (metrics.state == ServerState::Leader).then(|| metrics.vote.leader_id().term);
            if leads_in.is_some() && leads_in != led_in {
                // Whoever led before may be about to leave.
                pace.hurry(HURRY);
            }
            led_in = leads_in;
            let membership = metrics.membership_config.membership();
            let is_joint = membership.get_joint_config().len() > 1;
            (!is_joint).then(|| membership.voter_ids().filter(|voter| *voter != me).collect::<BTreeSet<_>>())
        };
        if known.as_ref() != Some(&followers) {
            pace.followers(followers.clone());
            known = Some(followers);
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// In whose name a request is made: the library puts a leader's or a candidate's own vote into each of them.
fn kind_of<R: AsyncRuntime>(request: &Request<R>) -> Kind {
    let by = |vote: &Vote| vote.leader_id().voted_for;
    match request {
        Request::Append(request) => Kind::By(by(&request.vote)),
        Request::Vote(request) | Request::PreVote(request) => Kind::By(by(&request.vote)),
        Request::Chunk(chunk) => Kind::By(by(&chunk.vote)),
        Request::Transfer(request) => Kind::Transfer(by(request.from_leader())),
        Request::Position => Kind::Question,
        Request::Write(_) => Kind::Write,
    }
}

fn fatal<R: AsyncRuntime>(error: ApiError<Types<R>>) -> Fatal<Types<R>> {
    match error {
        ApiError::Fatal(fatal) => fatal,
        ApiError::APIError(never) => match never {},
    }
}

/// A wait on Raft that took longer than [`ELECTION_WAIT`].
struct Hung;

impl From<Hung> for CampaignError {
    fn from(Hung: Hung) -> Self {
        CampaignError::Hung(ELECTION_WAIT)
    }
}

async fn within<R: AsyncRuntime, F: Future + Send>(future: F) -> Result<F::Output, Hung> {
    R::timeout(ELECTION_WAIT, future).await.map_err(|_| Hung)
}

fn configuration(settings: &RaftSettings) -> Result<Config, RaftError> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    Config {
        cluster_name: format!("node {}", settings.member.node),
        heartbeat_interval: millis(settings.heartbeat),
        election_timeout_min: millis(settings.election_min),
        election_timeout_max: millis(settings.election_max),
        enable_elect: settings.native_elections,
        enable_pre_vote: Some(true),
        // A leader that comes back from its disk may have lost entries that it had sent in this very term but not synced, and
        // that a majority has committed since. So it stands for election like everybody else.
        enable_leader_restore: Some(false),
        max_payload_entries: MESSAGE_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_after),
        max_in_snapshot_log_to_keep: settings.keep_after_snapshot,
        ..Config::default()
    }
    .validate()
    .map_err(|error| RaftError::Settings { node: settings.member, error: error.to_string() })
}
