//! What each request of the run is, from the seed alone: which client, operation and picture, and its id.

use crate::client::Work;
use crate::demo::options::WorkMix;
use crate::id::RequestId;
use crate::protocol::job::{Label, Operation, SealForm};

/// The plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of the run.
    pub seed: u64,
    /// Id of the run: two runs of one seed send different request ids, so that no node answers from an earlier run.
    pub run_id: String,
    /// Number of client actors.
    pub clients: u32,
    /// Requests of each client.
    pub requests_each: u32,
    /// Seals, labels or both.
    pub mix: WorkMix,
    /// Number of pictures.
    pub pictures: usize,
}

/// One planned request.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its number, from 0.
    pub index: u64,
    /// The client that sends it, from 0.
    pub client: u32,
    /// Its id.
    pub id: RequestId,
    /// Which picture.
    pub picture: usize,
    /// What is to be done. Every label is another one, so that an answer to a wrong request is found out.
    pub work: Work,
}

impl Plan {
    /// All requests.
    pub fn total(&self) -> u64 {
        u64::from(self.clients) * u64::from(self.requests_each)
    }

    /// The request that `client` sends as its `turn`-th, both from 0. Clients take turns, so in the open model neighbours in
    /// time come from different clients.
    pub fn request(&self, client: u32, turn: u32) -> Planned {
        let index = u64::from(turn) * u64::from(self.clients) + u64::from(client);
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"image-cloud demo request");
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&index.to_le_bytes());
        let choice = hasher.finalize();
        hasher.update(self.run_id.as_bytes());
        let name = hasher.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&name.as_bytes()[..16]);
        // A request picks its picture by chance, so that no client and no node sees always the same one.
        let number = u64::from_le_bytes(choice.as_bytes()[..8].try_into().expect("a slice of eight bytes has eight"));
        let picture = (number % self.pictures.max(1) as u64) as usize;
        let operation = match self.mix {
            // What is shared, and what is asked for instead of this, is the share's own plan.
            WorkMix::Seal | WorkMix::Share => Operation::Seal,
            WorkMix::Label => Operation::Label,
            WorkMix::Mix if index.is_multiple_of(2) => Operation::Seal,
            WorkMix::Mix => Operation::Label,
        };
        let work = match operation {
            Operation::Seal => Work::Seal(SealForm::Compact),
            Operation::Label => Work::Label(Label {
                usernames: vec![format!("client-{}", client + 1), "alice".to_owned(), "bob".to_owned()],
                quota: index + 1,
            }),
        };
        Planned { index, client, id: RequestId(id), picture, work }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan(seed: u64, run_id: &str) -> Plan {
        Plan { seed, run_id: run_id.into(), clients: 5, requests_each: 40, mix: WorkMix::Mix, pictures: 8 }
    }

    fn all(plan: &Plan) -> Vec<Planned> {
        (0..plan.requests_each)
            .flat_map(|turn| (0..plan.clients).map(move |client| plan.request(client, turn)))
            .collect()
    }

    #[test]
    fn one_seed_gives_one_plan_and_every_run_its_own_request_ids() {
        let (first, second) = (all(&plan(7, "a")), all(&plan(7, "b")));
        let ids: BTreeSet<_> = first.iter().chain(&second).map(|request| request.id).collect();
        assert_eq!(ids.len(), 400, "an id of one run must not be answered from the cache of another");
        for (left, right) in first.iter().zip(&second) {
            assert_eq!(
                (left.index, left.picture, left.work.operation()),
                (right.index, right.picture, right.work.operation())
            );
        }
        assert_eq!(first[3].id, all(&plan(7, "a"))[3].id);
    }

    #[test]
    fn requests_are_numbered_without_gaps_and_use_every_picture_and_operation() {
        let requests = all(&plan(7, "a"));
        let indices: Vec<_> = requests.iter().map(|request| request.index).collect();
        assert_eq!(indices, (0..200).collect::<Vec<_>>());
        let pictures: BTreeSet<_> = requests.iter().map(|request| request.picture).collect();
        assert_eq!(pictures.len(), 8);
        assert_eq!(requests.iter().filter(|request| request.work.operation() == Operation::Seal).count(), 100);
    }
}
