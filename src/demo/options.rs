//! The command line: syntax first ([`Arguments`]), then meaning ([`Options`]).

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use thiserror::Error;

use crate::client::ClientCredentials;
use crate::config::secrets::{self, AdminToken, SecretsError};
use crate::demo::threshold::Threshold;
use crate::demo::tour;
use crate::protocol::membership::MEMBERS_LIMIT;

const EXAMPLES: &str = "\
Examples:
  demo                                       3 nodes, 50 clients x 200 requests, two failures, a report
  demo --clients 10 --requests 20 --seed 7   a small run that can be repeated
  demo --op mix --images ~/Pictures          your own pictures, sealed and labelled
  demo --failures none --verify none         speed alone
  demo --rate 300 --threshold 'p95<250ms'    300 requests a second, timed from the planned send; exit 99 if missed
  demo --attach http://127.0.0.1:8001,http://127.0.0.1:8002
  demo --op share                            owners seal, readers race for counted views while nodes fail
  demo tour                                  the story of one sealed photograph, step by step, with pictures";

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 a request failed or an answer was wrong, 2 usage, 4 no cluster, 99 a threshold was missed,
130 (Ctrl-C) or 143 (SIGTERM) interrupted with a partial report.";

/// Starts a cluster, sends it image jobs while nodes fail, checks every answer and reports.
#[derive(Clone, Debug, Parser)]
#[command(name = "demo", version, about, before_help = EXAMPLES, after_help = EXIT_CODES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Something else than a run with a report.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Client actors that send at the same time.
    #[arg(long, short = 'c', default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// Requests of each client.
    #[arg(long, short = 'n', default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests: u32,
    /// Nodes of the demo's own cluster.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MEMBERS_LIMIT as i64), conflicts_with = "attach")]
    pub nodes: u16,
    /// What the clients ask for.
    #[arg(long, value_enum, default_value_t = WorkMix::Seal)]
    pub op: WorkMix,
    /// Your own pictures: every image file directly in this directory. Default: eight made from the seed.
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Open model: this many requests a second in all, timed from the planned send.
    #[arg(long, short = 'r', value_name = "R")]
    pub rate: Option<f64>,
    /// Which nodes fail: by the scenario (the coordinator, then another), at random, or none. Default: scenario; none with --attach.
    #[arg(long, value_enum)]
    pub failures: Option<FailureMode>,
    /// Seed of everything that is drawn by lot; printed first. Default: a new one.
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Which answers are checked: all, none, or about N of them.
    #[arg(long, default_value = "all", value_name = "all|none|N")]
    pub verify: Verify,
    /// A limit that the run must keep, such as 'p95<250ms' or 'success_rate>=1'; may be repeated. Missed: exit 99.
    #[arg(long, value_name = "EXPR")]
    pub threshold: Vec<Threshold>,
    /// A running cluster instead of the demo's own: the HTTP addresses of its nodes.
    #[arg(long, value_name = "URL,...", value_delimiter = ',')]
    pub attach: Vec<String>,
    /// With --attach: the key with which sealed answers are opened to check them. Default: data/cluster/cluster.key.
    #[arg(long, value_name = "PATH", requires = "attach")]
    pub cluster_key: Option<PathBuf>,
    /// With --attach: the certificate of the cluster's authority, for https addresses.
    #[arg(long, env = "CLOUD_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// With --attach: the file of the cluster's admin token. Default: data/cluster/admin.token, if it is there.
    #[arg(long, env = "CLOUD_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Directory of the report. Default: runs/TIME-ID.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// After the report keep the cluster and go on with random failures until Ctrl-C, as in a terminal.
    #[arg(long, conflicts_with = "exit")]
    pub keep_running: bool,
    /// Exit after the report, even in a terminal.
    #[arg(long)]
    pub exit: bool,
    /// No progress bar.
    #[arg(long)]
    pub no_progress: bool,
}

/// What the demo does instead of a run.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// The story of a sealed photograph, step by step, with pictures
    Tour(tour::Arguments),
}

/// What the clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkMix {
    /// Seals only.
    Seal,
    /// Labels only.
    Label,
    /// Seals and labels in turn.
    Mix,
    /// Seals for named readers, who race for their views.
    Share,
}

/// Which nodes fail during the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureMode {
    /// None.
    None,
    /// The coordinator at 25 % of the requests, another node at 65 %.
    Scenario,
    /// Every 30 s each node with a probability of 20 %, for 10 to 20 s.
    Random,
}

/// Which answers are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Every one.
    All,
    /// None.
    None,
    /// About so many, spread over the run.
    Sample(u64),
}

impl Verify {
    /// Whether the answer to the request of this number is checked.
    pub fn includes(self, index: u64, total: u64) -> bool {
        match self {
            Verify::All => true,
            Verify::None => false,
            Verify::Sample(wanted) if wanted >= total => true,
            // True where index * wanted / total steps up: exactly `wanted` times, evenly spread.
            Verify::Sample(wanted) => {
                let steps = |number: u64| u128::from(number) * u128::from(wanted) / u128::from(total);
                steps(index + 1) > steps(index)
            }
        }
    }
}

