//! Large answers on their way out.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde::Serialize;

use super::body::Arrivals;
use super::refusal::Refusal;
use super::service::Sending;
use crate::protocol::problem::ProblemCode;

/// Up to this size an answer is nothing to count: the connection has a buffer as large.
const SMALL_BYTES: usize = 16 << 10;

/// The server copies whatever it is given into a buffer of the connection, which a reader that has stopped reading keeps.
const SLICE_BYTES: usize = 64 << 10;

/// Of an image: each slice wakes its reader once more, and images are large.
const IMAGE_SLICE_BYTES: usize = 256 << 10;

/// The rest of an answer, given away in slices. The memory of a large one counts until its last slice is taken or the reader has gone.
pub struct Outgoing {
    rest: Bytes,
    slice_bytes: usize,
    counted: Option<Sending>,
}

impl Outgoing {
    /// An answer of these bytes.
    ///
    /// # Errors
    /// Overloaded, if there is no memory left for large ones.
    pub fn new(rest: Bytes, arrivals: &Arrivals) -> Result<Outgoing, Refusal> {
        let permit = (rest.len() > SMALL_BYTES).then(|| arrivals.leaving(rest.len())).transpose()?;
        Ok(Outgoing { rest, slice_bytes: SLICE_BYTES, counted: permit.map(|permit| Box::new(permit) as Sending) })
    }

    /// A finished image, whose memory the node that made it counts.
    pub fn image(rest: Bytes, counted: Sending) -> Outgoing {
        Outgoing { rest, slice_bytes: IMAGE_SLICE_BYTES, counted: Some(counted) }
    }
}

/// An answer in JSON, however large.
///
/// # Errors
/// Overloaded, if there is no memory left for large ones.
pub fn json(answer: &impl Serialize, request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    let bytes = serde_json::to_vec(answer).map_err(|error| Refusal::new(ProblemCode::Internal, error.to_string()))?;
    let arrivals = request.app_data::<web::Data<Arrivals>>().expect("every server is given one");
    Ok(HttpResponse::Ok().content_type("application/json").body(Outgoing::new(bytes.into(), arrivals)?))
}

impl MessageBody for Outgoing {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let length = self.rest.len().min(self.slice_bytes);
        Poll::Ready((length > 0).then(|| Ok(self.rest.split_to(length))))
    }

    /// What is small goes out in one piece with the head, as any answer.
    fn try_into_bytes(self) -> Result<Bytes, Self> {
        if self.counted.is_none() { Ok(self.rest) } else { Err(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slow readers hold a bounded memory: who comes when it is taken is told so, and gets its answer when one of them has gone.
    #[test]
    fn large_answers_that_are_not_taken_are_bounded_and_small_ones_are_free() {
        let arrivals = Arrivals::default();
        let large = Bytes::from(vec![7; 1 << 20]);
        let mut held: Vec<Outgoing> = Vec::new();
        let refused = loop {
            assert!(held.len() <= 64, "there is a bound");
            match Outgoing::new(large.clone(), &arrivals) {
                Ok(outgoing) => held.push(outgoing),
                Err(refused) => break refused,
            }
        };
        assert_eq!((held.len(), refused.0.code), (64, ProblemCode::Overloaded));
        assert!(refused.0.retry_after_ms.is_some());
        let small = Outgoing::new(large.slice(..SMALL_BYTES), &arrivals).unwrap();
        assert_eq!(small.try_into_bytes().ok().unwrap().len(), SMALL_BYTES);
        held.pop();
        assert!(Outgoing::new(large, &arrivals).is_ok());
    }
}
