//! `client view`: open a sealed picture as a user who may.

use std::path::{Path, PathBuf};

use super::exit::{CommandError, Exit};
use super::files::{Draft, Existing, Force, PictureArgument, Sink};
use super::identity::{Session, UserArguments};
use super::output::size;
use super::sealed::SealedFile;
use super::target::TargetArguments;
use crate::client::ClientError;
use crate::client::keys::{Identity, Journalled, LeaseStore};
use crate::id::RequestId;
use crate::identity::Released;
use crate::protocol::problem::ProblemCode;
use crate::protocol::rights::{ImageAction, Right};
use crate::protocol::sharing::RightsAnswer;
use crate::protocol::user::Date;
use crate::time::unix_millis;

const DEFAULT_STEM: &str = "viewable_image";

/// What an original may be, and how such files are called.
const EXTENSIONS: [(&str, &str); 3] = [("image/jpeg", "jpg"), ("image/png", "png"), ("image/webp", "webp")];

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client view --input sealed.png --user bob                 spends a view, writes viewable_image.jpg (or .png, .webp)
  client view --input sealed.png --user bob -o cat.jpg
  client view --input sealed.png --user bob --offline       spends a leased view (see `client lease`), asks nobody

Only the header of the file is sent. Without a right to it the Access Denied picture is saved as a .png; exit code 5.
A view whose answer was lost is not spent again: call once more. `client view sealed.png` is the same as with --input.")]
pub struct Arguments {
    #[command(flatten)]
    pub picture: PictureArgument,
    /// Where the original goes; `-` for stdout [default: viewable_image with the original's extension]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub force: Force,
    /// Spend a leased view, without asking any node
    #[arg(long)]
    pub offline: bool,
    #[command(flatten)]
    pub user: UserArguments,
}

pub async fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let file = SealedFile::read(arguments.picture.path(), target)?;
    let output = Output { named: arguments.output.clone(), existing: arguments.force.into() };
    // Before a view is spent it is certain that the picture can be written.
    output.check()?;
    let draft = output.draft()?;
    if arguments.offline {
        return offline(arguments, &file, &output, draft);
    }
    let Session { mut target, identity, .. } = arguments.user.open(target, None).await?;
    if file.header.public.cluster_id != identity.signer().cluster {
        let text = format!("the image belongs to cluster {}, not to this one", file.header.public.cluster_id);
        return Err(denied(&file, &output, text));
    }
    let entry = Journalled::take(&identity, file.image, ImageAction::View, target.fresh_id())?;
    let request = file.request(ImageAction::View);
    match target.cluster.act(identity.signer(), entry.id, &request).await {
        Ok(answer) => {
            let released = released(&identity, &file, entry.id, &answer)?;
            // Should the file be damaged, the entry stays: a good copy of it opens without another view.
            let original = open(&file, &released)?;
            let written = output.write(draft, &original, &released.media_type).map_err(|error| {
                let text = error.text.unwrap_or_default();
                CommandError::new(error.exit, format!("{text}; the view is not lost: call once more"))
            })?;
            entry.close()?;
            eprintln!(
                "opened {} as {} ({}): {}",
                arguments.picture.path().display(),
                written.name(),
                size(original.len()),
                left(answer.right)
            );
            Ok(())
        }
        // The entry stays, whatever the refusal: no refused request is remembered, so the same one is decided anew next time; and it
        // may have been done before, by a node that did not get to say so.
        Err(error) => Err(refused(error, &file, &output)),
    }
}

fn offline(
    arguments: &Arguments,
    file: &SealedFile,
    output: &Output,
    draft: Option<Draft>,
) -> Result<(), CommandError> {
    let user = &arguments.user;
    let identity = user.keys.load(file.header.public.cluster_id, user.user.as_deref())?;
    // The picture has its name before its view is spent: on no disk, full or without links, is a view paid for nothing.
    let mut written = None;
    let use_it = |released: &Released| {
        let original = open(file, released)?;
        written = Some(output.write(draft, &original, &released.media_type)?);
        Ok::<_, CommandError>(original.len())
    };
    let spent = LeaseStore::of(&identity)?.spend(file.image, Date(unix_millis()), use_it);
    let place = written.as_ref().map_or(String::new(), Sink::name);
    let (bytes, left) = spent.inspect_err(|_| written.iter().for_each(Sink::take_back))?;
    eprintln!("opened {} as {place} ({}): {left} leased views left", arguments.picture.path().display(), size(bytes));
    Ok(())
}

