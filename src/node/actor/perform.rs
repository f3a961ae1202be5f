//! The effects of the cores, performed.

use std::collections::BTreeMap;
use std::io::Write;

use actix::{AsyncContext, Context};
use log::Level;

use super::{ElectionInput, LivenessInput, Node, SyncAnswered, record};
use crate::core::{election, failure, liveness, placement, recovery};
use crate::id::MemberId;
use crate::protocol::election::Campaign;
use crate::protocol::event::EventKind;
use crate::protocol::membership::Place;
use crate::protocol::status::Leadership;
use crate::protocol::sync::StateSync;
use crate::raft::Command;
use crate::time::Moment;

impl Node {
    pub(super) fn perform_election(&mut self, now: Moment, effect: election::Effect, context: &mut Context<Self>) {
        use election::Effect;
        let shared = self.parts.shared.clone();
        match effect {
            Effect::Send { to, message } => {
                log::debug!("node {}: to node {to}: {message:?}", self.me());
                if let Err(error) = self.parts.links.election(to, message) {
                    log::debug!("node {}: a message to node {to} is dropped: {error}", self.me());
                }
            }
            Effect::Probe { round, node } => {
                self.liveness(now, liveness::Input::Asked { round, node }, context);
            }
            Effect::Campaign { campaign, term, vacancy, members } => {
                let (raft, node) = (self.parts.raft.clone(), context.address());
                log::info!("node {}: campaigns ({campaign}) from term {term}", self.me());
                let places = self.places_of(members);
                tokio::spawn(async move {
                    let asked = match (campaign, places) {
                        (Campaign::Initialise, Ok(places)) => {
                            raft.initialise(places).await.map_err(|error| error.to_string())
                        }
                        (Campaign::Initialise, Err(why)) => Err(why),
                        _ => raft.campaign(campaign, vacancy).await.map_err(|error| error.to_string()),
                    };
                    if let Err(why) = asked {
                        let refused = election::Input::CampaignRefused { term, why };
                        let _ = node.send(ElectionInput(refused)).await;
                    }
                });
            }
            Effect::HandOver { to, term, cause } => {
                log::info!("node {}: hands over to node {}: {cause}", self.me(), to.node);
                let (raft, node) = (self.parts.raft.clone(), context.address());
                tokio::spawn(async move {
                    if let Err(error) = raft.hand_over(to).await {
                        let refused = election::Input::HandOverRefused { term, why: error.to_string() };
                        let _ = node.send(ElectionInput(refused)).await;
                    }
                });
            }
            Effect::HandedOver { from, to, cause, took } => {
                let took_micros = took.as_micros() as u64;
                let line = format!("has handed over to node {to} in {:.1} ms: {cause}", took.as_secs_f64() * 1e3);
                let what = EventKind::HandedOver { coordinator: from, to, cause, took_micros };
                record(&shared, Level::Info, &line, what);
            }
            Effect::NativeElections(native) => {
                let on = native == election::NativeElections::On;
                log::info!("node {}: Raft's native elections are {}", self.me(), if on { "on" } else { "off" });
                self.parts.raft.set_native_elections(on);
            }
            Effect::CoordinatorConfirmed(coordinator) => {
                let line = format!("node {} coordinates in term {}", coordinator.node, coordinator.term);
                record(&shared, Level::Info, &line, EventKind::CoordinatorKnown { coordinator });
                self.recovery(now, recovery::Input::Coordinator(Some(coordinator)), context);
            }
            Effect::CoordinatorLost => {
                self.recovery(now, recovery::Input::Coordinator(None), context);
            }
            Effect::Decided(result) => {
                // `println!` panics when whoever read the output is gone; the coordinator must not stop for that.
                let _ = writeln!(std::io::stdout(), "{result}");
                record(&shared, Level::Info, "won the election", EventKind::Elected(result.clone()));
                self.unrecorded = Some(result);
            }
            Effect::CampaignRefused { term, why } => {
                let what = EventKind::CampaignRefused { campaign_term: term, why };
                record(&shared, Level::Warn, &what.to_string(), what);
            }
            Effect::HandOverRefused { to, term, why } => {
                let coordinator = Leadership { term, node: self.me() };
                let what = EventKind::HandOverRefused { coordinator, to, why };
                record(&shared, Level::Warn, &what.to_string(), what);
            }
            Effect::Alarm(text) => record(&shared, Level::Error, &text.clone(), EventKind::Alarm { text }),
            Effect::Waiting { missing } => {
                let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
                log::info!("node {}: the first start waits for node {}", self.me(), names.join(", "));
            }
        }
    }

