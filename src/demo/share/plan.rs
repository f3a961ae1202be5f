//! Who seals what for whom, and what a reader asks for next: **pure**, from the seed and the order of events.

use std::collections::BTreeMap;

/// The most images that one owner seals.
const MOST_IMAGES_OF_EACH: u32 = 20;
/// The most readers of one image.
const MOST_READERS: u32 = 16;
/// Views of a reader: from one to so many.
const MOST_VIEWS: u64 = 5;
/// A reader asks for so many times his quota before he turns to the next image: most of it at the same time.
const ATTEMPTS_PER_VIEW: u64 = 2;
/// Each so-many-th attempt is one for an image to which the reader has no right.
const STRANGER_EVERY: u64 = 10;

/// What the clients of a run do. Each is a user; the first few also own images.
#[derive(Clone, Copy, Debug)]
pub struct SharePlan {
    /// Seed of the run.
    pub seed: u64,
    /// Client actors.
    pub clients: u32,
    /// Requests of each.
    pub requests_each: u32,
}

impl SharePlan {
    /// A tenth of the clients, but two at least, so that everybody finds an image that is not his own.
    pub fn owners(&self) -> u32 {
        (self.clients / 10).clamp(2, 20).min(self.clients)
    }

    fn images_of_each(&self) -> u32 {
        (self.requests_each / 10).clamp(1, MOST_IMAGES_OF_EACH)
    }

    /// All images.
    pub fn images(&self) -> u32 {
        self.owners() * self.images_of_each()
    }

    /// Whose image it is.
    pub fn owner(&self, image: u32) -> u32 {
        image % self.owners()
    }

    /// The image that the client seals with this request; none if it is a view. Owners seal during the first three quarters.
    pub fn sealed_by(&self, client: u32, turn: u32) -> Option<u32> {
        let every = (self.requests_each / 4 * 3 / self.images_of_each()).max(1);
        let number = turn / every;
        let is_seal = client < self.owners() && turn.is_multiple_of(every) && number < self.images_of_each();
        is_seal.then(|| number * self.owners() + client)
    }

    /// Who may open an image how often.
    pub fn rights(&self, image: u32) -> BTreeMap<u32, u64> {
        let readers = self.clients.div_ceil(self.owners()).clamp(1, MOST_READERS).min(self.clients - 1);
        let start = u64::from(image) * u64::from(readers) + u64::from(image / self.owners());
        let around = (0..self.clients).map(|step| ((start + u64::from(step)) % u64::from(self.clients)) as u32);
        let others = around.filter(|client| *client != self.owner(image));
        others.take(readers as usize).map(|client| (client, 1 + self.draw(&[1, image, client]) % MOST_VIEWS)).collect()
    }

    /// A number by lot that depends on these alone.
    fn draw(&self, from: &[u32]) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"image-cloud demo share").update(&self.seed.to_le_bytes());
        from.iter().for_each(|number| {
            hasher.update(&number.to_le_bytes());
        });
        u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

/// The images that are there to be opened, and who has tried what.
#[derive(Debug)]
pub struct Shelf {
    plan: SharePlan,
    /// In the order in which they were sealed, with the rights to each.
    sealed: Vec<(u32, BTreeMap<u32, u64>)>,
    attempts: BTreeMap<(u32, u32), u64>,
}

impl Shelf {
    /// An empty one.
    pub fn new(plan: SharePlan) -> Shelf {
        Shelf { plan, sealed: Vec::new(), attempts: BTreeMap::new() }
    }

    /// An image can be asked for from now on.
    pub fn add(&mut self, image: u32) {
        self.sealed.push((image, self.plan.rights(image)));
    }

    /// The image that the client asks for next; none while there is no image but his own.
    pub fn next(&mut self, client: u32, turn: u32) -> Option<u32> {
        let lot = self.plan.draw(&[2, client, turn]);
        let pick = |from: &[u32]| (!from.is_empty()).then(|| from[(lot / STRANGER_EVERY) as usize % from.len()]);
        let is_foreign = |image: u32| self.plan.owner(image) != client;
        let may_not = || {
            let all = self.sealed.iter().filter(|(image, rights)| is_foreign(*image) && !rights.contains_key(&client));
            all.map(|(image, _)| *image).collect::<Vec<_>>()
        };
        if lot.is_multiple_of(STRANGER_EVERY)
            && let Some(image) = pick(&may_not())
        {
            return Some(image);
        }
        let may: Vec<(u32, u64)> =
            self.sealed.iter().filter_map(|(image, rights)| Some((*image, *rights.get(&client)?))).collect();
        let fresh = may.iter().find(|(image, views)| {
            self.attempts.get(&(*image, client)).is_none_or(|attempts| *attempts < views * ATTEMPTS_PER_VIEW)
        });
        let known: Vec<u32> = may.iter().map(|(image, _)| *image).collect();
        let image = fresh.map(|(image, _)| *image).or_else(|| pick(&known)).or_else(|| pick(&may_not()))?;
        *self.attempts.entry((image, client)).or_default() += 1;
        Some(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANS: [(u32, u32); 6] = [(2, 1), (3, 10), (8, 60), (50, 200), (200, 7), (1000, 40)];

    #[test]
    fn every_image_is_sealed_once_by_its_owner_and_never_for_him() {
        for (clients, requests_each) in PLANS {
            let plan = SharePlan { seed: 7, clients, requests_each };
            let turns = (0..clients).flat_map(|client| (0..requests_each).map(move |turn| (client, turn)));
            let mut images: Vec<u32> = turns
                .filter_map(|(client, turn)| {
                    let image = plan.sealed_by(client, turn)?;
                    assert_eq!(plan.owner(image), client);
                    Some(image)
                })
                .collect();
            images.sort_unstable();
            assert_eq!(images, (0..plan.images()).collect::<Vec<_>>(), "{clients} clients × {requests_each}");
            for image in images {
                let rights = plan.rights(image);
                assert!(!rights.is_empty() && rights.len() <= MOST_READERS as usize);
                assert!(!rights.contains_key(&plan.owner(image)));
                assert!(rights.values().all(|views| (1..=MOST_VIEWS).contains(views)));
            }
        }
    }

    #[test]
    fn a_reader_asks_for_more_than_the_quota_and_for_what_is_not_for_him_but_never_for_his_own() {
        let plan = SharePlan { seed: 7, clients: 50, requests_each: 200 };
        let mut shelf = Shelf::new(plan);
        assert_eq!(shelf.next(9, 0), None);
        (0..plan.images()).for_each(|image| shelf.add(image));
        let asked: Vec<u32> = (0..200).filter_map(|turn| shelf.next(9, turn)).collect();
        assert_eq!(asked.len(), 200);
        let views: u64 = (0..plan.images()).filter_map(|image| plan.rights(image).get(&9).copied()).sum();
        let (for_him, not_for_him): (Vec<u32>, Vec<u32>) =
            asked.into_iter().partition(|image| plan.rights(*image).contains_key(&9));
        assert!(for_him.len() as u64 > views && !not_for_him.is_empty(), "{views} views, {} attempts", for_him.len());
        assert!((0..200).filter_map(|turn| shelf.next(0, turn)).all(|image| plan.owner(image) != 0));
    }

    #[test]
    fn everybody_finds_an_image_among_the_first() {
        for (clients, requests_each) in PLANS {
            let plan = SharePlan { seed: 7, clients, requests_each };
            let mut shelf = Shelf::new(plan);
            (0..plan.owners()).for_each(|image| shelf.add(image));
            assert!((0..clients).all(|client| shelf.next(client, 1).is_some()), "{clients} clients");
        }
    }
}
