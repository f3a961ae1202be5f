//! Raft's requests and responses as bytes, and the library's network on top of them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt;
use openraft::{AsyncRuntime, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{LogPosition, MemberId, Term};
use crate::protocol::codec::{self, CodecError};
use crate::protocol::frame::{Lane, Opaque};
use crate::protocol::ledger::Write;
use crate::protocol::membership::Place;
use crate::raft::ballot::Ballot;
use crate::raft::forward::{NotWritten, Written};
use crate::raft::pace::Pace;
use crate::raft::types::{LogId, Snapshot, SnapshotMeta, Types, Vote};

/// Snapshots travel in chunks of this size.
const CHUNK_BYTES: usize = 256 << 10;

/// Entries in one message at most. A new leader looks for the end of each follower's log by bisection, and sends so many entries with each
/// question if they are there and fit: few, since its first commit waits for the answers, and not so few that there are many more questions
/// (300 ask about five times in 6,000 entries, these eight times), or that a follower catches up slowly.
pub(crate) const MESSAGE_ENTRIES: u64 = 32;

/// How long an append or a chunk may take: a slow disk is not a dead peer, and a dead peer's connection closes at once.
const APPEND_TIMEOUT: Duration = Duration::from_millis(500);

/// Pause after a peer could not be reached.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause before a snapshot is tried again: the library reads it from disk for each attempt.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(2);

/// How long a commit waits for entries to travel with. A leader with one writer would otherwise tell each commit in a message of its
/// own, just before the next entry. No client waits for it: a follower applies that much later (and one that gets its entries late, 15 ms).
const COMMIT_PAUSE: Duration = Duration::from_millis(5);

/// The longest append: a frame has room for it and for what is around it.
const APPEND_LIMIT_BYTES: usize = codec::LIMIT_BYTES - 1024;

/// Carries requests to other members. The node implements it with its connections, the simulation with a queue.
pub trait RaftTransport: Send + Sync + 'static {
    /// Sends a request on a lane of its own and waits for the response, at most `limit`.
    fn call(
        &self,
        to: MemberId,
        lane: Lane,
        request: Vec<u8>,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>>;
}

/// Why a request got no response.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransportError {
    /// There is no connection to that node.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("no answer in time")]
    Timeout,
}

/// A request, addressed to one life of one disk: another incarnation at the same address must not take it.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) struct Envelope<R: AsyncRuntime> {
    pub from: MemberId,
    pub to: MemberId,
    pub request: Request<R>,
}

#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Request<R: AsyncRuntime> {
    Append(AppendEntriesRequest<Types<R>>),
    Vote(VoteRequest<Types<R>>),
    PreVote(VoteRequest<Types<R>>),
    Transfer(TransferLeaderRequest<Types<R>>),
    Chunk(Chunk),
    /// Where does your log end? Asked before a hand-over.
    Position,
    /// A write for the leader, whose signature the sender has checked.
    Write(Box<Write>),
}

/// A piece of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct Chunk {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub offset: u64,
    pub total: u64,
    pub bytes: Opaque,
}

#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Response<R: AsyncRuntime> {
    Append(AppendEntriesResponse<Types<R>>),
    Vote(VoteResponse<Types<R>>),
    Transfer(TransferLeaderResponse<Types<R>>),
    /// The chunk is kept, more are expected.
    Chunk,
    Installed(SnapshotResponse<Types<R>>),
    Position {
        term: Term,
        last_log: LogPosition,
    },
    /// The request was not carried out.
    Refused(String),
    Written(Result<Written, NotWritten>),
}

/// Makes the library's clients.
pub(crate) struct Network<R: AsyncRuntime> {
    pub me: MemberId,
    pub transport: Arc<dyn RaftTransport>,
    pub ballot: Arc<Ballot>,
    pub pace: Arc<Pace<R>>,
}

impl<R: AsyncRuntime> Network<R> {
    fn client(&self, to: MemberId, append_lane: Lane) -> Client<R> {
        let Network { me, transport, ballot, pace } = self;
        Client { me: *me, to, append_lane, transport: transport.clone(), ballot: ballot.clone(), pace: pace.clone() }
    }
}

impl<R: AsyncRuntime> RaftNetworkFactory<Types<R>> for Network<R> {
    type Network = Client<R>;

    async fn new_client(&mut self, to: MemberId, _: &Place) -> Client<R> {
        self.client(to, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, to: MemberId, _: &Place) -> Client<R> {
        self.client(to, Lane::Lease)
    }

    async fn new_snapshot_client(&mut self, to: MemberId, _: &Place) -> Client<R> {
        self.client(to, Lane::Snapshot)
    }
}

/// The library's way to one peer.
pub(crate) struct Client<R: AsyncRuntime> {
    me: MemberId,
    to: MemberId,
    append_lane: Lane,
    transport: Arc<dyn RaftTransport>,
    ballot: Arc<Ballot>,
    pace: Arc<Pace<R>>,
}

/// Why a call of the library failed, before it is put into the library's words.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("node {to} did not carry out the request: {why}")]
    Refused { to: MemberId, why: String },
    #[error("node {to} answered with something else")]
    WrongAnswer { to: MemberId },
}

