//! The command line of `client`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use super::target::TargetArguments;
use super::{
    capacity, decrypt, encrypt, events, fail, hash, heal, inspect, keys, kv, label, lease, members, partition,
    read_label, register, rights, send, slow, status, users, view, views, whoami,
};

const EXAMPLES: &str = "\
Examples:
  client 1 5                                      client 1 sends 5 requests with made pictures
  client register alice                           makes alice's keys here and registers her
  client encrypt --input cat.jpg --owner alice --to bob=3,carol=1 -o sealed.png
  client view --input sealed.png --user bob       spends one of bob's three views
  client grant sealed.png bob --views 2 --user alice
  client encrypt --input cat.jpg                  locks cat.jpg into encrypted_lsb_image.png
  client decrypt encrypted_lsb_image.png --cluster-key data/cluster/cluster.key
  client label cat.jpg --to alice,bob --quota 5   writes names and quota into the picture
  client status --watch                           all nodes, once a second
  client fail coordinator --for 5s                makes the coordinator fail for 5 seconds
  client set color blue                           writes to the replicated store; client get color reads
  client incr views -1 --floor 0                  a counter that never goes below zero
  client partition 1,2/3                          cuts node 3 off from the others; client heal ends it
  client members replace 2 127.0.0.1:8012         puts a new node 2 in the place of the old one

`client 1 5` is short for `client send 1 5`: a number in place of a command means send.";

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 unavailable, 5 denied, 6 damaged,
130 interrupted. Data goes to stdout, talk to stderr. NO_COLOR and RUST_LOG are respected.";

/// Locks and labels images on an Image Cloud.
#[derive(Debug, Parser)]
#[command(name = "client", version, before_help = EXAMPLES, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub target: TargetArguments,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send requests with generated pictures (`client 1 5`)
    Send(send::Arguments),
    /// Lock a picture: hide it, encrypted, in an Access Denied picture
    Encrypt(encrypt::Arguments),
    /// Become a user: make keys here, register their public halves
    Register(register::Arguments),
    /// Show whose keys are used
    Whoami(whoami::Arguments),
    /// Show all users
    Users(users::UsersArguments),
    /// Print an invitation, with which somebody may register
    Invite(users::InviteArguments),
    /// End a user for good
    Expel(users::ExpelArguments),
    /// Make new keys, copy them, take them from elsewhere
    Keys(keys::Arguments),
    /// Open a sealed picture as a user who may: spends a view
    View(view::Arguments),
    /// Show what you have left of a picture; for its owner, what everybody has
    Rights(rights::RightsArguments),
    /// Add views
    Grant(rights::GrantArguments),
    /// Say how many views a user has left
    Quota(rights::QuotaArguments),
    /// Take back what a user has left
    Revoke(rights::RevokeArguments),
    /// Say when the rights to a picture end
    Expire(rights::ExpireArguments),
    /// Say whether leased views may be given back
    Returns(rights::ReturnsArguments),
    /// Give up the views that you have left
    Burn(rights::BurnArguments),
    /// Show who opened a picture when, and what was changed
    Views(views::ViewsArguments),
    /// Show your pictures
    Images(views::ImagesArguments),
    /// Check a picture's audit chain
    Audit(views::AuditArguments),
    /// Pay views in advance, to spend them where no node is reached
    Lease(lease::Arguments),
    /// Write names and a quota into a picture's lowest bits; a mark, not a secret
    Label(label::Arguments),
    /// Open a locked picture here, with the cluster's key
    Decrypt(decrypt::Arguments),
    /// Show what a locked picture tells to everyone
    Inspect(inspect::Arguments),
    /// Print the label of a labelled picture as JSON
    ReadLabel(read_label::Arguments),
    /// Show how long a label a picture can carry
    Capacity(capacity::Arguments),
    /// Show all nodes
    Status(status::Arguments),
    /// Make a node fail for a while: it ignores all communication
    Fail(fail::Arguments),
    /// Set a key of the replicated store
    #[command(visible_alias = "write")]
    Set(kv::SetArguments),
    /// Print the value of a key
    #[command(visible_alias = "read")]
    Get(kv::GetArguments),
    /// Remove a key
    Delete(kv::DeleteArguments),
    /// List keys and values
    List(kv::ListArguments),
    /// Set a key only if it has the expected value
    Cas(kv::CasArguments),
    /// Add to a number, never below a floor
    Incr(kv::IncrArguments),
    /// Show changes of keys as they happen
    Watch(kv::WatchArguments),
    /// Show who leads
    Leader(hash::LeaderArguments),
    /// Show what happened at the nodes
    Events(events::EventsArguments),
    /// Show why this node leads: who called the election, every load, the votes
    ExplainElection(events::ExplainArguments),
    /// Show whether all replicas are equal
    Hash(hash::HashArguments),
    /// Show who belongs to the cluster; add, replace and remove nodes while it runs
    Members(members::Arguments),
    /// Cut links between nodes
    Partition(partition::Arguments),
    /// Delay and lose messages between nodes
    Slow(slow::Arguments),
    /// Make all links whole again
    Heal(heal::Arguments),
}

