//! The load-based Bully election: it nominates, Raft confirms.
//!
//! One election in the order of its messages, and the file of each step:
//! 1. a node misses the coordinator and calls a round (`round`: `LoadQuery`);
//! 2. every node sees for itself and answers with its frozen standing (`answer`: `LoadResponse`);
//! 3. the caller ranks the standings and nominates the first (`rank`, `round`: `Election`);
//! 4. the nominee checks the evidence against its own, agrees (`Ok`) and asks Raft (`campaign`);
//! 5. Raft confirms it, it announces itself (`confirm`: `Coordinator`), and hands over if the least-loaded was behind (`hand_over`).
//!
//! And while a coordinator lives: it hands over to a much better node, or because it must leave (`balance`: `HandingOver`).
//!
//! Deliberately absent: nothing is decided by a belief. Without Raft's word in the latest known term nobody is a coordinator.

mod answer;
mod balance;
mod campaign;
mod confirm;
mod contract;
mod dead_man;
mod hand_over;
mod jitter;
mod membership;
mod rank;
mod round;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{Load, MemberId, NodeId, Term};
use crate::protocol::election::{Cause, ElectionMessage, Heartbeat, RoundId, Standing};
use crate::protocol::status::{Leadership, NodeState};
use crate::time::Moment;

pub use contract::{Effect, Input, NativeElections, RaftView};
pub use settings::{FirstStart, Rule, Settings, Strategy};

use answer::Answer;
use balance::Balance;
use campaign::{Campaigns, Candidacy};
use dead_man::DeadMan;
use hand_over::{HandOver, Offer};
use jitter::Jitter;
use membership::Membership;
use round::{Calls, Round, Stage};

/// The election at one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Election {
    settings: Settings,
    jitter: Jitter,
    load: Load,
    state: NodeState,
    raft: RaftView,
    /// The latest leadership that is known to have been confirmed, vacant or not.
    latest: Option<Leadership>,
    /// The coordinator that was last reported, by `CoordinatorConfirmed` or none by `CoordinatorLost`.
    reported: Option<Leadership>,
    suspected: BTreeMap<NodeId, Suspicion>,
    reports: BTreeMap<NodeId, Report>,
    membership: Membership,
    calls: Calls,
    round: Option<Round>,
    /// This node's answer to the last round of each caller, itself included.
    answers: BTreeMap<NodeId, Answer>,
    candidacy: Option<Candidacy>,
    /// A candidacy whose time ran out: a vote may still be under way.
    expired: Option<Candidacy>,
    /// About which vacancy this node campaigned last, from which term, and when.
    campaigns: Option<Campaigns>,
    /// The last term in which this node announced itself.
    announced: Term,
    hand_over: Option<HandOver>,
    balance: Balance,
    /// The last hand-over to this node that a coordinator announced.
    offer: Option<Offer>,
    /// For how long the disk has been working on a sync.
    disk_waits: Duration,
    /// This node is to leave the membership: it gives up its lead and takes none until then.
    leaves_until: Moment,
    /// The term in which a hand-over did not come off: this node leads, but its Raft refuses writes.
    stuck: Option<Term>,
    dead_man: DeadMan,
    last_alarm: Option<Moment>,
}

/// Why a node is taken for lost, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Suspicion {
    cause: Cause,
    since: Moment,
}

/// What a peer's last heartbeat said that the election keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Report {
    member: MemberId,
    load: Load,
    state: NodeState,
    last_log: crate::id::LogPosition,
    disk_waits: Duration,
}

/// What the election is doing, for status and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Nothing to do.
    Idle,
    /// It called a round and waits for the answers.
    Calling,
    /// Its round has a nominee, which has not been confirmed yet.
    Nominated,
    /// This node is the nominee and asks Raft.
    Campaigning,
    /// This node is the nominee, Raft said no, and it waits for its back-off to pass.
    RaftSaidNo,
    /// This node is confirmed and waits for a better node to take over.
    HandingOver,
}