/// Sends a request and decodes the response.
pub(crate) async fn call<R: AsyncRuntime>(
    transport: &dyn RaftTransport,
    from: MemberId,
    to: MemberId,
    lane: Lane,
    request: Request<R>,
    limit: Duration,
) -> Result<Response<R>, CallError> {
    let bytes = codec::encode(&Envelope { from, to, request })?;
    send(transport, to, lane, bytes, limit).await
}

/// Sends an encoded envelope and decodes the response.
async fn send<R: AsyncRuntime>(
    transport: &dyn RaftTransport,
    to: MemberId,
    lane: Lane,
    envelope: Vec<u8>,
    limit: Duration,
) -> Result<Response<R>, CallError> {
    let answer = transport.call(to, lane, envelope, limit).await?;
    match codec::decode(&answer)? {
        Response::Refused(why) => Err(CallError::Refused { to, why }),
        response => Ok(response),
    }
}

impl<R: AsyncRuntime> Client<R> {
    async fn call(&self, lane: Lane, request: Request<R>, limit: Duration) -> Result<Response<R>, CallError> {
        call(self.transport.as_ref(), self.me, self.to, lane, request, limit).await
    }

    fn wrong_answer(&self) -> CallError {
        CallError::WrongAnswer { to: self.to }
    }

    fn rpc_error(&self, error: CallError, action: RPCTypes, limit: Duration) -> RPCError<Types<R>> {
        match error {
            CallError::Transport(TransportError::Timeout) => {
                RPCError::Timeout(Timeout { action, id: self.me, target: self.to, timeout: limit })
            }
            CallError::Transport(error) => RPCError::Unreachable(Unreachable::new(&error)),
            // Refused includes "another life of this disk lives here": there is no sense in hurrying the next attempt.
            error @ CallError::Refused { .. } => RPCError::Unreachable(Unreachable::from_string(error)),
            error => RPCError::Network(NetworkError::from_string(error)),
        }
    }
}

/// Encodes an append; cuts entries off the end until it fits a frame, and says where it ends now if it was cut.
fn encode_append<R: AsyncRuntime>(
    from: MemberId,
    to: MemberId,
    mut request: AppendEntriesRequest<Types<R>>,
) -> Result<(Vec<u8>, Option<LogId>), CodecError> {
    let mut cut = None;
    loop {
        let envelope = Envelope { from, to, request: Request::Append(request) };
        let encoded = codec::encode(&envelope);
        let Request::Append(append) = envelope.request else { return encoded.map(|bytes| (bytes, cut)) };
        let fits = encoded.as_ref().is_ok_and(|bytes| bytes.len() <= APPEND_LIMIT_BYTES);
        if fits || append.entries.len() <= 1 {
            return encoded.map(|bytes| (bytes, cut));
        }
        request = append;
        request.entries.truncate(request.entries.len() / 2);
        cut = request.entries.last().map(|entry| entry.log_id);
    }
}

/// What came of one append of a stream.
type Appended<R> = Result<StreamAppendResult<Types<R>>, RPCError<Types<R>>>;

/// The same appends, at the pace of that follower. Those without entries, which only tell a commit, wait for [`COMMIT_PAUSE`]: what comes
/// meanwhile tells that commit or a later one, so they are left out then.
fn paced<R, S>(requests: S, to: MemberId, pace: Arc<Pace<R>>) -> BoxStream<'static, AppendEntriesRequest<Types<R>>>
where
    R: AsyncRuntime,
    S: Stream<Item = AppendEntriesRequest<Types<R>>> + OptionalSend + Unpin + 'static,
{
    let next = move |requests: Option<S>| {
        let pace = pace.clone();
        async move {
            let mut requests = requests?;
            // An append is put together when it is asked for, of all that is there then.
            pace.pause(to).await;
            let mut request = requests.next().await?;
            if request.entries.is_empty() {
                let until = Types::<R>::now() + COMMIT_PAUSE;
                while request.entries.is_empty() {
                    match Types::<R>::timeout_at(until, requests.next()).await {
                        Ok(Some(later)) => request = later,
                        Ok(None) => return Some((request, None)),
                        Err(_) => break,
                    }
                }
            }
            Some((request, Some(requests)))
        }
    };
    futures::stream::unfold(Some(requests), next).boxed()
}