/// Parses the arguments, program name first; `client 1 5` as `client send 1 5`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(position) = number_in_place_of_a_command(&arguments) {
        arguments.insert(position, "send".into());
    }
    Cli::try_parse_from(arguments)
}

/// Where the first argument that is neither a flag nor a flag's value stands, if it is a number.
fn number_in_place_of_a_command(arguments: &[OsString]) -> Option<usize> {
    let command = Cli::command();
    let takes_value = |argument: &str| {
        argument.strip_prefix("--").is_some_and(|name| {
            let mut flags = command.get_arguments().filter(|flag| flag.get_action().takes_values());
            flags.any(|flag| flag.get_long() == Some(name))
        })
    };
    let mut position = 1;
    loop {
        let argument = arguments.get(position)?.to_str()?;
        if takes_value(argument) {
            position += 2;
        } else if argument.starts_with('-') {
            position += 1;
        } else {
            let is_number = !argument.is_empty() && argument.bytes().all(|byte| byte.is_ascii_digit());
            return is_number.then_some(position);
        }
    }
}

/// Parses `5s`, `500ms`, `2m`, `1.5s`, `1h`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a duration: use a number with ms, s, m, h or d, as in 5s or 500ms");
    let unit_at = text.find(|character: char| !character.is_ascii_digit() && character != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let milliseconds = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3600e3,
        "d" => 86_400e3,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * milliseconds / 1e3).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Result<Command, clap::Error> {
        parse(line.split_whitespace().map(OsString::from)).map(|cli| cli.command)
    }

    #[test]
    fn a_number_in_place_of_a_command_sends() {
        for line in [
            "client 1 5",
            "client send 1 5",
            "client --nodes 127.0.0.1:1,127.0.0.1:2 1 5",
            "client --nodes=127.0.0.1:1 1 5",
            "client 1 5 --nodes 127.0.0.1:1",
            "client --config x.toml 1 5 --form compact",
        ] {
            let Ok(Command::Send(arguments)) = command(line) else { panic!("{line}") };
            assert_eq!((arguments.client, arguments.requests), (1, 5), "{line}");
        }
    }

    #[test]
    fn every_documented_form_parses() {
        for line in [
            "client encrypt --input cat.jpg",
            "client encrypt --input cat.jpg -o out.png --form stored --force",
            "client encrypt --input cat.jpg --owner alice",
            "client encrypt cat.jpg --owner alice",
            "client encrypt --input cat.jpg --user alice --to bob=3,carol=1 --expires 7d --local -o out.png",
            "client register alice",
            "client register alice --invitation-file invitation.txt --passphrase --keys keys",
            "client whoami",
            "client whoami --user alice -o json --passphrase-file secret.txt",
            "client users -o json",
            "client invite --for 7d",
            "client expel mallory",
            "client keys rotate --user alice",
            "client keys export --user alice -o alice.toml",
            "client keys import alice.toml --keys keys",
            "client view --input sealed.png --user bob",
            "client view --input sealed.png --user bob -o a.jpg --force",
            "client view -i sealed.png --offline",
            "client view sealed.png --user bob",
            "client rights sealed.png --user bob -o json",
            "client grant sealed.png bob --views 1 --user alice",
            "client quota sealed.png bob --views 0",
            "client revoke sealed.png bob --request-id 00000000000000000000000000000001",
            "client expire sealed.png --in 7d",
            "client expire sealed.png --never",
            "client returns sealed.png --allow",
            "client returns sealed.png --forbid",
            "client burn sealed.png --user bob",
            "client views sealed.png --user alice",
            "client images --user alice -o json",
            "client audit verify sealed.png --user alice",
            "client lease sealed.png --views 2 --for 24h --user bob",
            "client lease return sealed.png --views 1 --user bob",
            "client label cat.jpg --to alice,bob --quota 5 -o out.png",
            "client decrypt x.png --cluster-key data/cluster/cluster.key -o cat.jpg",
            "client inspect x.png -o json",
            "client read-label x.png",
            "client capacity x.png",
            "client status -o table --watch",
            "client status -o json --nodes 127.0.0.1:8001",
            "client fail 2 --for 5s",
            "client fail coordinator --for 500ms",
            "client set color blue",
            "client write temperature -5 --expires 30s",
            "client get color --stale -o json",
            "client read color --raw",
            "client delete color",
            "client list session/",
            "client cas color blue red",
            "client cas color --revision 7 red",
            "client incr views -1 --floor 0",
            "client leader",
            "client watch session/ --after 5 -o json",
            "client hash -o json",
            "client events --follow --node 2",
            "client explain-election 7 -o json",
            "client members",
            "client members -o json",
            "client members add 4 127.0.0.1:8004",
            "client members replace 2 127.0.0.1:8012 --peer 127.0.0.1:9500 --wait 5m -o json",
            "client members remove 2",
            "client partition 1,2/3",
            "client partition --one-way 1/2",
            "client partition --only 1/2",
            "client slow 1/2 --delay 50ms --jitter 10ms --loss 5%",
            "client slow 1/2/3 --loss 5%",
            "client heal",
        ] {
            assert!(command(line).is_ok(), "{line}: {}", command(line).unwrap_err());
        }
    }

    #[test]
    fn a_lease_is_taken_or_given_back() {
        let Ok(Command::Lease(lease)) = command("client lease a.png --views 2 --for 1h") else { panic!("not taken") };
        assert_eq!((lease.views, lease.time), (Some(2), Some(Duration::from_secs(3600))));
        assert!(lease.image.is_some() && lease.command.is_none());
        let Ok(Command::Lease(lease)) = command("client lease return a.png --views 1") else {
            panic!("not given back")
        };
        assert!(lease.command.is_some());
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [
            "client",
            "client 1",
            "client one 5",
            "client 1 5 6",
            "client 1 -5",
            "client 1 0",
            "client 99999999999 1",
            "client encrypt",
            "client encrypt --input cat.jpg --form zip",
            "client encrypt cat.jpg --input cat.jpg",
            "client view --user bob",
            "client encrypt --input cat.jpg --to bob=3",
            "client encrypt --input cat.jpg --local",
            "client encrypt --input cat.jpg --owner alice --to bob",
            "client encrypt --input cat.jpg --owner alice --to bob=0",
            "client encrypt --input cat.jpg --owner alice --to bob=18446744073709551615",
            "client encrypt --input cat.jpg --owner alice --to bob=1,bob=2",
            "client register",
            "client register a,b",
            "client register alice --passphrase secret",
            "client keys",
            "client keys export --user alice",
            "client view",
            "client grant sealed.png bob",
            "client grant sealed.png bob --views 0",
            "client grant sealed.png bob --views 18446744073709551615",
            "client quota sealed.png bob",
            "client expire sealed.png",
            "client expire sealed.png --in 7d --never",
            "client returns sealed.png",
            "client returns sealed.png --allow --forbid",
            "client audit sealed.png",
            "client lease sealed.png",
            "client lease sealed.png --views 0 --for 1h",
            "client lease return sealed.png",
            "client label cat.jpg --quota 5",
            "client label cat.jpg --to alice --quota many",
            "client decrypt x.png",
            "client status -o yaml",
            "client fail 0 --for 5s",
            "client fail follower --for 5s",
            "client fail 1",
            "client fail 1 --for 5",
            "client fail 1 --for 0s",
            "client members add 4",
            "client members add four 127.0.0.1:8004",
            "client members replace 2 localhost:8012",
            "client members replace 2 127.0.0.1:8012 --wait 2h",
            "client members remove",
            "client members remove 2 127.0.0.1:8002",
            "client partition",
            "client partition 1,2",
            "client partition 1,2/2",
            "client slow 1/2",
            "client slow 1/2 --jitter 5ms",
            "client slow 1/2 --delay 50",
            "client slow 1/2 --loss 5",
            "client heal 1",
            "client encrpyt --input cat.jpg",
            "client set color",
            "client get",
            "client cas color",
            "client incr views many",
            "client set color blue --request-id 7",
            "client status --frobnicate",
        ] {
            assert_eq!(command(line).map(|command| format!("{command:?}")).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn help_starts_with_examples_and_is_no_error() {
        let error = command("client --help").unwrap_err();
        assert_eq!(error.exit_code(), 0);
        assert!(error.to_string().starts_with("Examples:\n  client 1 5"), "{error}");
        assert!(command("client encrpyt").unwrap_err().to_string().contains("'encrypt'"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in ["", "5", "s", "-5s", "5 s", "5w", "1.2.3s", "9999999999999999999999h", "infs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
