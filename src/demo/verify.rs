//! Every answer is checked, in workers of their own, after its latency was taken: the label is read back, the seal is opened and
//! compared with the original byte for byte. The queue is bounded in bytes; a client whose answer finds it full waits before it
//! sends again, and that wait is counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::client::Work;
use crate::demo::pictures::Picture;
use crate::image::{DataKey, Limits, unseal_with};
use crate::time::now;

/// Answers that wait for their check take at most so much memory, in KiB. A larger one waits for all of it.
const QUEUE_KIB: u32 = 256 * 1024;
/// And there are at most so many of them.
const QUEUE_LENGTH: usize = 256;

/// Knows what a right answer is.
pub trait Checker: Send + Sync + 'static {
    /// # Errors
    /// What is wrong with the answer, in one line.
    fn check(&self, work: &Work, picture: &Picture, answer: &[u8]) -> Result<(), String>;

    /// Whether a released key opens the sealed picture to the original.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    fn opens(&self, key: &DataKey, picture: &Picture, sealed: &[u8]) -> Result<(), String> {
        let opened = unseal_with(sealed, key, &Limits::default());
        same_bytes(&opened.map_err(|error| format!("the key does not open the picture: {error}"))?, &picture.bytes)
    }
}

/// One answer to check.
#[derive(Debug)]
pub struct Check {
    /// Number of the request.
    pub index: u64,
    /// What was asked for.
    pub work: Work,
    /// The picture that was sent.
    pub picture: Picture,
    /// The answer.
    pub answer: Bytes,
    /// The key that was released for it, where that is what is to be checked.
    pub key: Option<DataKey>,
}

/// What the checks found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Answers that were checked.
    pub checked: u64,
    /// Wrong ones: number of the request and what was wrong.
    pub wrong: Vec<(u64, String)>,
    /// Time that the workers spent on it.
    pub work: Duration,
}

type Queued = (Check, OwnedSemaphorePermit);

/// The way to the workers; clones share it.
#[derive(Clone, Debug)]
pub struct Queue {
    sender: mpsc::Sender<Queued>,
    memory: Arc<Semaphore>,
}

/// The workers.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<Findings>>,
}

/// Starts `count` workers.
///
/// # Errors
/// The system has no thread left.
pub fn start(checker: Arc<dyn Checker>, count: usize) -> std::io::Result<(Queue, Workers)> {
    let (sender, receiver) = mpsc::channel::<Queued>(QUEUE_LENGTH);
    let receiver = Arc::new(Mutex::new(receiver));
    let threads = (0..count)
        .map(|number| {
            let (checker, receiver) = (checker.clone(), receiver.clone());
            std::thread::Builder::new()
                .name(format!("check-{}", number + 1))
                .spawn(move || check_all(checker.as_ref(), &receiver))
        })
        .collect::<Result<_, _>>()?;
    Ok((Queue { sender, memory: Arc::new(Semaphore::new(QUEUE_KIB as usize)) }, Workers { threads }))
}

fn check_all(checker: &dyn Checker, receiver: &Mutex<mpsc::Receiver<Queued>>) -> Findings {
    let mut findings = Findings::default();
    loop {
        // Only one worker waits at the queue at a time; the others wait for the lock, which is the same.
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some((check, _memory)) = next else { return findings };
        let begin = now();
        // A check that panics has found an answer that should never have come; the findings before it must not be lost with it.
        let look = || match &check.key {
            Some(key) => checker.opens(key, &check.picture, &check.answer),
            None => checker.check(&check.work, &check.picture, &check.answer),
        };
        let verdict = catch_unwind(AssertUnwindSafe(look))
            .unwrap_or_else(|_| Err("the check panicked on this answer".to_owned()));
        findings.work += now().since(begin);
        findings.checked += 1;
        if let Err(why) = verdict {
            findings.wrong.push((check.index, why));
        }
    }
}

