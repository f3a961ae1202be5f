//! Three real election cores, the abstract Raft below them, a network that delays and reorders, and what the checker may do to them.

use std::collections::BTreeSet;
use std::time::Duration;

use image_cloud::core::election::{Effect, Election, Input, RaftView, Rule, Settings};
use image_cloud::id::{Incarnation, Load, MemberId, NodeId, Term};
use image_cloud::protocol::election::{Campaign, Cause, ElectionMessage, Finding, Heartbeat};
use image_cloud::protocol::status::NodeState;
use image_cloud::time::Moment;
use stateright::{Model, Property};

use super::hashed::Hashed;
use super::history::{History, Promise, Sight};
use super::raft::{Outcome, Raft};

pub const NODES: usize = 3;

/// The coarse step of every clock.
const STEP_MS: u64 = 10;

/// The back-off in steps: longer than one, so that a node that ignores it is seen.
pub const BACK_OFF_STEPS: u8 = 2;

/// What the checker may do, and how often.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub loads: [u32; NODES],
    pub logs: [u64; NODES],
    /// The coordinator, node 1, is dead from the start.
    pub coordinator: Coordinator,
    pub steps: [u8; NODES],
    pub crashes: u8,
    pub restarts: u8,
    pub load_changes: u8,
    pub duplicates: u8,
    pub false_suspicions: u8,
    pub campaigns: u8,
    pub appends: u8,
    /// Hand-overs that Raft may try; with none, no load moves a live coordinator's lead.
    pub hand_overs: u8,
    pub views: Views,
    pub broken: Option<Rule>,
    /// What must be seen to happen, so that the promises are not kept by doing nothing.
    pub sights: &'static [Sight],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinator {
    Alive,
    Dead,
}

/// When a node hears what its Raft did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    AtOnce,
    LateAndInAnyOrder,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Envelope {
    Message { from: usize, to: usize, message: ElectionMessage },
    View { to: usize, view: RaftView },
    Refusal { to: usize, term: Term },
    HandOverRefusal { to: usize, term: Term },
}

impl Envelope {
    fn to(&self) -> usize {
        match self {
            Envelope::Message { to, .. }
            | Envelope::View { to, .. }
            | Envelope::Refusal { to, .. }
            | Envelope::HandOverRefusal { to, .. } => *to,
        }
    }
}

/// A campaign that Raft has been asked for and has not done yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    how: Campaign,
    term: Term,
}

/// What the checker may still do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    steps: [u8; NODES],
    crashes: u8,
    restarts: u8,
    load_changes: u8,
    duplicates: u8,
    false_suspicions: u8,
    campaigns: u8,
    appends: u8,
    hand_overs: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// None: crashed.
    pub cores: [Option<Hashed<Election>>; NODES],
    pub clocks: [u8; NODES],
    pub loads: [u32; NODES],
    pub raft: Raft,
    asked: [Option<Asked>; NODES],
    /// A hand-over that Raft has been asked for, and has not tried yet: to whom, in which term.
    giving: [Option<(usize, Term)>; NODES],
    network: BTreeSet<Hashed<Envelope>>,
    /// (observer, node): the observer does not see the node, though it lives.
    cut: BTreeSet<(usize, usize)>,
    budget: Budget,
    pub history: History,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Step(usize),
    Deliver(Hashed<Envelope>),
    /// The network keeps a copy.
    DeliverTwice(Hashed<Envelope>),
    Suspect {
        observer: usize,
        node: usize,
    },
    Trust {
        observer: usize,
        node: usize,
    },
    RaftDecides {
        candidate: usize,
        reached: Vec<usize>,
    },
    Append {
        leader: usize,
        to: usize,
    },
    /// Raft tries the hand-over: the target campaigns and reaches these, or is found unready.
    RaftHandsOver {
        leader: usize,
        reached: Vec<usize>,
    },
    /// The transfer gets lost.
    HandOverGetsLost(usize),
    Crash(usize),
    Restart(usize),
    ChangeLoad(usize),
}

pub fn node(index: usize) -> NodeId {
    NodeId(index as u16 + 1)
}

pub fn index(node: NodeId) -> usize {
    usize::from(node.0) - 1
}

pub fn member(index: usize) -> MemberId {
    MemberId { node: node(index), incarnation: Incarnation(0) }
}

pub fn members() -> [MemberId; NODES] {
    [0, 1, 2].map(member)
}

