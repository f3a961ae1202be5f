//! Data to stdout, as a table or as JSON.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::Value;

use super::exit::{CommandError, Exit};
use crate::protocol::user::Date;

/// The form of data on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Writes a line to stdout. Whoever closed the pipe wants no more: the program then ends without a word.
pub fn print_line(text: &str) -> Result<(), CommandError> {
    print_bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes to stdout.
pub fn print_bytes(bytes: &[u8]) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => CommandError::quiet(Exit::Failed),
        _ => CommandError::new(Exit::Failed, format!("cannot write to stdout: {error}")),
    })
}

/// One line of JSON.
pub fn json_line(value: &impl Serialize) -> Result<String, CommandError> {
    serde_json::to_string(value)
        .map_err(|error| CommandError::new(Exit::Failed, format!("the result is no JSON: {error}")))
}

/// Prints named values: one row each, or one JSON object.
pub fn print_values(values: &impl Serialize, format: Format) -> Result<(), CommandError> {
    if format == Format::Json {
        return print_line(&json_line(values)?);
    }
    let values = serde_json::to_value(values)
        .map_err(|error| CommandError::new(Exit::Failed, format!("the result is no table: {error}")))?;
    print_line(&table_of_values(&values).to_string())
}

fn table_of_values(values: &Value) -> Table {
    let mut table = new_table();
    if let Value::Object(fields) = values {
        for (name, value) in fields {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => "-".into(),
                Value::Array(items) if items.is_empty() => "-".into(),
                Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join("\n"),
                other => other.to_string(),
            };
            table.add_row([name.replace('_', " "), text]);
        }
    }
    table
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// An empty table; coloured cells only on a terminal without NO_COLOR.
pub fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if no_color || !io::stdout().is_terminal() {
        table.force_no_tty();
    }
    table
}

/// A size for people: `312 KiB`.
pub fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A date for people, in UTC: `2026-11-21 17:49:09`.
pub fn date(date: Date) -> String {
    let seconds = i64::try_from(date.0 / 1000).ok();
    match seconds.and_then(|seconds| ::time::OffsetDateTime::from_unix_timestamp(seconds).ok()) {
        Some(at) => {
            let (year, month, day) = at.to_calendar_date();
            let (hour, minute, second) = at.to_hms();
            format!("{year}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02}", u8::from(month))
        }
        None => "beyond the year 9999".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_rows() {
        let values = serde_json::json!({"label_bytes": 7, "users": ["a", "b"], "expiry": null});
        let table = table_of_values(&values).to_string();
        for part in ["label bytes", "7", "users", "b", "expiry", "-"] {
            assert!(table.contains(part), "{table}");
        }
    }

    #[test]
    fn dates_read_well() {
        assert_eq!(date(Date(1_700_000_000_123)), "2023-11-14 22:13:20");
        assert_eq!(date(Date(u64::MAX)), "beyond the year 9999");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!([12, 2048, 3_670_016].map(size), ["12 B", "2 KiB", "3.5 MiB"]);
    }
}
