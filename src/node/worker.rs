//! The image workers: threads of their own at low priority, so that heartbeats and Raft never wait behind a picture.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{Actor, Addr, Handler, Message, SyncArbiter, SyncContext};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::desk::Ticket;
use super::keys::Keys;
use crate::http::{Done, Work};
use crate::image::{self, ClusterId, Cover, DataKey, ImageError, ImageNonce, Limits, Scratch, SealKeys, SealOptions};
use crate::protocol::problem::{Problem, ProblemCode};
use crate::{scheduling, time};

/// What every worker needs.
pub struct Tools {
    /// The keys under which headers are wrapped.
    pub keys: Keys,
    /// Set once the node has learned it; before that nothing is sealed.
    pub cluster_id: OnceLock<ClusterId>,
    /// What a stranger sees.
    pub cover: Cover,
    /// Limits of images.
    pub limits: Limits,
    /// Every job is made to last at least this long.
    pub simulated_delay: Duration,
}

/// One image job.
#[derive(Message)]
#[rtype(result = "Result<Done, Problem>")]
pub struct Order {
    /// Its place in the admission.
    pub ticket: Ticket,
    /// What is to be done.
    pub work: Work,
    /// The image file.
    pub image: Bytes,
    /// Memory for decoding it.
    pub permit: OwnedSemaphorePermit,
}

/// One worker thread.
pub struct Worker {
    tools: Arc<Tools>,
    scratch: Scratch,
}

/// Starts `count` workers behind one address. Their queue has no bound of its own: the desk admits no more than may wait.
pub fn start(count: u32, tools: &Arc<Tools>) -> Addr<Worker> {
    let tools = Arc::clone(tools);
    SyncArbiter::start(count as usize, move || Worker { tools: Arc::clone(&tools), scratch: Scratch::default() })
}

impl Actor for Worker {
    type Context = SyncContext<Self>;

    fn started(&mut self, _context: &mut Self::Context) {
        scheduling::bulk_in_the_background();
    }
}

impl Handler<Order> for Worker {
    type Result = Result<Done, Problem>;

    fn handle(&mut self, order: Order, _context: &mut Self::Context) -> Self::Result {
        let Order { mut ticket, work, image, permit } = order;
        ticket.start();
        let started = time::now();
        // A decoder that panics on a hostile file costs that one request.
        let result = catch_unwind(AssertUnwindSafe(|| self.perform(&work, &image)));
        drop(permit);
        let finished = result.unwrap_or_else(|_| {
            self.scratch = Scratch::default();
            Err(Problem::new(ProblemCode::BadImage, "the decoder gave up on this file; it is damaged or hostile"))
        })?;
        let rest = self.tools.simulated_delay.saturating_sub(time::now().since(started));
        if !rest.is_zero() {
            std::thread::sleep(rest);
        }
        Ok(ticket.finish(Bytes::from(finished), work, &image))
    }
}

impl Worker {
    fn perform(&mut self, work: &Work, file: &[u8]) -> Result<Vec<u8>, Problem> {
        let tools = &self.tools;
        let image_error = |error: ImageError| error.problem();
        match work {
            Work::Label { label, form } => {
                image::label(file, label, &tools.limits, *form, &mut self.scratch).map_err(image_error)
            }
            Work::Seal { form, name, terms } => {
                let Some(cluster_id) = tools.cluster_id.get() else {
                    let detail = "this node has not learned the cluster id yet: it seals after the first election";
                    return Err(Problem::new(ProblemCode::NoClusterId, detail));
                };
                let keys = SealKeys {
                    cluster_key: tools.keys.current(),
                    cluster_id: *cluster_id,
                    image_nonce: ImageNonce(random_bytes()?),
                    data_key: DataKey(random_bytes()?),
                };
                let options = SealOptions { cover: tools.cover.clone(), form: *form, terms: terms.clone() };
                image::seal(file, name, &keys, &options, &tools.limits, &mut self.scratch).map_err(image_error)
            }
        }
    }
}

/// Bytes that nobody can guess.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Problem::new(ProblemCode::Internal, "the system gave no random bytes"))?;
    Ok(bytes)
}