/// A nomination as its caller made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nomination<'a> {
    /// The round.
    pub round: RoundId,
    /// The nominee.
    pub nominee: NodeId,
    /// The frozen standings of the round, in rank order.
    pub standings: &'a [Standing],
}

impl Election {
    /// An election in which nothing has happened yet. Give each life of a process another seed: it draws the back-offs and sets
    /// where the numbers of its rounds begin.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Election {
            jitter: Jitter::new(seed),
            load: Load::default(),
            state: NodeState::Recovering,
            raft: RaftView::default(),
            latest: None,
            reported: None,
            suspected: BTreeMap::new(),
            reports: BTreeMap::new(),
            membership: Membership::at_start(settings.first_start),
            calls: Calls::numbered_from(seed, &settings),
            round: None,
            answers: BTreeMap::new(),
            candidacy: None,
            expired: None,
            campaigns: None,
            announced: Term(0),
            hand_over: None,
            balance: Balance::default(),
            offer: None,
            disk_waits: Duration::ZERO,
            leaves_until: Moment::default(),
            stuck: None,
            dead_man: DeadMan::default(),
            last_alarm: None,
            settings,
        }
    }

    /// Takes one input at `now` and returns what is to be done, in order.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.take(now, input, &mut effects);
        if self.takes_part() {
            self.confirm(now, &mut effects);
            self.report(now, &mut effects);
            self.continue_hand_over(now, &mut effects);
            self.continue_candidacy(now, &mut effects);
            self.continue_round(now, &mut effects);
            self.consider_hand_over(now, &mut effects);
            self.call_if_vacant(now, &mut effects);
        } else {
            self.report(now, &mut effects);
        }
        self.watch_dead_man(now, &mut effects);
        effects
    }

    fn take(&mut self, now: Moment, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Tick => {}
            Input::Raft(view) => self.raft_changed(now, view),
            Input::Own { load, state } => self.own_changed(now, load, state, effects),
            Input::Suspected { node, cause } => {
                self.suspected.entry(node).or_insert(Suspicion { cause, since: now });
            }
            Input::Trusted { node } => {
                self.suspected.remove(&node);
                self.renew_quick_retries();
                self.take_back_findings(node);
            }
            Input::Heartbeat(heartbeat) if self.takes_part() => self.heard(heartbeat),
            Input::Learned(leadership) if self.takes_part() => self.learn(leadership),
            Input::Probed { round, node, finding } if self.takes_part() => {
                self.probed(now, round, node, finding, effects);
            }
            Input::Received { from, message } if self.takes_part() => self.receive(now, from, message, effects),
            Input::Disk { waits } => self.disk_waits = waits,
            Input::NotAMember => self.shut_out(effects),
            Input::GiveUpLead { until } => self.leaves_until = until,
            Input::HandOverRefused { term, why } => self.hand_over_refused(now, term, why, effects),
            Input::CampaignRefused { term, why } => self.refused(now, term, why, effects),
            Input::Heartbeat(_) | Input::Learned(_) | Input::Probed { .. } | Input::Received { .. } => {}
        }
    }

    fn own_changed(&mut self, now: Moment, load: Load, state: NodeState, effects: &mut Vec<Effect>) {
        self.load = load;
        if self.state == NodeState::Failed && state != NodeState::Failed {
            self.back_off(now);
            self.dead_man.begin_anew();
        }
        self.state = state;
        if state == NodeState::Failed {
            self.round = None;
            self.candidacy = None;
            self.expired = None;
            self.finish_hand_over(now, None, effects);
            self.answers.clear();
        }
    }

    fn heard(&mut self, heartbeat: Heartbeat) {
        let Heartbeat { member, load, state, last_log, coordinator, disk_waits_ms, .. } = heartbeat;
        let disk_waits = Duration::from_millis(disk_waits_ms.into());
        if member.node != self.me() && self.counts(member) {
            self.reports.insert(member.node, Report { member, load, state, last_log, disk_waits });
            if let Some(leadership) = coordinator {
                self.learn(leadership);
            }
        }
    }

    fn receive(&mut self, now: Moment, from: MemberId, message: ElectionMessage, effects: &mut Vec<Effect>) {
        if !self.counts(from) {
            return;
        }
        match message {
            ElectionMessage::LoadQuery { round, vacancy, .. } => self.queried(now, from, round, vacancy, effects),
            ElectionMessage::LoadResponse { round, standing, latest, voters } => {
                self.answered(from, round, standing, latest, voters, effects);
            }
            ElectionMessage::Election { .. } => self.nominated(now, from, message, effects),
            ElectionMessage::Ok { round } => self.agreed(from, round),
            ElectionMessage::Coordinator { leadership, .. } => self.announced_by(from, leadership),
            ElectionMessage::HandingOver { leadership, cause } => self.offered(now, from, leadership, cause),
        }
    }

    /// Sends a message; one to this node itself is taken at once, so that a caller that is its own nominee obeys the same rules.
    fn post(&mut self, now: Moment, to: NodeId, message: ElectionMessage, effects: &mut Vec<Effect>) {
        if to == self.me() {
            self.receive(now, self.settings.me, message, effects);
        } else {
            effects.push(Effect::Send { to, message });
        }
    }

    /// Tells the operator, at most once a second.
    fn alarm(&mut self, now: Moment, text: String, effects: &mut Vec<Effect>) {
        if self.last_alarm.is_none_or(|last| now.since(last) >= ONE_SECOND) {
            self.last_alarm = Some(now);
            effects.push(Effect::Alarm(text));
        }
    }

    fn me(&self) -> NodeId {
        self.settings.me.node
    }

    fn peers(&self) -> Vec<NodeId> {
        self.nodes().into_iter().filter(|node| *node != self.me()).collect()
    }

    /// Who takes part: the nodes of the voters, and before the first start those that are configured.
    fn nodes(&self) -> Vec<NodeId> {
        if self.is_before_first_start() {
            return self.settings.nodes.clone();
        }
        let mut nodes: Vec<NodeId> = self.raft.voters.iter().map(|voter| voter.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Whether what that member says counts: of two lives of one node only the voter's does.
    fn counts(&self, member: MemberId) -> bool {
        if self.is_before_first_start() {
            self.settings.nodes.contains(&member.node)
        } else {
            self.raft.voters.contains(&member)
        }
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.settings.broken != Some(rule)
    }

    fn takes_part(&self) -> bool {
        self.state != NodeState::Failed && !self.is_outsider()
    }

    /// The confirmed coordinator that this node knows: in the latest known term and not suspected.
    pub fn coordinator(&self) -> Option<Leadership> {
        self.latest.filter(|latest| {
            let in_latest_term = latest.term >= self.raft.term;
            let in_office = if latest.node == self.me() {
                self.leads_in(latest.term)
            } else {
                !self.suspected.contains_key(&latest.node)
            };
            in_latest_term && in_office
        })
    }

    /// What the election is doing.
    pub fn phase(&self) -> Phase {
        match (&self.candidacy, &self.hand_over, &self.round) {
            (Some(candidacy), _, _) => candidacy.phase(),
            (None, Some(_), _) => Phase::HandingOver,
            (None, None, Some(Round { stage: Stage::Asking, .. })) => Phase::Calling,
            (None, None, Some(Round { stage: Stage::Nominated(_), .. })) => Phase::Nominated,
            (None, None, None) => Phase::Idle,
        }
    }

    /// The round whose nomination this node has taken.
    pub fn stands_in(&self) -> Option<RoundId> {
        self.candidacy.as_ref().map(|candidacy| candidacy.round)
    }

    /// The nomination of this node's own round, if it has come so far.
    pub fn nomination(&self) -> Option<Nomination<'_>> {
        let round = self.round.as_ref()?;
        let Stage::Nominated(stage) = &round.stage else { return None };
        Some(Nomination { round: round.id, nominee: stage.nominee, standings: &stage.ranked })
    }
}

/// Least time between two lines that say the same to people.
const ONE_SECOND: Duration = Duration::from_secs(1);
