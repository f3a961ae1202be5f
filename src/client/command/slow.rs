//! `client slow`: delay and lose messages between nodes.

use std::time::Duration;

use super::args::duration;
use super::exit::{CommandError, Exit};
use super::links::{Groups, Present};
use super::target::TargetArguments;
use crate::id::NodeId;
use crate::protocol::fault::LinkFault;

#[derive(Clone, Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("fault").required(true).multiple(true).args(["delay", "loss"]),
    before_help = "\
Examples:
  client slow 1/2 --delay 50ms                       between 1 and 2, each way
  client slow 1/2/3 --delay 50ms --jitter 10ms       between all three
  client slow 1/2,3 --loss 5%                        between 1 and the two others
  client heal                                        all links are whole again

Each message between nodes of different groups is late by the delay, more or less by the jitter,
or lost with that probability, both ways; links within a group and cuts stay as they are. The last
`slow` of a link counts. Exit code 4 if a node could not be told: some links are as before then."
)]
pub struct Arguments {
    /// Nodes in groups: commas within a group, a slash between two
    #[arg(value_name = "GROUPS")]
    pub groups: Groups,
    /// How much later each message arrives; at most 10s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub delay: Option<Duration>,
    /// By how much the delay varies, up and down; at most the delay
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "delay")]
    pub jitter: Option<Duration>,
    /// How many of the messages are lost, as in 5%
    #[arg(long, value_name = "PERCENT", value_parser = percentage)]
    pub loss: Option<f64>,
}

/// Parses `5%` into a probability.
fn percentage(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    match number.filter(|number| (0.0..=100.0).contains(number)) {
        Some(number) => Ok(number / 100.0),
        None => Err(format!("\"{text}\" is not a share of the messages: use 0% to 100%, as in 5%")),
    }
}

impl Arguments {
    fn fault(&self) -> Result<LinkFault, CommandError> {
        let milliseconds = |time: Option<Duration>| time.map_or(0, |time| time.as_millis() as u64);
        let (delay_ms, jitter_ms) = (milliseconds(self.delay), milliseconds(self.jitter));
        if delay_ms > LinkFault::LONGEST_DELAY_MS {
            return Err(CommandError::new(Exit::Usage, format!("--delay is {delay_ms} ms, at most 10 s are allowed")));
        }
        if jitter_ms > delay_ms {
            let text = format!("--jitter is {jitter_ms} ms, more than --delay, {delay_ms} ms: nothing arrives early");
            return Err(CommandError::new(Exit::Usage, text));
        }
        Ok(LinkFault { delay_ms, jitter_ms, loss: self.loss.unwrap_or_default(), ..LinkFault::none(NodeId(0)) })
    }
}

pub async fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let (groups, fault) = (&arguments.groups, arguments.fault()?);
    let cluster = target.open(None)?.cluster;
    let mut present = Present::look(&cluster).await?;
    present.check(&groups.nodes())?;
    for (one, other) in groups.pairs() {
        present.faults.slow(one, other, fault);
        present.faults.slow(other, one, fault);
    }
    present.tell(&cluster, &groups.nodes(), "the slow-down").await?;
    eprintln!("slow: {groups}; `client heal` ends it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_a_percentage() {
        assert_eq!(percentage("5%"), Ok(0.05));
        assert_eq!(percentage("0%"), Ok(0.0));
        assert_eq!(percentage("100%"), Ok(1.0));
        for text in ["5", "%", "-1%", "101%", "NaN%", "a%", "5 %"] {
            assert!(percentage(text).is_err(), "{text}");
        }
    }

    #[test]
    fn more_jitter_than_delay_is_wrong_usage() {
        let of = |delay, jitter| {
            let arguments = Arguments {
                groups: "1/2".parse().unwrap(),
                delay: Some(Duration::from_millis(delay)),
                jitter: Some(Duration::from_millis(jitter)),
                loss: None,
            };
            arguments.fault().map(|fault| (fault.delay_ms, fault.jitter_ms)).map_err(|error| error.exit)
        };
        assert_eq!(of(50, 10).unwrap(), (50, 10));
        assert_eq!(of(10, 50).unwrap_err(), Exit::Usage);
        assert_eq!(of(10_001, 0).unwrap_err(), Exit::Usage);
    }
}