impl std::str::FromStr for Verify {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Verify::All),
            "none" | "0" => Ok(Verify::None),
            number => number
                .parse()
                .map(Verify::Sample)
                .map_err(|_| format!("\"{text}\" is not all, none or a number of answers to check")),
        }
    }
}

impl std::fmt::Display for Verify {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verify::All => formatter.pad("all"),
            Verify::None => formatter.pad("none"),
            Verify::Sample(count) => formatter.pad(&count.to_string()),
        }
    }
}

/// Arguments that contradict one another. Exit code 2; each text names the flags.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UsageError {
    /// A rate that is no rate.
    #[error("--rate {0} cannot be kept: use a number of requests a second from 0.1 to 100000")]
    Rate(String),
    /// More requests than records fit in memory.
    #[error(
        "--clients {clients} × --requests {requests} = {total} requests; at most {} fit in one run",
        Options::TOTAL_LIMIT
    )]
    TooMany {
        /// Clients.
        clients: u32,
        /// Requests of each.
        requests: u32,
        /// Their product.
        total: u64,
    },
    /// Nobody to share with.
    #[error("--op share needs somebody to share with: use --clients 2 or more")]
    Alone,
    /// Seals of a foreign cluster cannot be checked without its key.
    #[error(
        "--verify {verify} with seals needs the key of the attached cluster, and {looked_at} cannot be read ({why}): \
         name it with --cluster-key PATH, or use --verify none"
    )]
    NoKey {
        /// As given.
        verify: String,
        /// The file.
        looked_at: String,
        /// The system's or the file's reason.
        why: String,
    },
    /// Not an address.
    #[error(
        "--attach \"{0}\" is not an address: use http://HOST:PORT or https://HOST:PORT, several of them separated by commas"
    )]
    Address(String),
    /// A file of the attached cluster that cannot be used.
    #[error("{flag}: {why}")]
    Secret {
        /// The flag that names it.
        flag: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// Where the nodes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The demo's own cluster of so many nodes.
    Own {
        /// Number of nodes.
        nodes: u16,
    },
    /// A running cluster.
    Attached {
        /// HTTP addresses as `http://host:port` or `https://host:port`.
        addresses: Vec<String>,
    },
}

/// What is to be done, resolved.
#[derive(Clone, Debug)]
pub struct Options {
    /// The arguments as given.
    pub arguments: Arguments,
    /// Where the nodes come from.
    pub target: Target,
    /// Which nodes fail.
    pub failures: FailureMode,
    /// The seed.
    pub seed: u64,
    /// The key of an attached cluster, where answers are to be checked with it.
    pub cluster_key: Option<secrets::KeyBytes>,
    /// What an attached cluster is shown, and whom the demo believes there.
    pub credentials: ClientCredentials,
}

impl Options {
    /// The most requests in one run: their records are kept until the report.
    pub const TOTAL_LIMIT: u64 = 5_000_000;
    /// Where the key of a cluster on this machine lies.
    pub const DEFAULT_KEY: &str = "data/cluster/cluster.key";
    /// Where its admin token lies.
    pub const DEFAULT_TOKEN: &str = "data/cluster/admin.token";

    /// Checks the arguments and fills in the defaults; `fresh_seed` is taken where no seed is given.
    ///
    /// # Errors
    /// What cannot work together, naming the flags.
    pub fn resolve(arguments: Arguments, fresh_seed: u64) -> Result<Options, UsageError> {
        if let Some(rate) = arguments.rate
            && !(0.1..=100_000.0).contains(&rate)
        {
            return Err(UsageError::Rate(rate.to_string()));
        }
        let total = u64::from(arguments.clients) * u64::from(arguments.requests);
        if total > Self::TOTAL_LIMIT {
            return Err(UsageError::TooMany { clients: arguments.clients, requests: arguments.requests, total });
        }
        if arguments.op == WorkMix::Share && arguments.clients < 2 {
            return Err(UsageError::Alone);
        }
        let target = if arguments.attach.is_empty() {
            Target::Own { nodes: arguments.nodes }
        } else {
            Target::Attached { addresses: arguments.attach.iter().map(|text| address(text)).collect::<Result<_, _>>()? }
        };
        let is_attached = matches!(target, Target::Attached { .. });
        let default_failures = if is_attached { FailureMode::None } else { FailureMode::Scenario };
        let opens_seals = arguments.op != WorkMix::Label && arguments.verify != Verify::None;
        let cluster_key = if is_attached && opens_seals {
            let path = arguments.cluster_key.as_deref().unwrap_or(Path::new(Self::DEFAULT_KEY));
            let key = secrets::read_cluster_key(path).map_err(|error| UsageError::NoKey {
                verify: arguments.verify.to_string(),
                looked_at: path.display().to_string(),
                why: error.to_string(),
            })?;
            Some(key)
        } else {
            None
        };
        Ok(Options {
            target,
            failures: arguments.failures.unwrap_or(default_failures),
            seed: arguments.seed.unwrap_or(fresh_seed),
            cluster_key,
            credentials: if is_attached { credentials(&arguments)? } else { ClientCredentials::default() },
            arguments,
        })
    }
}

