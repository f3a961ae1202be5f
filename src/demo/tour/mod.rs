//! `demo tour`: the story of a sealed photograph on a real cluster, step by step. What is told is what was answered; the tour fails
//! where that is not what was promised.

mod acts;
mod story;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::client::keys::KeyStore;
use crate::client::{ClientCredentials, ClientSettings, Cluster, NodeAddress};
use crate::config::FailureNumbers;
use crate::demo::cluster::{ClusterError, ClusterPlan, Echo, OwnCluster};
use crate::demo::observer::{Observer, Snapshot};
use crate::demo::{interrupt, run_directory};
use crate::time::{now, unix_millis};

use acts::Stage;
use story::Story;

const NODES: u16 = 3;
/// How long the cluster may take to be ready, at the beginning and when a node has come back.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const UNAVAILABLE: u8 = 4;
/// Keys of the story's people, below the cluster's own directory, with which they go.
const KEYS: &str = "keys";

/// The story of a sealed photograph: three readers, counted views and a coordinator that is killed, with the pictures.
#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  demo tour                    the pictures and index.html go to runs/TIME-ID
  demo tour --out /tmp/tour

Exit codes: 0 everything was as told, 1 it was not, 4 no cluster, 130 (Ctrl-C) or 143 (SIGTERM) interrupted.")]
pub struct Arguments {
    /// Directory of the pictures and of index.html. Default: runs/TIME-ID.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Seed of the photograph.
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    pub seed: u64,
}

/// Tells the story, inside a tokio runtime.
pub async fn run(arguments: Arguments) -> ExitCode {
    match told(&arguments).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("demo tour: {error:#}");
            ExitCode::from(if error.is::<ClusterError>() { UNAVAILABLE } else { 1 })
        }
    }
}

async fn told(arguments: &Arguments) -> Result<u8> {
    let mut signals = interrupt::listen().context("cannot listen to Ctrl-C")?;
    let run_id = run_directory::run_id(unix_millis(), std::process::id());
    let directory = run_directory::create(arguments.out.as_deref(), &run_id)?;
    let mut story = Story::new(&directory);
    // Whatever becomes of the story, the cluster ends with this.
    let result = tokio::select! {
        result = perform(arguments, &run_id, &directory, &mut story) => result,
        came = interrupt::came(&mut signals) => return Ok(came.exit_code()),
    };
    let result = result.with_context(|| story.place());
    let page = story.finish(result.as_ref().err().map(|error| format!("{error:#}")).as_deref())?;
    result?;
    println!("\nEverything was as told. The story with its pictures: {}", page.display());
    Ok(0)
}

async fn perform(arguments: &Arguments, run_id: &str, directory: &Path, story: &mut Story) -> Result<()> {
    let plan = ClusterPlan {
        nodes: NODES,
        workers: 1,
        failures: FailureNumbers { random: false, ..FailureNumbers::default() },
        seed: arguments.seed,
        run_id: run_id.to_owned(),
        logs: directory.to_owned(),
        echo: Echo::Off,
    };
    let own = OwnCluster::start(&plan)?;
    let address = |(node, address)| NodeAddress { node: Some(node), url: format!("http://{address}") };
    let nodes = own.addresses().into_iter().map(address).collect();
    let mut settings = ClientSettings::new(nodes, arguments.seed);
    settings.credentials = ClientCredentials { authorities: Vec::new(), token: Some(own.token().clone()) };
    let cluster = Cluster::new(settings.clone()).context("cannot set up the client")?;
    let looking = ClientSettings { query_timeout: Duration::from_millis(300), ..settings };
    let observer = Observer::new(Cluster::new(looking).context("cannot set up the client")?);
    let keys = KeyStore::open(&own.directory().join(KEYS))?;
    let mut stage = Stage::new(own, cluster, observer, keys, story);
    stage.perform(arguments.seed).await
}

/// Waits until every node of the story is Active under a coordinator.
async fn until_settled(own: &mut OwnCluster, observer: &Observer) -> Result<Snapshot> {
    let deadline = now() + PATIENCE;
    loop {
        own.check()?;
        observer.look().await;
        let snapshot = observer.snapshot();
        if snapshot.is_settled(usize::from(NODES)) {
            return Ok(snapshot);
        }
        if now() >= deadline {
            bail!("the nodes are not ready after {} s: {}", PATIENCE.as_secs(), snapshot.line());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