    /// Where the first members are found, each by its own word, so that all who begin the cluster begin it with the same.
    fn places_of(&self, members: Vec<MemberId>) -> Result<BTreeMap<MemberId, Place>, String> {
        let shared = &self.parts.shared;
        let place = |member: MemberId| {
            let met = self.parts.links.met(member.node).filter(|(met, _)| *met == member);
            let place = if member == shared.member { Some(shared.place) } else { met.map(|(_, place)| place) };
            place.map(|place| (member, place)).ok_or_else(|| format!("node {member} has not said where it is found"))
        };
        members.into_iter().map(place).collect()
    }

    pub(super) fn perform_liveness(&mut self, now: Moment, effect: liveness::Effect, context: &mut Context<Self>) {
        use liveness::Effect;
        match effect {
            Effect::Probe { node, after, limit } => {
                let (links, actor) = (self.parts.links.clone(), context.address());
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    let outcome = links.probe(node, limit).await;
                    let _ = actor.send(LivenessInput(liveness::Input::Probed { node, outcome })).await;
                });
            }
            Effect::Found { round, node, finding } => {
                self.election(now, election::Input::Probed { round, node, finding }, context);
            }
            Effect::Suspected { node, cause } => {
                self.parts.placement.step(now, placement::Input::Lost(node));
                let shared = self.parts.shared.clone();
                match self.parts.election.coordinator() {
                    Some(coordinator) if coordinator.node == node => {
                        let line = format!("suspects the coordinator, node {node}: {cause}");
                        record(
                            &shared,
                            Level::Warn,
                            &line,
                            EventKind::Suspected { coordinator, why: cause.to_string() },
                        );
                    }
                    _ => log::warn!("node {}: suspects node {node}: {cause}", self.me()),
                }
                self.election(now, election::Input::Suspected { node, cause }, context);
            }
            Effect::Trusted { node } => {
                log::info!("node {}: hears node {node}", self.me());
                self.election(now, election::Input::Trusted { node }, context);
            }
        }
    }

    pub(super) fn perform_recovery(&mut self, now: Moment, effect: recovery::Effect, context: &mut Context<Self>) {
        use recovery::Effect;
        let shared = self.parts.shared.clone();
        match effect {
            Effect::StateChanged { from, to, why } => {
                // Published first, so that the event carries the new state.
                self.publish();
                let line = format!("{from} → {to}: {why}");
                record(&shared, Level::Info, &line, EventKind::StateChanged { from, to, why });
            }
            Effect::AskStateSync { peer, applied, limit } => {
                let (links, actor) = (self.parts.links.clone(), context.address());
                let request = StateSync { node: self.me(), applied };
                tokio::spawn(async move {
                    match links.state_sync(peer, request, limit).await {
                        Ok(answer) => {
                            let _ = actor.send(SyncAnswered(answer)).await;
                        }
                        Err(error) => log::debug!("no StateSync from node {peer}: {error}"),
                    }
                });
            }
            Effect::ProveLeadership => self.propose(Command::ProveLeadership),
            Effect::Adopt(answer) => {
                self.parts.placement.step(now, placement::Input::Adopt(answer.placements));
                if let Some(coordinator) = answer.coordinator {
                    self.election(now, election::Input::Learned(coordinator), context);
                }
            }
            Effect::Recovered { from, entries, took } => {
                let took_ms = took.as_millis() as u64;
                let line = format!("recovered in {took_ms} ms, {entries} entries");
                record(&shared, Level::Info, &line, EventKind::Recovered { from, entries, took_ms });
            }
        }
    }

    pub(super) fn perform_failure(&mut self, now: Moment, effect: failure::Effect, context: &mut Context<Self>) {
        use failure::Effect;
        match effect {
            Effect::Fail { duration } => {
                let why = format!("simulated failure for {:.1} s", duration.as_secs_f64());
                self.recovery(now, recovery::Input::Failed { why }, context);
                // A node that is stopping does not fail any more.
                if self.failed() {
                    self.parts.gate.shut();
                }
            }
            Effect::Recover => {
                self.parts.gate.open();
                self.liveness(now, liveness::Input::Resumed, context);
                self.recovery(now, recovery::Input::FailureOver, context);
            }
        }
    }
}