/// What a view or a lease has released.
pub fn released(
    identity: &Identity,
    file: &SealedFile,
    id: RequestId,
    answer: &RightsAnswer,
) -> Result<Released, CommandError> {
    let released = file.released(identity.signer(), identity.secrets(), id, answer);
    released.ok_or_else(|| {
        let text = "the answer holds no key for this user and this image; nothing is lost: call once more";
        CommandError::new(Exit::Failed, text)
    })
}

fn open(file: &SealedFile, released: &Released) -> Result<Vec<u8>, CommandError> {
    Ok(file.open(released)?)
}

fn refused(error: ClientError, file: &SealedFile, output: &Output) -> CommandError {
    let is_denial = matches!(error.refusal(), Some(ProblemCode::Denied | ProblemCode::WrongCluster));
    if is_denial { denied(file, output, error.to_string()) } else { error.into() }
}

/// Saves what everybody may see, which is the sealed picture as it is.
fn denied(file: &SealedFile, output: &Output, why: String) -> CommandError {
    let text = match output.write_cover(&file.bytes) {
        Ok(Some(path)) => format!("{why}; saved the Access Denied picture as {path}"),
        Ok(None) => why,
        Err(error) => format!("{why}; {}", error.text.unwrap_or_default()),
    };
    CommandError::new(Exit::Denied, text)
}

/// "2 of 3 views left".
pub fn left(right: Option<Right>) -> String {
    match right {
        Some(Right { left, granted, .. }) => format!("{left} of {granted} views left"),
        None => "the owner's views are not counted".to_owned(),
    }
}

/// Where the result goes: its extension is known only when the picture is open.
struct Output {
    named: Option<PathBuf>,
    existing: Existing,
}

impl Output {
    fn path(&self, extension: &str) -> PathBuf {
        self.named.clone().unwrap_or_else(|| Path::new(DEFAULT_STEM).with_extension(extension))
    }

    /// Nothing that is there may be in the way, whatever the original turns out to be.
    fn check(&self) -> Result<(), CommandError> {
        EXTENSIONS.iter().try_for_each(|(_, extension)| Sink::check(&self.path(extension), self.existing).map(|_| ()))
    }

    /// A temporary file in its place; none for stdout.
    fn draft(&self) -> Result<Option<Draft>, CommandError> {
        match Sink::check(&self.path("part"), self.existing)? {
            Sink::Stdout => Ok(None),
            Sink::New(path) | Sink::Replace(path) => Draft::beside(&path).map(Some),
        }
    }

    fn write(&self, draft: Option<Draft>, bytes: &[u8], media_type: &str) -> Result<Sink, CommandError> {
        let known = EXTENSIONS.iter().find(|(known, _)| *known == media_type);
        let sink = Sink::check(&self.path(known.map_or("bin", |(_, extension)| extension)), self.existing)?;
        match draft {
            Some(draft) => draft.publish(bytes, &sink)?,
            None => sink.write(bytes)?,
        }
        Ok(sink)
    }

    /// Writes the cover as a `.png`; not to stdout, where it would be taken for the picture.
    fn write_cover(&self, bytes: &[u8]) -> Result<Option<String>, CommandError> {
        if self.named.as_deref() == Some(Path::new("-")) {
            return Ok(None);
        }
        let path = self.path("png").with_extension("png");
        if std::fs::read(&path).is_ok_and(|there| there == bytes) {
            // It is there, and may be the sealed picture itself.
            return Ok(None);
        }
        let sink = Sink::check(&path, self.existing)?;
        sink.write(bytes)?;
        Ok(Some(sink.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_known_to_be_free_before_a_view_is_spent_and_a_cover_is_a_png() {
        let directory = tempfile::tempdir().unwrap();
        let output = |name: &str, existing| Output { named: Some(directory.path().join(name)), existing };
        std::fs::write(directory.path().join("cat.jpg"), "mine").unwrap();
        assert!(output("cat.jpg", Existing::Refuse).check().is_err());
        assert!(output("cat.jpg", Existing::Replace).check().is_ok());
        assert!(output("no/such/cat.jpg", Existing::Refuse).draft().is_err());

        let fresh = output("dog.jpg", Existing::Refuse);
        let draft = fresh.draft().unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "the draft is there");
        fresh.write(draft, b"dog", "image/jpeg").unwrap();
        fresh.write_cover(b"cover").unwrap();
        assert_eq!(std::fs::read(directory.path().join("dog.jpg")).unwrap(), b"dog");
        assert_eq!(std::fs::read(directory.path().join("dog.png")).unwrap(), b"cover");
        drop(output("cow.jpg", Existing::Refuse).draft().unwrap());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3, "a draft that came to nothing is gone");
    }

    #[test]
    fn views_are_told_as_people_count_them() {
        let right = Right { granted: 3, left: 2, spent: 1, ..Right::default() };
        assert_eq!(left(Some(right)), "2 of 3 views left");
    }
}
