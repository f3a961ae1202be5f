//! A cluster of one, over Raft alone: it calls nobody, and nobody looks for it.

#![allow(dead_code, reason = "the benchmark of restarts uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use image_cloud::id::MemberId;
use image_cloud::protocol::election::Campaign;
use image_cloud::protocol::frame::Lane;
use image_cloud::protocol::membership::Place;
use image_cloud::raft::error::CampaignError;
use image_cloud::raft::{RaftNode, RaftSettings, RaftTransport, TransportError};
use image_cloud::time::now;

const DEADLINE: Duration = Duration::from_secs(20);

/// A cluster of one calls nobody.
pub struct Nobody;

impl RaftTransport for Nobody {
    fn call(
        &self,
        _: MemberId,
        _: Lane,
        _: Vec<u8>,
        _: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        Box::pin(std::future::ready(Err(TransportError::Timeout)))
    }
}

/// Nobody looks for it.
pub fn nowhere() -> Place {
    let address = ([127, 0, 0, 1], 1).into();
    Place::new(address, address)
}

/// Starts the node and lets it lead.
pub async fn lead(settings: RaftSettings) -> RaftNode {
    let member = settings.member;
    let deadline = now() + DEADLINE;
    let raft = RaftNode::open(settings, Arc::new(Nobody)).await.expect("it opens");
    let mut views = raft.views();
    while views.borrow_and_update().leader.is_none() {
        assert!(now() < deadline, "it leads nobody: {:?}", raft.views().borrow());
        let asked = if raft.views().borrow().voters.is_empty() {
            raft.initialise([(member, nowhere())].into()).await
        } else {
            raft.campaign(Campaign::PreVote, None).await
        };
        match asked {
            // The view may lag behind what an earlier turn began, and a busy disk behind both.
            Ok(()) | Err(CampaignError::AlreadyInitialised { .. } | CampaignError::Hung(_)) => {}
            Err(error) => panic!("it does not campaign: {error}"),
        }
        // A refused campaign changes nothing, so the wait is bounded.
        let _ = tokio::time::timeout(Duration::from_millis(50), views.changed()).await;
    }
    raft
}