impl Scenario {
    fn settings(&self, me: usize) -> Settings {
        let steps = |count: u64| Duration::from_millis(count * STEP_MS);
        Settings {
            round_timeout: steps(1),
            nominee_timeout: steps(1),
            lease: steps(1),
            back_off: steps(u64::from(BACK_OFF_STEPS)),
            jitter: Duration::ZERO,
            quick_retry: steps(1),
            quick_retries: 1,
            dead_man: Duration::from_secs(3600),
            // A winner keeps the lead: the last step of an election has its own tests.
            catch_up: Duration::ZERO,
            hand_over: steps(1),
            hand_over_hold: Duration::ZERO,
            hand_over_cool_down: if self.hand_overs > 0 { Duration::ZERO } else { Duration::from_micros(u64::MAX) },
            broken: self.broken,
            ..Settings::new(member(me), members().map(|member| member.node).to_vec())
        }
    }
}

impl World {
    pub fn now(&self, who: usize) -> Moment {
        Moment::from_millis(u64::from(self.clocks[who]) * STEP_MS)
    }

    fn start(&mut self, scenario: &Scenario, who: usize, life: u64) {
        let mut core = Election::new(scenario.settings(who), life);
        core.step(self.now(who), Input::Raft(self.view(scenario, who)));
        self.cores[who] = Some(Hashed::new(core));
        self.give(who, self.own_input(who));
        if scenario.hand_overs > 0 {
            for other in (0..NODES).filter(|other| *other != who) {
                self.give(who, Input::Heartbeat(self.heartbeat_of(other)));
            }
        }
    }

    fn view(&self, scenario: &Scenario, who: usize) -> RaftView {
        if scenario.hand_overs > 0 { self.raft.view_with_logs(who) } else { self.raft.view(who) }
    }

    fn heartbeat_of(&self, who: usize) -> Heartbeat {
        Heartbeat {
            member: member(who),
            sequence: 0,
            state: NodeState::Active,
            load: Load::from_hundredths(self.loads[who]),
            pressure: Load::default(),
            workers: 1,
            jobs_accepted: 0,
            disk_waits_ms: 0,
            last_log: self.raft.disks[who].log,
            coordinator: None,
        }
    }

    fn own_input(&self, who: usize) -> Input {
        Input::Own { load: Load::from_hundredths(self.loads[who]), state: NodeState::Active }
    }

    fn loads_of_the_living(&self) -> [u32; NODES] {
        [0, 1, 2].map(|who| if self.is_alive(who) { self.loads[who] } else { u32::MAX })
    }

    fn is_alive(&self, who: usize) -> bool {
        self.cores[who].is_some()
    }

    fn sees(&self, observer: usize, other: usize) -> bool {
        self.is_alive(other) && !self.cut.contains(&(observer, other))
    }

    /// Gives one input to one core and performs its effects; the promises are checked on the way.
    fn give(&mut self, who: usize, input: Input) {
        let Some(before) = self.cores[who].clone() else { return };
        let now = self.now(who);
        self.history.see_input(who, &input, &self.loads);
        let mut core = before.of().clone();
        let is_late = self.history.is_late(who, &input);
        self.history.hear(who, &input);
        let effects = core.step(now, input);
        if is_late {
            let mut undisturbed = before.of().clone();
            let idle = undisturbed.step(now, Input::Tick);
            let outward = |core: &Election| (core.coordinator(), core.phase(), core.stands_in());
            if idle != effects
                || outward(&undisturbed) != outward(&core)
                || undisturbed.nomination() != core.nomination()
            {
                self.history.break_promise(Promise::LateNewsChangesNothing);
            }
        }
        let core = Hashed::new(core);
        self.cores[who] = Some(core.clone());
        self.history.see_nomination(who, before.of(), core.of(), &self.raft);
        for effect in effects {
            let loads = self.loads_of_the_living();
            self.history.see_effect(who, core.of(), &effect, &self.raft, self.clocks[who], &loads);
            match effect {
                Effect::Send { to, message } if self.is_alive(index(to)) => {
                    let envelope = Envelope::Message { from: who, to: index(to), message: without_figures(message) };
                    self.network.insert(Hashed::new(envelope));
                }
                Effect::Probe { round, node } => {
                    let finding = if self.sees(who, index(node)) { Finding::Alive } else { Finding::Gone };
                    self.give(who, Input::Probed { round, node, finding });
                }
                Effect::Campaign { campaign, term, .. } => self.asked[who] = Some(Asked { how: campaign, term }),
                Effect::HandOver { to, term, .. } => self.giving[who] = Some((index(to.node), term)),
                _ => {}
            }
        }
    }

    /// A node's Raft changed: the node hears of it.
    fn show_raft(&mut self, scenario: &Scenario, who: usize) {
        if !self.is_alive(who) {
            return;
        }
        let view = self.view(scenario, who);
        match scenario.views {
            Views::AtOnce => self.give(who, Input::Raft(view)),
            Views::LateAndInAnyOrder => {
                self.network.insert(Hashed::new(Envelope::View { to: who, view }));
            }
        }
    }