impl Queue {
    /// Hands over an answer and says how long that took: nothing, unless the workers are behind.
    pub async fn submit(&self, check: Check) -> Duration {
        let begin = now();
        let size_kib = (check.answer.len() as u64).div_ceil(1024).clamp(1, u64::from(QUEUE_KIB)) as u32;
        if let Ok(memory) = self.memory.clone().acquire_many_owned(size_kib).await {
            // The workers go only after every queue handle is gone, so the send cannot fail while this one lives.
            let _ = self.sender.send((check, memory)).await;
        }
        now().since(begin)
    }
}

impl Workers {
    /// Waits until the queue is empty, which needs every [`Queue`] to be dropped, and adds up what was found.
    pub fn finish(self) -> Findings {
        let mut all = Findings::default();
        for thread in self.threads {
            match thread.join() {
                Ok(findings) => {
                    all.checked += findings.checked;
                    all.wrong.extend(findings.wrong);
                    all.work += findings.work;
                }
                // Panics of the checks are caught, so this is a bug of the loop around them.
                Err(_) => log::error!("a checking worker panicked; its findings are lost"),
            }
        }
        all.wrong.sort();
        all
    }
}

/// Compares an opened original with the picture that was sent.
///
/// # Errors
/// The first byte that differs.
pub fn same_bytes(opened: &[u8], original: &[u8]) -> Result<(), String> {
    if opened == original {
        return Ok(());
    }
    let equal = opened.iter().zip(original).take_while(|(left, right)| left == right).count();
    Err(format!(
        "the opened original differs from the picture that was sent at byte {equal} ({} bytes instead of {})",
        opened.len(),
        original.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::job::SealForm;

    /// Takes an answer for right if it is the picture itself.
    struct Same;

    impl Checker for Same {
        fn check(&self, _work: &Work, picture: &Picture, answer: &[u8]) -> Result<(), String> {
            same_bytes(answer, &picture.bytes)
        }
    }

    fn check(index: u64, answer: Bytes) -> Check {
        let picture =
            Picture { name: "a.png".into(), format: "png", size: (1, 1), bytes: Bytes::from_static(b"the original") };
        Check { index, work: Work::Seal(SealForm::Compact), picture, answer, key: None }
    }

    #[tokio::test]
    async fn a_flipped_bit_is_found_and_told_with_its_place() {
        let (queue, workers) = start(Arc::new(Same), 2).unwrap();
        queue.submit(check(1, Bytes::from_static(b"the original"))).await;
        queue.submit(check(2, Bytes::from_static(b"the originam"))).await;
        queue.submit(check(3, Bytes::from_static(b"the"))).await;
        drop(queue);
        let findings = workers.finish();
        assert_eq!(findings.checked, 3);
        assert_eq!(findings.wrong.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2, 3]);
        assert!(findings.wrong[0].1.contains("at byte 11"), "{}", findings.wrong[0].1);
        assert!(findings.wrong[1].1.contains("3 bytes instead of 12"), "{}", findings.wrong[1].1);
    }

    /// Panics on one answer.
    struct Fragile;

    impl Checker for Fragile {
        fn check(&self, _work: &Work, _picture: &Picture, answer: &[u8]) -> Result<(), String> {
            if answer == b"poison" { panic!("as a decoder may") } else { Err("wrong".to_owned()) }
        }
    }

    #[tokio::test]
    async fn a_check_that_panics_counts_as_a_wrong_answer_and_loses_no_other() {
        let (queue, workers) = start(Arc::new(Fragile), 1).unwrap();
        for (index, answer) in [(1, &b"a"[..]), (2, b"poison"), (3, b"b")] {
            queue.submit(check(index, Bytes::from_static(answer))).await;
        }
        drop(queue);
        let findings = workers.finish();
        assert_eq!(findings.checked, 3);
        assert_eq!(findings.wrong.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(findings.wrong[1].1.contains("panicked"), "{}", findings.wrong[1].1);
    }

    #[tokio::test]
    async fn answers_larger_than_the_queue_pass_one_at_a_time() {
        let (queue, workers) = start(Arc::new(Same), 1).unwrap();
        let large = Bytes::from(vec![0; (QUEUE_KIB as usize + 1) << 10]);
        for index in 0..3 {
            queue.submit(check(index, large.clone())).await;
        }
        drop(queue);
        assert_eq!(workers.finish().checked, 3);
    }
}
