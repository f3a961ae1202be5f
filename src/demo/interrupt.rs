//! Ctrl-C and SIGTERM. The first one ends the run in order; the second one ends the process at once, and the nodes, whose
//! standard input then closes, end themselves.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Interrupt {
    /// The exit code of a run that was cut short by it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Interrupt::Interrupted => 130,
            Interrupt::Terminated => 143,
        }
    }
}

/// The first signal, as soon as there is one.
pub type Signals = watch::Receiver<Option<Interrupt>>;

/// Listens from now on.
///
/// # Errors
/// The system does not let the process listen to signals.
pub fn listen() -> std::io::Result<Signals> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let mut seen_before = false;
        loop {
            let came = tokio::select! {
                Some(()) = interrupt.recv() => Interrupt::Interrupted,
                Some(()) = terminate.recv() => Interrupt::Terminated,
            };
            if seen_before {
                std::process::exit(i32::from(came.exit_code()));
            }
            seen_before = true;
            // Without a receiver the run is at its end anyway.
            let _ = sender.send(Some(came));
        }
    });
    Ok(receiver)
}

/// Resolves with the first signal.
pub async fn came(signals: &mut Signals) -> Interrupt {
    match signals.wait_for(Option::is_some).await {
        Ok(came) => came.expect("the wait ends when there is one"),
        Err(_) => std::future::pending().await,
    }
}