    fn deliver(&mut self, envelope: &Envelope) {
        match envelope.clone() {
            Envelope::Message { from, to, message } => {
                self.give(to, Input::Received { from: member(from), message });
            }
            Envelope::View { to, view } => self.give(to, Input::Raft(view)),
            Envelope::Refusal { to, term } => {
                self.give(to, Input::CampaignRefused { term, why: String::new() });
            }
            Envelope::HandOverRefusal { to, term } => {
                self.give(to, Input::HandOverRefused { term, why: String::new() });
            }
        }
    }

    /// As the adapter and the library do it: nothing is begun with a target that is dead or in another term; one that lacks
    /// entries loses its campaign.
    fn hand_over(&mut self, scenario: &Scenario, leader: usize, reached: &[usize]) {
        let Some((to, term)) = self.giving[leader].take() else { return };
        let is_ready = self.is_alive(to) && self.raft.disks[to].term == self.raft.disks[leader].term;
        if !is_ready || !self.raft.leads(leader) {
            self.network.insert(Hashed::new(Envelope::HandOverRefusal { to: leader, term }));
            return;
        }
        let before = self.raft.clone();
        if self.raft.campaign(to, Campaign::AgreedDeath, reached, &[]) == Outcome::Won {
            self.history.see(Sight::HandedOver);
        }
        self.show_changes(scenario, &before);
    }

    fn show_changes(&mut self, scenario: &Scenario, before: &Raft) {
        for who in 0..NODES {
            if self.raft.disks[who] != before.disks[who] {
                self.show_raft(scenario, who);
            }
        }
    }

    fn decide(&mut self, scenario: &Scenario, candidate: usize, reached: &[usize]) {
        let Some(asked) = self.asked[candidate].take() else { return };
        let hears_its_leader = |voter: &usize| {
            self.raft.disks[*voter].follows.is_some_and(|leader| self.raft.leads(leader) && self.sees(*voter, leader))
        };
        let leases: Vec<usize> = (0..NODES).filter(hears_its_leader).collect();
        let before = self.raft.clone();
        let outcome = self.raft.campaign(candidate, asked.how, reached, &leases);
        if outcome == Outcome::Refused {
            self.network.insert(Hashed::new(Envelope::Refusal { to: candidate, term: asked.term }));
        }
        self.show_changes(scenario, &before);
    }

    fn crash(&mut self, who: usize) {
        self.cores[who] = None;
        self.asked[who] = None;
        self.giving[who] = None;
        self.raft.forget_leader(who);
        self.network.retain(|envelope| envelope.of().to() != who);
        self.cut.retain(|(observer, other)| *observer != who && *other != who);
        self.history.forget(who);
    }
}

/// Every choice among these nodes.
fn subsets(nodes: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let chosen = move |mask: u32| nodes.iter().enumerate().filter(move |(bit, _)| mask >> bit & 1 == 1);
    (0..1_u32 << nodes.len()).map(move |mask| chosen(mask).map(|(_, who)| *who).collect())
}

