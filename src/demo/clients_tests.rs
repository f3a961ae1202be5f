use std::sync::Mutex;

use actix::Actor;
use bytes::Bytes;

use super::*;
use crate::client::{PlacedBy, Work};
use crate::demo::options::WorkMix;
use crate::demo::verify::{self, Checker};
use crate::id::{NodeId, RequestId};

/// Answers each request with its own picture after a time; takes a bit off the answer to the third one.
#[derive(Default)]
struct Fake {
    takes: Duration,
    seen: Mutex<Vec<RequestId>>,
    flips_third: bool,
}

impl Service for Fake {
    async fn run(&self, job: Job) -> Result<Answer, Refused> {
        tokio::time::sleep(self.takes).await;
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(job.id);
            seen.len()
        };
        let mut image = job.image.to_vec();
        if self.flips_third && number == 3 {
            image[5] ^= 1;
        }
        let attempt = Attempt {
            node: Some(NodeId(1)),
            placed_by: PlacedBy::Coordinator,
            took: self.takes,
            announce: Duration::ZERO,
            failure: None,
        };
        Ok(Answer {
            image: image.into(),
            node: NodeId(1),
            job_time: self.takes,
            repeated: false,
            attempts: vec![attempt],
        })
    }
}

struct Same;

impl Checker for Same {
    fn check(&self, _: &Work, picture: &Picture, answer: &[u8]) -> Result<(), String> {
        verify::same_bytes(answer, &picture.bytes)
    }
}

struct Ran {
    records: Vec<Record>,
    findings: verify::Findings,
}

async fn run(fake: Arc<Fake>, clients: u32, requests_each: u32, model: Model, stop: watch::Receiver<bool>) -> Ran {
    let (queue, workers) = verify::start(Arc::new(Same), 1).unwrap();
    let (records, mut received) = mpsc::channel(16);
    let picture = Picture {
        name: "a.png".into(),
        format: "png",
        size: (1, 1),
        bytes: Bytes::from_static(b"the bytes of a picture"),
    };
    let plan = Plan { seed: 3, run_id: "test".into(), clients, requests_each, mix: WorkMix::Seal, pictures: 1 };
    let load = Arc::new(Load {
        service: fake,
        plan,
        pictures: vec![picture],
        model,
        verify: Verify::All,
        queue,
        counters: Arc::default(),
        stop,
        records,
        start: now(),
        share: None,
    });
    let collecting = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(record) = received.recv().await {
            all.push(record);
        }
        all
    });
    let actors: Vec<_> = (0..clients).map(|number| Client::new(number, load.clone()).start()).collect();
    futures::future::join_all(actors.iter().map(|actor| actor.send(SendAll))).await;
    drop((actors, load));
    let records = collecting.await.unwrap();
    let findings = tokio::task::spawn_blocking(|| workers.finish()).await.unwrap();
    Ran { records, findings }
}

fn never_stopped() -> (watch::Sender<bool>, watch::Receiver<bool>) {
    watch::channel(false)
}

#[actix::test]
async fn every_client_sends_all_its_requests_once_and_a_wrong_answer_is_found() {
    let fake = Arc::new(Fake { flips_third: true, ..Fake::default() });
    let (_sender, stop) = never_stopped();
    let ran = run(fake.clone(), 4, 5, Model::Closed, stop).await;
    let mut indices: Vec<u64> = ran.records.iter().map(|record| record.index).collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..20).collect::<Vec<_>>());
    let mut ids = fake.seen.lock().unwrap().clone();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20, "each request has an id of its own");
    assert_eq!(ran.findings.checked, 20);
    assert_eq!(ran.findings.wrong.len(), 1);
    assert!(ran.findings.wrong[0].1.contains("at byte 5"));
}

#[actix::test]
async fn in_the_closed_model_a_client_has_one_request_under_way() {
    let (_sender, stop) = never_stopped();
    let fake = Arc::new(Fake { takes: Duration::from_millis(5), ..Fake::default() });
    let mut ran = run(fake, 1, 6, Model::Closed, stop).await;
    ran.records.sort_by_key(|record| record.index);
    for pair in ran.records.windows(2) {
        assert!(pair[1].sent >= pair[0].finished, "{pair:?}");
        assert_eq!(pair[1].intended, pair[1].sent);
    }
}

#[actix::test]
async fn in_the_open_model_the_wait_for_a_slow_cluster_is_in_the_latency() {
    // One client may have 8 requests of 50 ms under way, so 160 a second; 1,000 a second are due. The 40th is due at 39 ms and
    // cannot be sent before four full rounds of 50 ms.
    let (_sender, stop) = never_stopped();
    let fake = Arc::new(Fake { takes: Duration::from_millis(50), ..Fake::default() });
    let mut ran = run(fake, 1, 40, Model::Open { rate: 1000.0 }, stop).await;
    ran.records.sort_by_key(|record| record.index);
    let last = &ran.records[39];
    assert_eq!(last.intended.as_millis(), 39);
    assert!(last.sent >= Duration::from_millis(200), "{last:?}");
    assert!(last.latency() >= Duration::from_millis(211), "counted from the intended send: {last:?}");
    assert!(last.service_time() < last.latency());
}

#[actix::test]
async fn a_stop_ends_the_run_with_the_records_so_far() {
    let (sender, stop) = never_stopped();
    let fake = Arc::new(Fake { takes: Duration::from_millis(2), ..Fake::default() });
    let counting = fake.clone();
    let stopper = tokio::spawn(async move {
        while counting.seen.lock().unwrap().len() < 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sender.send(true).unwrap();
    });
    let ran = run(fake, 2, 100_000, Model::Closed, stop).await;
    stopper.await.unwrap();
    assert!((8..1000).contains(&ran.records.len()), "{} records", ran.records.len());
}