impl<R: AsyncRuntime> RaftNetworkV2<Types<R>> for Client<R> {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R>>, RPCError<Types<R>>> {
        // A lost heartbeat is overtaken by the next one; entries get the time that a slow disk needs.
        let limit = if self.append_lane == Lane::Lease { option.hard_ttl() } else { APPEND_TIMEOUT };
        let last = request.entries.last().map(|entry| entry.log_id.index());
        let is_replication = self.append_lane == Lane::Append && last.is_some();
        let is_full = request.entries.len() as u64 >= MESSAGE_ENTRIES;
        let call = async {
            let (bytes, cut) = encode_append(self.me, self.to, request)?;
            if is_replication {
                self.pace.sent(self.to, is_full || cut.is_some());
            }
            let response = send(self.transport.as_ref(), self.to, self.append_lane, bytes, limit).await?;
            Ok::<_, CallError>((response, cut))
        };
        let outcome = call.await;
        if is_replication {
            self.pace.answered(self.to, outcome.is_ok());
        }
        match outcome {
            Ok((Response::Append(response), cut)) => {
                let AppendEntriesResponse::Success = response else { return Ok(response) };
                if let Some(last) = cut.map(|cut| cut.index()).or(last) {
                    self.pace.acknowledged(self.to, last);
                }
                Ok(cut.map_or(response, |cut| AppendEntriesResponse::PartialSuccess(Some(cut))))
            }
            Ok(_) => Err(self.rpc_error(self.wrong_answer(), RPCTypes::AppendEntries, limit)),
            Err(error) => Err(self.rpc_error(error, RPCTypes::AppendEntries, limit)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended<R>>, RPCError<Types<R>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types<R>>> + OptionalSend + Unpin + 'static,
    {
        let paced = paced::<R, S>(requests, self.to, self.pace.clone());
        stream_append_sequential(self, paced, option)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        let limit = option.soft_ttl();
        let vote = request.vote;
        match self.call(Lane::Vote, Request::Vote(request), limit).await {
            Ok(Response::Vote(response)) => {
                if response.vote_granted {
                    self.ballot.granted(Term(vote.leader_id().term), self.to.node);
                }
                Ok(response)
            }
            Ok(_) => Err(self.rpc_error(self.wrong_answer(), RPCTypes::Vote, limit)),
            Err(error) => Err(self.rpc_error(error, RPCTypes::Vote, limit)),
        }
    }

    // The library's default grants every pre-vote.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        let limit = option.soft_ttl();
        match self.call(Lane::Vote, Request::PreVote(request), limit).await {
            Ok(Response::Vote(response)) => Ok(response),
            Ok(_) => Err(self.rpc_error(self.wrong_answer(), RPCTypes::Vote, limit)),
            Err(error) => Err(self.rpc_error(error, RPCTypes::Vote, limit)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let send = async {
            let data = &snapshot.snapshot;
            let mut offset = 0;
            loop {
                let end = data.len().min(offset + CHUNK_BYTES);
                let chunk = Chunk {
                    vote,
                    meta: snapshot.meta.clone(),
                    offset: offset as u64,
                    total: data.len() as u64,
                    bytes: Opaque(data[offset..end].to_vec()),
                };
                // Who needs a snapshot has entries late: no commit should count on it.
                self.pace.answered(self.to, false);
                match self.call(Lane::Snapshot, Request::Chunk(chunk), APPEND_TIMEOUT).await {
                    Ok(Response::Installed(response)) => return Ok(response),
                    Ok(Response::Chunk) if end < data.len() => offset = end,
                    Ok(_) => {
                        let error = self.wrong_answer();
                        return Err(self.rpc_error(error, RPCTypes::InstallSnapshot, APPEND_TIMEOUT).into());
                    }
                    Err(error) => return Err(self.rpc_error(error, RPCTypes::InstallSnapshot, APPEND_TIMEOUT).into()),
                }
            }
        };
        let send = std::pin::pin!(send);
        let cancel = std::pin::pin!(cancel);
        match futures::future::select(send, cancel).await {
            futures::future::Either::Left((result, _)) => result,
            futures::future::Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<R>>, RPCError<Types<R>>> {
        let limit = option.soft_ttl();
        match self.call(Lane::Vote, Request::Transfer(request), limit).await {
            Ok(Response::Transfer(response)) => Ok(response),
            Ok(_) => Err(self.rpc_error(self.wrong_answer(), RPCTypes::TransferLeader, limit)),
            Err(error) => Err(self.rpc_error(error, RPCTypes::TransferLeader, limit)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let longest = if self.append_lane == Lane::Snapshot { SNAPSHOT_PAUSE } else { UNREACHABLE_PAUSE };
        let pauses = std::iter::successors(Some(UNREACHABLE_PAUSE), move |pause| Some((*pause * 2).min(longest)));
        Some(Backoff::new(pauses))
    }
}