/// The figures of an announcement decide nothing; without them, equal situations are equal states.
fn without_figures(message: ElectionMessage) -> ElectionMessage {
    match message {
        ElectionMessage::Coordinator { leadership, mut result } => {
            result.took_micros = 0;
            result.standings = Vec::new();
            ElectionMessage::Coordinator { leadership, result }
        }
        other => other,
    }
}

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            cores: [None, None, None],
            clocks: [0; NODES],
            loads: self.loads,
            raft: Raft::led_by_the_first(self.logs),
            asked: [None; NODES],
            giving: [None; NODES],
            network: BTreeSet::new(),
            cut: BTreeSet::new(),
            budget: Budget {
                steps: self.steps,
                crashes: self.crashes,
                restarts: self.restarts,
                load_changes: self.load_changes,
                duplicates: self.duplicates,
                false_suspicions: self.false_suspicions,
                campaigns: self.campaigns,
                appends: self.appends,
                hand_overs: self.hand_overs,
            },
            history: History::default(),
        };
        for who in 0..NODES {
            world.start(self, who, 0);
        }
        world.network.clear();
        if self.coordinator == Coordinator::Dead {
            world.crash(0);
        }
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend(world.network.iter().cloned().map(Action::Deliver));
        if world.budget.duplicates > 0 {
            actions.extend(world.network.iter().cloned().map(Action::DeliverTwice));
        }
        for who in 0..NODES {
            let Some(core) = &world.cores[who] else {
                if world.budget.restarts > 0 {
                    actions.push(Action::Restart(who));
                }
                continue;
            };
            if world.budget.steps[who] > 0 {
                actions.push(Action::Step(who));
            }
            if world.budget.crashes > 0 {
                actions.push(Action::Crash(who));
            }
            if world.budget.load_changes > 0 {
                actions.push(Action::ChangeLoad(who));
            }
            if let Some(coordinator) = core.of().coordinator().map(|leadership| index(leadership.node))
                && coordinator != who
                && (world.budget.false_suspicions > 0 || !world.sees(who, coordinator))
            {
                actions.push(Action::Suspect { observer: who, node: coordinator });
            }
            for (_, other) in world.cut.range((who, 0)..(who + 1, 0)) {
                actions.push(Action::Trust { observer: who, node: *other });
            }
            if world.asked[who].is_some() && world.budget.campaigns > 0 {
                let others: Vec<usize> = (0..NODES).filter(|other| *other != who && world.is_alive(*other)).collect();
                let ways = subsets(&others).map(|reached| Action::RaftDecides { candidate: who, reached });
                actions.extend(ways);
            }
            if let Some((to, _)) = world.giving[who]
                && world.budget.hand_overs > 0
            {
                let others: Vec<usize> = (0..NODES).filter(|other| *other != to && world.is_alive(*other)).collect();
                let ways = subsets(&others).map(|reached| Action::RaftHandsOver { leader: who, reached });
                actions.extend(ways);
                actions.push(Action::HandOverGetsLost(who));
            }
            if world.raft.leads(who) && world.budget.appends > 0 {
                let others = (0..NODES).filter(|other| *other != who && world.is_alive(*other));
                actions.extend(others.map(|to| Action::Append { leader: who, to }));
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Step(who) => {
                world.budget.steps[who] -= 1;
                world.clocks[who] += 1;
                world.give(who, Input::Tick);
            }
            Action::Deliver(envelope) => {
                world.network.remove(&envelope);
                world.deliver(envelope.of());
            }
            Action::DeliverTwice(envelope) => {
                world.budget.duplicates -= 1;
                world.deliver(envelope.of());
            }
            Action::Suspect { observer, node: other } => {
                if world.sees(observer, other) {
                    world.budget.false_suspicions -= 1;
                    world.cut.insert((observer, other));
                }
                world.give(observer, Input::Suspected { node: node(other), cause: Cause::ConnectionRefused });
            }
            Action::Trust { observer, node: other } => {
                world.cut.remove(&(observer, other));
                world.give(observer, Input::Trusted { node: node(other) });
            }
            Action::RaftDecides { candidate, reached } => {
                world.budget.campaigns -= 1;
                world.decide(self, candidate, &reached);
            }
            Action::Append { leader, to } => {
                world.budget.appends -= 1;
                let changed = world.raft.append(leader, to)?;
                world.show_raft(self, changed);
                if self.hand_overs > 0 && changed != leader {
                    world.show_raft(self, leader);
                }
            }
            Action::RaftHandsOver { leader, reached } => {
                world.budget.hand_overs -= 1;
                world.hand_over(self, leader, &reached);
            }
            Action::HandOverGetsLost(leader) => {
                world.budget.hand_overs -= 1;
                world.giving[leader] = None;
            }
            Action::Crash(who) => {
                world.budget.crashes -= 1;
                world.crash(who);
            }
            Action::Restart(who) => {
                world.budget.restarts -= 1;
                world.start(self, who, 1);
                for other in 0..NODES {
                    world.give(other, Input::Trusted { node: node(who) });
                }
            }
            Action::ChangeLoad(who) => {
                world.budget.load_changes -= 1;
                world.loads[who] = if world.loads[who] == 0 { 90 } else { 0 };
                world.give(who, world.own_input(who));
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! promises {
            ($($promise:ident),*) => {
                vec![$(Property::always(Promise::$promise.text(), |_, world: &World| {
                    !world.history.is_broken(Promise::$promise)
                })),*]
            };
        }
        let mut properties: Vec<Property<Self>> = promises![
            AnnouncedOnlyConfirmedAndLatest,
            LateNewsChangesNothing,
            BehindIsNeverNominatedTwice,
            TransferOnlyAfterAgreedDeath,
            OlderAgreementCountsForNothing,
            NoNominationOnOneWord,
            NomineeIsFirstByFrozenLoads,
            CampaignsAreABackOffApart,
            HandedOverOnlyToTheCaughtUp
        ];
        properties.extend(self.sights.iter().map(|sight| {
            let was_seen: fn(&Self, &World) -> bool = match sight {
                Sight::Confirmed => |_, world| world.history.has_seen(Sight::Confirmed),
                Sight::RefusedThenConfirmed => |_, world| world.history.has_seen(Sight::RefusedThenConfirmed),
                Sight::LeastLoadedLed => |_, world| world.history.has_seen(Sight::LeastLoadedLed),
                Sight::HandedOver => |_, world| world.history.has_seen(Sight::HandedOver),
            };
            Property::sometimes(sight.text(), was_seen)
        }));
        properties
    }
}
