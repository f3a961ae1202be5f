//! The heartbeat connection to one peer: always open, one way, the latest heartbeat only.

use std::time::Duration;

use tokio::sync::watch;

use crate::protocol::codec::LIMIT_BYTES;
use crate::protocol::election::Heartbeat;
use crate::protocol::frame::NodeFrame;
use crate::transport::dial::Connection;
use crate::transport::faults::Outlet;
use crate::transport::gate::Gate;
use crate::transport::link::Link;
use crate::transport::wire::{encode_frame, write_within};

const WRITE_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs until the sender of `latest` is dropped.
pub(crate) async fn run(mut link: Link, gate: Gate, mut latest: watch::Receiver<Option<Heartbeat>>) {
    while latest.has_changed().is_ok() {
        gate.opened().await;
        tokio::time::sleep(link.pause()).await;
        if let Ok(connection) = link.connect().await {
            stream(connection, &gate, link.outlet(), &mut latest).await;
        }
    }
}

/// Sends each heartbeat until the connection or the sender is gone. A heartbeat that was overtaken is not sent.
async fn stream(
    connection: Connection,
    gate: &Gate,
    mut outlet: Outlet,
    latest: &mut watch::Receiver<Option<Heartbeat>>,
) {
    let Connection { mut reader, mut writer, .. } = connection;
    latest.mark_changed();
    loop {
        let frame = tokio::select! {
            changed = latest.changed() => {
                if changed.is_err() {
                    return;
                }
                let heartbeat = latest.borrow_and_update().clone();
                let Some(heartbeat) = heartbeat.filter(|_| !gate.is_shut()) else { continue };
                let Ok(frame) = encode_frame(&NodeFrame::Heartbeat(heartbeat)) else { continue };
                outlet.take(frame)
            }
            delayed = outlet.due() => Some(delayed).filter(|_| !gate.is_shut()),
            // The peer says nothing here: whatever comes, the end of the stream included, ends the connection.
            _ = reader.message::<NodeFrame>(LIMIT_BYTES) => return,
        };
        if let Some(frame) = frame
            && write_within(&mut writer, &frame, WRITE_TIMEOUT).await.is_err()
        {
            return;
        }
    }
}
