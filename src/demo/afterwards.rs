//! After the report, in a terminal: the cluster stays, nodes fail at random, and what happens is printed until Ctrl-C.

use std::time::Duration;

use crate::client::Cluster;
use crate::demo::cluster::Lines;
use crate::demo::driver::{LOOK_EVERY, observation, perform};
use crate::demo::observer::{Observer, narrate};
use crate::demo::scenario::RandomFailures;
use crate::time::{now, unix_millis};

/// Who makes nodes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failures {
    /// The demo tells them to.
    ByTheDemo,
    /// The nodes do by themselves, or nobody does.
    NotByTheDemo,
}

/// How often a line says how the nodes are, where nothing happens.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Goes on for ever: to be dropped on Ctrl-C.
pub async fn keep_running(cluster: &Cluster, lines: Option<Lines>, observer: &Observer, seed: u64, failures: Failures) {
    let (start, start_unix_ms) = (now(), unix_millis());
    let what = match failures {
        Failures::ByTheDemo => "every 30 s each node fails with a probability of 20 %, for 10 to 20 s",
        Failures::NotByTheDemo => "the demo makes nobody fail",
    };
    println!("\nThe cluster goes on: {what}. Times are seconds from now. Ctrl-C ends it.");
    let mut random = RandomFailures::new(seed, Duration::ZERO);
    let mut next_line = Duration::ZERO;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for event in observer.look().await {
            if let Some(text) = narrate(&event, start_unix_ms) {
                println!("{}", text.trim_end());
                next_line = now().since(start);
            }
        }
        let (at, snapshot) = (now().since(start), observer.snapshot());
        if failures == Failures::ByTheDemo {
            for command in random.step(&observation(at, 0, &snapshot)) {
                let (Ok(line) | Err(line)) = perform(cluster, lines.as_ref(), &command).await;
                println!("t={:+.2} s  {line}", at.as_secs_f64());
            }
        }
        if at >= next_line {
            println!("t={:+.2} s  nodes {}", at.as_secs_f64(), snapshot.line());
            next_line = at + LINE_EVERY;
        }
    }
}
