//! `client set`, `get`, `delete`, `list`, `cas`, `incr`: the key-value store.

use std::io::Read;
use std::time::Duration;

use serde::Serialize;

use super::args::duration;
use super::exit::{CommandError, Exit};
use super::output::{Format, json_line, new_table, print_bytes, print_line, print_values};
use super::target::TargetArguments;
use crate::client::Consistency;
use crate::id::RequestId;
use crate::protocol::kv::{Batch, BatchOperation, Item, MOST_VALUE_BYTES, Written, text_or_base64};
use crate::protocol::ledger::KvResult;

/// Keys asked for at a time.
const PAGE: usize = 1000;

/// What every write takes.
#[derive(Clone, Debug, clap::Args)]
pub struct WriteArguments {
    /// The request's id, 32 hexadecimal digits: the same id is done once, however often it is sent [default: a fresh one]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<RequestId>,
    /// How long to try before giving up; that there is no quorum is said at once
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// What every read takes.
#[derive(Clone, Debug, clap::Args)]
pub struct ReadArguments {
    /// Ask any node for what it knows; it may lag behind
    #[arg(long)]
    pub stale: bool,
    /// How long to try before giving up; that there is no quorum is said at once
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

impl ReadArguments {
    fn consistency(&self) -> Consistency {
        if self.stale { Consistency::Stale } else { Consistency::Linearizable }
    }
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client set color blue
  client set session/7 alice --expires 30s
  client set photo - < cat.jpg                    a dash reads the value from standard input
  client set lock me --if-absent                  only if the key is not there: exit 1 otherwise")]
pub struct SetArguments {
    /// The key
    pub key: String,
    /// Its value, or - for standard input
    #[arg(allow_negative_numbers = true)]
    pub value: String,
    /// Time after which the key is gone, as in 30s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub expires: Option<Duration>,
    /// Only if the key is not there
    #[arg(long)]
    pub if_absent: bool,
    #[command(flatten)]
    pub write: WriteArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client get color
  client get photo --raw > cat.jpg
  client get color --stale -o json

Exit code 3 if there is no such key.")]
pub struct GetArguments {
    /// The key
    pub key: String,
    /// Write the value's bytes and nothing else, not even a line end
    #[arg(long, conflicts_with = "output")]
    pub raw: bool,
    #[command(flatten)]
    pub read: ReadArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client delete color

Exit code 3 if there was no such key.")]
pub struct DeleteArguments {
    /// The key
    pub key: String,
    #[command(flatten)]
    pub write: WriteArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client list
  client list session/ -o json")]
pub struct ListArguments {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    pub prefix: String,
    #[command(flatten)]
    pub read: ReadArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client cas color blue red                       red, if it is blue now
  client cas color --revision 7 red               red, if it was last changed in revision 7

Exit code 1 if the value is another.")]
pub struct CasArguments {
    /// The key
    pub key: String,
    /// The value that is expected; with --revision, the new one
    #[arg(allow_negative_numbers = true)]
    pub expected: String,
    /// The new value
    #[arg(allow_negative_numbers = true)]
    pub new: Option<String>,
    /// Expect the key as it was left by this revision
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<u64>,
    #[command(flatten)]
    pub write: WriteArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client incr visits                              adds 1; a key that is not there counts as 0
  client incr views -1 --floor 0                  takes 1, but never below 0: exit 1 then")]
pub struct IncrArguments {
    /// The key
    pub key: String,
    /// What is added
    #[arg(default_value = "1", allow_negative_numbers = true, value_parser = whole_number)]
    pub by: i64,
    /// The least value that may come out
    #[arg(long, allow_negative_numbers = true, value_parser = whole_number)]
    pub floor: Option<i64>,
    #[command(flatten)]
    pub write: WriteArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client watch                                    every change, as it happens, until Ctrl-C
  client watch session/ -o json
  client watch --after 120                        what has changed since revision 120, and what comes

A node keeps its last 7,000 changes; older revisions end with exit code 1. When a node is lost, another one goes on.")]
pub struct WatchArguments {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    pub prefix: String,
    /// Begin after this revision [default: now]
    #[arg(long, value_name = "REVISION")]
    pub after: Option<u64>,
    /// Form of the result; JSON has one change on each line
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

pub async fn watch(arguments: &WatchArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let mut watch = target.open(None)?.cluster.watch(&arguments.prefix, arguments.after);
    loop {
        let changed = watch.next().await?;
        print_line(&match (arguments.output, &changed.item) {
            (Format::Json, _) => json_line(&changed)?,
            (Format::Table, None) => format!("{:>8}  gone  {}", changed.revision, changed.key),
            (Format::Table, Some(item)) => {
                format!("{:>8}  set   {} = {}", changed.revision, changed.key, value_for_people(item))
            }
        })?;
    }
}

fn value_for_people(item: &Item) -> String {
    match (&item.value, &item.value_base64) {
        (Some(text), _) => shortened(text),
        (None, coded) => format!("base64:{}", shortened(coded.as_deref().unwrap_or_default())),
    }
}

fn whole_number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("a whole number is expected, from {} to {}", i64::MIN, i64::MAX))
}

pub async fn set(arguments: SetArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let SetArguments { key, value, expires, if_absent, write } = arguments;
    let (value, value_base64) = if value == "-" { from_stdin()? } else { (Some(value), None) };
    let expires_in_ms = expires.map(|time| time.as_millis() as u64);
    let mut operations = Vec::new();
    if if_absent {
        operations.push(BatchOperation::Require {
            key: key.clone(),
            present: Some(false),
            mod_revision: None,
            value: None,
        });
    }
    operations.push(BatchOperation::Put { key, value, value_base64, expires_in_ms });
    let written = send(operations, &write, target).await?;
    say(&written, &write, "set")
}

pub async fn get(arguments: GetArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let GetArguments { key, raw, read } = arguments;
    let cluster = target.open(Some(read.timeout))?.cluster;
    let Some(value) = cluster.get_key(&key, read.consistency()).await? else {
        return Err(CommandError::new(Exit::NotFound, format!("there is no key {key:?}")));
    };
    if raw {
        return print_bytes(&value.bytes);
    }
    if read.output == Format::Json {
        let found = crate::protocol::ledger::KeyValue {
            key: key.into(),
            value: value.bytes,
            create_revision: value.create_revision,
            mod_revision: value.mod_revision,
            version: value.version,
            expires: value.expires,
        };
        return print_line(&json_line(&Got { item: Item::from(found), commit: value.commit })?);
    }
    print_bytes(&[&value.bytes[..], b"\n"].concat())
}

#[derive(Serialize)]
struct Got {
    #[serde(flatten)]
    item: Item,
    commit: u64,
}

pub async fn delete(arguments: DeleteArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let DeleteArguments { key, write } = arguments;
    let written = send(vec![BatchOperation::Delete { key: key.clone() }], &write, target).await?;
    if written.results.first() == Some(&KvResult::Deleted(false)) {
        return Err(CommandError::new(Exit::NotFound, format!("there was no key {key:?}")));
    }
    say(&written, &write, "deleted")
}

pub async fn list(arguments: ListArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let ListArguments { prefix, read } = arguments;
    let cluster = target.open(Some(read.timeout))?.cluster;
    let mut items: Vec<Item> = Vec::new();
    loop {
        let after = items.last().map(|item| item.key.clone());
        let page = cluster.list_keys(&prefix, after.as_deref(), PAGE, read.consistency()).await?;
        items.extend(page.items);
        if !page.more {
            break;
        }
    }
    if read.output == Format::Json {
        return print_line(&json_line(&items)?);
    }
    let mut table = new_table();
    table.set_header(["KEY", "VALUE", "REVISION", "VERSION"]);
    for item in items {
        let value = value_for_people(&item);
        table.add_row([item.key, value, item.mod_revision.to_string(), item.version.to_string()]);
    }
    print_line(&table.to_string())
}

pub async fn cas(arguments: CasArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let CasArguments { key, expected, new, revision, write } = arguments;
    let (expected, new) = match new {
        Some(new) => (Some(expected), Some(new)),
        None => (None, Some(expected)),
    };
    if expected.is_some() == revision.is_some() {
        let text = "cas needs the expected value and the new one, or --revision and the new one";
        return Err(CommandError::new(Exit::Usage, text));
    }
    let operations = vec![
        BatchOperation::Require { key: key.clone(), present: None, mod_revision: revision, value: expected },
        BatchOperation::Put { key, value: new, value_base64: None, expires_in_ms: None },
    ];
    let written = send(operations, &write, target).await?;
    say(&written, &write, "swapped")
}

pub async fn incr(arguments: IncrArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let IncrArguments { key, by, floor, write } = arguments;
    let written = send(vec![BatchOperation::Add { key, by, floor }], &write, target).await?;
    match (write.output, written.results.first()) {
        (Format::Table, Some(KvResult::Sum(sum))) => print_line(&sum.to_string()),
        _ => print_values(&written, write.output),
    }
}

async fn send(
    operations: Vec<BatchOperation>,
    write: &WriteArguments,
    target: &TargetArguments,
) -> Result<Written, CommandError> {
    let mut target = target.open(Some(write.timeout))?;
    let id = write.request_id.unwrap_or_else(|| target.fresh_id());
    Ok(target.cluster.write(id, &Batch { operations }).await?)
}

fn say(written: &Written, write: &WriteArguments, what: &str) -> Result<(), CommandError> {
    if write.output == Format::Json {
        return print_line(&json_line(written)?);
    }
    eprintln!("{what} in revision {}, commit {}", written.revision, written.commit);
    Ok(())
}

/// Standard input as text, or in base64 if it is none.
fn from_stdin() -> Result<(Option<String>, Option<String>), CommandError> {
    let mut bytes = Vec::new();
    let limit = MOST_VALUE_BYTES as u64 + 1;
    std::io::stdin()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| CommandError::file("cannot read standard input", &error, "give the value as an argument"))?;
    if bytes.len() as u64 == limit {
        let text = format!("the value has more than {MOST_VALUE_BYTES} bytes, which no node takes");
        return Err(CommandError::new(Exit::Failed, text));
    }
    Ok(text_or_base64(&bytes))
}

/// At most 60 characters, on one line.
fn shortened(text: &str) -> String {
    let line: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    match line.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}