/// Named files must be there; the token of a cluster on this machine is used if it is.
fn credentials(arguments: &Arguments) -> Result<ClientCredentials, UsageError> {
    let wrong = |flag| move |error: SecretsError| UsageError::Secret { flag, why: error.to_string() };
    let authorities = arguments.ca.as_deref().map(secrets::read_certificates).transpose().map_err(wrong("--ca"))?;
    let default = Path::new(Options::DEFAULT_TOKEN);
    let token = arguments.admin_token_file.as_deref().or(Some(default).filter(|path| path.exists()));
    let token = token.map(AdminToken::read).transpose().map_err(wrong("--admin-token-file"))?;
    Ok(ClientCredentials { authorities: authorities.unwrap_or_default(), token })
}

fn address(text: &str) -> Result<String, UsageError> {
    let wrong = || UsageError::Address(text.to_owned());
    let trimmed = text.trim().trim_end_matches('/');
    let with_scheme = if trimmed.contains("://") { trimmed.to_owned() } else { format!("http://{trimmed}") };
    let authority = with_scheme.strip_prefix("https://").or(with_scheme.strip_prefix("http://")).ok_or_else(wrong)?;
    let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
    let is_address = !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0);
    if is_address { Ok(with_scheme) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(line: &[&str]) -> Result<Options, UsageError> {
        let arguments = Arguments::try_parse_from(std::iter::once(&"demo").chain(line)).unwrap();
        Options::resolve(arguments, 99)
    }

    #[test]
    fn help_starts_with_examples_and_ends_with_exit_codes() {
        let help = Arguments::try_parse_from(["demo", "--help"]).unwrap_err().to_string();
        assert!(help.starts_with("Examples:\n  demo "), "{help}");
        // It is wrapped to the terminal's width.
        let words: Vec<&str> = help.split_whitespace().collect();
        assert!(words.join(" ").contains("99 a threshold was missed"), "{help}");
    }

    #[test]
    fn without_arguments_it_is_the_run_of_the_seed_documents() {
        let options = resolve(&[]).unwrap();
        assert_eq!((options.arguments.clients, options.arguments.requests), (50, 200));
        assert_eq!(options.target, Target::Own { nodes: 3 });
        assert_eq!(
            (options.failures, options.arguments.verify, options.seed),
            (FailureMode::Scenario, Verify::All, 99)
        );
    }

    #[test]
    fn an_attached_cluster_is_never_failed_unasked() {
        let options = resolve(&["--attach", "127.0.0.1:8001,http://127.0.0.1:8002/", "--verify", "none"]).unwrap();
        let addresses = vec!["http://127.0.0.1:8001".to_owned(), "http://127.0.0.1:8002".to_owned()];
        assert_eq!(options.target, Target::Attached { addresses });
        assert_eq!(options.failures, FailureMode::None);
        let asked = resolve(&["--attach", "127.0.0.1:8001", "--verify", "none", "--failures", "scenario"]).unwrap();
        assert_eq!(asked.failures, FailureMode::Scenario);
    }

    #[test]
    fn checking_seals_of_an_attached_cluster_without_its_key_names_both_flags() {
        let line = ["--attach", "127.0.0.1:8001", "--cluster-key", "no/such.key"];
        let error = resolve(&line).unwrap_err().to_string();
        assert!(
            error.contains("--verify all") && error.contains("--cluster-key") && error.contains("no/such.key"),
            "{error}"
        );
        assert!(resolve(&["--attach", "127.0.0.1:8001", "--cluster-key", "no/such.key", "--op", "label"]).is_ok());
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_flag() {
        assert!(resolve(&["--rate", "0"]).unwrap_err().to_string().contains("--rate"));
        assert!(resolve(&["--rate", "NaN"]).unwrap_err().to_string().contains("--rate"));
        assert!(resolve(&["--clients", "10000", "--requests", "1000"]).unwrap_err().to_string().contains("--clients"));
        assert!(resolve(&["--op", "share", "--clients", "1"]).unwrap_err().to_string().contains("--clients 2"));
        assert!(resolve(&["--attach", "here", "--verify", "none"]).unwrap_err().to_string().contains("--attach"));
        for line in
            [["--clients", "0"], ["--verify", "some"], ["--threshold", "p95<250"], ["--nodes", "0"], ["--nodes", "32"]]
        {
            let error = Arguments::try_parse_from(["demo", line[0], line[1]]).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(line[0]), "{error}");
        }
    }

    #[test]
    fn a_sample_has_exactly_the_wanted_size_and_is_spread_over_the_run() {
        for (wanted, total) in [(1, 10), (3, 10), (10, 10), (99, 10), (7, 10_000)] {
            let chosen: Vec<u64> = (0..total).filter(|index| Verify::Sample(wanted).includes(*index, total)).collect();
            assert_eq!(chosen.len() as u64, wanted.min(total), "{wanted} of {total}");
        }
        let chosen: Vec<u64> = (0..100).filter(|index| Verify::Sample(4).includes(*index, 100)).collect();
        assert_eq!(chosen, [24, 49, 74, 99]);
    }
}
