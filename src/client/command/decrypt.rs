//! `client decrypt`: open a locked picture on this machine, for whoever may read the cluster's key.

use std::path::{Path, PathBuf};

use super::exit::CommandError;
use super::output::size;
use super::request::OutputArguments;
use super::target::TargetArguments;
use super::{files, local};

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client decrypt encrypted_lsb_image.png --cluster-key data/cluster/cluster.key
  client decrypt encrypted_lsb_image.png --cluster-key data/cluster/cluster.key -o cat.jpg

Without -o the result is decrypted_NAME in this directory, with the name that the original had.")]
pub struct Arguments {
    /// The locked picture; `-` for stdin
    #[arg(value_name = "FILE")]
    pub input: PathBuf,
    /// The cluster's key; old ones beside it open what they locked, retired ones do not
    #[arg(long, value_name = "PATH")]
    pub cluster_key: PathBuf,
    #[command(flatten)]
    pub output: OutputArguments,
}

pub fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let keys = local::cluster_keys(&arguments.cluster_key)?;
    let limits = target.limits();
    let file = files::read(&arguments.input, limits.file_bytes())?;
    let opened = local::unseal(&file, &keys, &limits)?;
    let sink = arguments.output.sink(Path::new(&default_name(&opened.name)))?;
    sink.write(&opened.original)?;
    eprintln!("opened {}: {} ({})", arguments.input.display(), sink.name(), size(opened.original.len()));
    Ok(())
}

/// The original's own name, which whoever sealed it chose freely: only its last part counts, and only ordinary characters.
fn default_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last.chars().filter(|character| !character.is_control()).take(100).collect();
    if plain.trim_matches('.').is_empty() { "decrypted_image".into() } else { format!("decrypted_{plain}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_name_cannot_lead_out_of_the_directory() {
        for (sealed, expected) in [
            ("cat.jpg", "decrypted_cat.jpg"),
            ("../../etc/passwd", "decrypted_passwd"),
            ("C:\\cat.jpg", "decrypted_cat.jpg"),
            ("/", "decrypted_image"),
            ("..", "decrypted_image"),
            ("", "decrypted_image"),
            ("a\u{1b}[2Jb\n.png", "decrypted_a[2Jb.png"),
        ] {
            assert_eq!(default_name(sealed), expected);
        }
    }
}
