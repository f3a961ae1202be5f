//! The numbers of the election, and the rules that a model checker may break on purpose.

use std::time::Duration;

use crate::id::{Load, MemberId, NodeId};

/// The numbers of the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// This node, in this life.
    pub me: MemberId,
    /// Every configured node, this one included.
    pub nodes: Vec<NodeId>,
    /// `bully` (default) or `raft`.
    pub strategy: Strategy,
    /// Whom the first start waits for.
    pub first_start: FirstStart,
    /// How long a caller waits for the answers of a round (60 ms).
    pub round_timeout: Duration,
    /// How long after its votes could be granted a nominee may take to win before it is passed over (150 ms).
    pub nominee_timeout: Duration,
    /// The voters' lease of the last leader: Raft's election_timeout_max (300 ms).
    pub lease: Duration,
    /// Least time between two campaigns of this node in one vacancy, and between two rounds that came to nothing (20 ms).
    pub back_off: Duration,
    /// At most this much is added to each back-off, at random (40 ms).
    pub jitter: Duration,
    /// How soon a round is repeated after the others still found the coordinator alive: they may learn of its death a few
    /// milliseconds later (3 ms).
    pub quick_retry: Duration,
    /// How often a round is repeated so quickly before the back-off (6).
    pub quick_retries: u32,
    /// With no confirmed leader for this long, Raft's native elections are switched on (3 s).
    pub dead_man: Duration,
    /// How long a winner waits for the log of the least-loaded node before it keeps the lead (2 s).
    pub catch_up: Duration,
    /// How long a hand-over may take before the coordinator has a third node elected: 2 × Raft's election_timeout_min (400 ms).
    pub hand_over: Duration,
    /// Who should lead, the most wanted first; whoever is not named comes after them. Empty: load decides.
    pub prefer: Vec<NodeId>,
    /// E4: by how much the coordinator must be more loaded than another node (1.00 job per worker). Placement keeps nodes closer
    /// together than that.
    pub hand_over_margin: Load,
    /// E4: the part of the coordinator's load that leading itself costs, and that would move along (0.25).
    pub hand_over_cost: Load,
    /// E4: for how long without a break the other node must have been the better one (30 s).
    pub hand_over_hold: Duration,
    /// E4: for how long after an election, a hand-over or a failed one nothing is handed over (60 s).
    pub hand_over_cool_down: Duration,
    /// A coordinator whose disk has not finished a sync for this long gives up its lead (500 ms).
    pub disk_stall: Duration,
    /// A rule to break. For `tests/election_model/` and `load_swings`, which must notice; `None` everywhere else.
    #[doc(hidden)]
    pub broken: Option<Rule>,
}

impl Settings {
    /// The defaults, those of `config/cluster.toml`, for this node among these. Measured with them: from the kill of a coordinator
    /// to the next committed write 12 ms on an idle machine, 23 ms with both of its cores busy.
    pub fn new(me: MemberId, nodes: Vec<NodeId>) -> Self {
        Settings {
            me,
            nodes,
            strategy: Strategy::Bully,
            first_start: FirstStart::Everybody,
            round_timeout: Duration::from_millis(60),
            nominee_timeout: Duration::from_millis(150),
            lease: Duration::from_millis(300),
            back_off: Duration::from_millis(20),
            jitter: Duration::from_millis(40),
            quick_retry: Duration::from_millis(3),
            quick_retries: 6,
            dead_man: Duration::from_secs(3),
            catch_up: Duration::from_secs(2),
            hand_over: Duration::from_millis(400),
            prefer: Vec::new(),
            hand_over_margin: Load::from_hundredths(100),
            hand_over_cost: Load::from_hundredths(25),
            hand_over_hold: Duration::from_secs(30),
            hand_over_cool_down: Duration::from_secs(60),
            disk_stall: Duration::from_millis(500),
            broken: None,
        }
    }
}

/// How a coordinator is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The least-loaded node is nominated and Raft confirms it.
    #[default]
    Bully,
    /// Raft's own randomised timeouts: the same code with the dead-man switch always on.
    Raft,
}

/// Whom the first start of a cluster waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FirstStart {
    /// Every configured node.
    #[default]
    Everybody,
    /// The majority that answers (`--bootstrap`, given to one node only); the rest are added later.
    Majority,
    /// Nobody: this node waits until a cluster that is there takes it in (`--join`).
    Never,
}

/// The rules whose loss the model checker or the simulation of loads must notice, one mutant each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// E2: a coordinator is announced only when Raft has confirmed it.
    AnnounceConfirmed,
    /// E2: what is older than the latest known term changes nothing.
    CompareTerms,
    /// E1: whoever is behind a majority's log is not nominated.
    CheckLogs,
    /// E1: loads are frozen when a round starts.
    FreezeLoads,
    /// E2: two campaigns of one node in one vacancy are a back-off apart.
    BackOff,
    /// E3: a death counts when a majority found it.
    AgreeOnDeath,
    /// E3: an agreement about a leadership older than the latest term counts for nothing.
    ThisLeadership,
    /// E4: the other node is less loaded by the margin.
    Margin,
    /// E4: it has been so for the hold time.
    Hold,
    /// E4: the last change is the cool-down ago.
    CoolDown,
    /// E4: a node is handed the lead only when it has caught up.
    HandOverToCaughtUp,
}
