//! Answers that nothing is added to.

use super::{Content, Id, Kept, Outcome};
use crate::protocol::codec;

/// Answers side by side, in the order of their ids: 16 bytes for an id, 4 for where its answer ends, and some 16 for the answer of a
/// command with one operation, instead of the 56 of both where they are worked with.
#[derive(Debug)]
pub(super) struct Run {
    ids: Vec<Id>,
    /// Of each answer, in `answers`.
    ends: Vec<u32>,
    answers: Vec<u8>,
    /// What the commits and revisions of the answers are counted from: small numbers take few bytes.
    commit: u64,
    revision: u64,
}

/// An answer as it is written: what it is about, its commit and its revision above those of the run, and what came of it.
type Row = ([u8; size_of::<Content>()], u64, u64, Outcome);

impl Run {
    /// Of answers that stand in the order of their ids.
    pub fn of(kepts: &[(Id, Kept)]) -> Run {
        debug_assert!(kepts.is_sorted_by(|one, next| one.0 < next.0), "a run is out of order");
        let least = |number: fn(&Kept) -> u64| kepts.iter().map(|(_, kept)| number(kept)).min().unwrap_or(0);
        let (commit, revision) = (least(|kept| kept.commit), least(|kept| kept.revision));
        let (mut ends, mut answers) = (Vec::with_capacity(kepts.len()), Vec::new());
        for (_, kept) in kepts {
            let content = kept.content.to_be_bytes();
            let row = (content, kept.commit - commit, kept.revision - revision, &kept.outcome);
            codec::encode_into(&row, &mut answers)
                .expect("an answer has the results of one command, much less than a frame");
            ends.push(u32::try_from(answers.len()).expect("a run is a small part of 4 GiB"));
        }
        answers.shrink_to_fit();
        Run { ids: kepts.iter().map(|(id, _)| *id).collect(), ends, answers, commit, revision }
    }

    pub fn ids(&self) -> &[Id] {
        &self.ids
    }

    pub fn get(&self, id: &Id) -> Option<Kept> {
        self.ids.binary_search(id).ok().map(|place| self.answer(place))
    }

    /// The answer to the request whose id stands there.
    pub fn answer(&self, place: usize) -> Kept {
        let begin = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        let row = &self.answers[begin as usize..self.ends[place] as usize];
        let (content, commit, revision, outcome): Row = codec::decode(row).expect("it was encoded here");
        Kept {
            content: Content::from_be_bytes(content),
            commit: self.commit + commit,
            revision: self.revision + revision,
            outcome,
        }
    }
}
