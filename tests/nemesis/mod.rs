//! What can happen to a cluster of processes, by the numbers of a seed. Each strike ends by itself: afterwards every node runs.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::time::Duration;

use image_cloud::protocol::job::route;
use image_cloud::protocol::sync::FailCommand;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use serde_json::json;

use crate::common::{TestCluster, wait_for};

/// Where nodes are told which of their links are cut.
const FAULTS: &str = "/api/v1/faults";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strike {
    /// kill -9, and a start some time later.
    Kill,
    /// kill -9 of two nodes at the same time: of three, that is the majority.
    KillTwo,
    /// SIGSTOP and SIGCONT: it comes back with what it believed before.
    Pause,
    /// The node's own simulated failure.
    Fail,
    /// Nothing that one node sends arrives at the others, or nothing that they send arrives at it.
    CutOneWay,
    /// A minority is cut off from the rest.
    Part,
}

pub struct Nemesis {
    rng: SmallRng,
    http: reqwest::Client,
    strikes: Vec<Strike>,
    /// How often it did what.
    pub done: BTreeMap<Strike, usize>,
}

impl Nemesis {
    /// Cuts links only where the nodes know how to.
    pub async fn new(seed: u64, cluster: &TestCluster) -> Nemesis {
        let token = format!("Bearer {}", cluster.admin_token().secret());
        let headers = [(reqwest::header::AUTHORIZATION, token.parse().unwrap())].into_iter().collect();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(1)).default_headers(headers).build().unwrap();
        let mut strikes = vec![Strike::Kill, Strike::Kill, Strike::KillTwo, Strike::Pause, Strike::Pause, Strike::Fail];
        let first = cluster.running()[0];
        if post(&http, cluster.url(first) + FAULTS, &json!([])).await == Some(200) {
            strikes.extend([Strike::CutOneWay, Strike::CutOneWay, Strike::Part]);
        } else {
            println!("the nodes do not know {FAULTS}: no links are cut");
        }
        Nemesis { rng: SmallRng::seed_from_u64(seed), http, strikes, done: BTreeMap::new() }
    }

    /// A pause between strikes.
    pub async fn rest(&mut self) {
        self.sleep(20..300).await;
    }

    /// Does something, and undoes it.
    pub async fn strike(&mut self, cluster: &mut TestCluster) {
        let strike = self.strikes[self.rng.random_range(0..self.strikes.len())];
        *self.done.entry(strike).or_default() += 1;
        let victim = self.victim(cluster).await;
        let mut others: Vec<u16> = cluster.running().into_iter().filter(|node| *node != victim).collect();
        others.shuffle(&mut self.rng);
        match strike {
            Strike::Kill => self.kill(cluster, &[victim]).await,
            Strike::KillTwo => self.kill(cluster, &[victim, others[0]]).await,
            Strike::Pause => {
                cluster.signal(victim, Signal::STOP);
                self.sleep(50..700).await;
                cluster.signal(victim, Signal::CONT);
            }
            Strike::Fail => {
                let duration = self.duration(50..700);
                let command = json!(FailCommand { duration_ms: duration.as_millis() as u64 });
                post(&self.http, cluster.url(victim) + route::FAIL, &command).await;
                tokio::time::sleep(duration).await;
            }
            Strike::CutOneWay => {
                let inwards = self.rng.random_bool(0.5);
                let cut = |peer: &u16| json!({"peer": peer, "cut_in": inwards, "cut_out": !inwards});
                let cuts = others.iter().map(cut).collect();
                self.cut(cluster, BTreeMap::from([(victim, cuts)])).await;
            }
            Strike::Part => {
                let few = others.len() / 2;
                let minority: Vec<u16> = std::iter::once(victim).chain(others[..few - 1].iter().copied()).collect();
                let majority = &others[few - 1..];
                let cut = |peer: &u16| json!({"peer": peer, "cut_in": true, "cut_out": true});
                let cuts = minority.iter().map(|node| (*node, majority.iter().map(cut).collect())).collect();
                self.cut(cluster, cuts).await;
            }
        }
    }

    /// kill -9 of these, and a start some time later.
    pub async fn kill(&mut self, cluster: &mut TestCluster, victims: &[u16]) {
        victims.iter().for_each(|node| cluster.kill(*node));
        self.sleep(1..400).await;
        victims.iter().for_each(|node| cluster.spawn(*node));
    }

    async fn cut(&mut self, cluster: &TestCluster, cuts: BTreeMap<u16, Vec<serde_json::Value>>) {
        for (node, cuts) in &cuts {
            post(&self.http, cluster.url(*node) + FAULTS, &json!(cuts)).await;
        }
        self.sleep(100..900).await;
        for node in cuts.keys() {
            wait_for(&format!("node {node} mends its links"), async || {
                post(&self.http, cluster.url(*node) + FAULTS, &json!([])).await.filter(|status| *status == 200)
            })
            .await;
        }
    }

    /// Mostly the leader, if somebody knows one.
    pub async fn victim(&mut self, cluster: &TestCluster) -> u16 {
        let running = cluster.running();
        let any = running[self.rng.random_range(0..running.len())];
        if self.rng.random_bool(0.35) {
            return any;
        }
        let mut leader = None;
        for node in &running {
            let told = cluster.status(*node).await.and_then(|status| status.coordinator);
            leader = leader.max(told.map(|told| (told.term, told.node.0)));
        }
        leader.map(|(_, node)| node).filter(|node| running.contains(node)).unwrap_or(any)
    }

    async fn sleep(&mut self, millis: std::ops::Range<u64>) {
        tokio::time::sleep(self.duration(millis)).await;
    }

    fn duration(&mut self, millis: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(millis))
    }
}

async fn post(http: &reqwest::Client, url: String, body: &serde_json::Value) -> Option<u16> {
    let request = http.post(url).header("content-type", "application/json").body(body.to_string());
    Some(request.send().await.ok()?.status().as_u16())
}
