//! What the tour tells: steps with words and pictures, on standard output while they happen and as a page at the end.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::demo::report::html::escape;

const STYLE: &str = include_str!("tour.css");
const PAGE: &str = "index.html";

/// The story so far.
#[derive(Debug)]
pub struct Story {
    directory: PathBuf,
    steps: Vec<Step>,
    pictures: usize,
}

#[derive(Debug)]
struct Step {
    title: String,
    words: Vec<String>,
    pictures: Vec<Shown>,
}

#[derive(Debug)]
struct Shown {
    file: String,
    caption: String,
}

impl Story {
    /// A story whose pictures go to that directory.
    pub fn new(directory: &Path) -> Story {
        Story { directory: directory.to_owned(), steps: Vec::new(), pictures: 0 }
    }

    /// Begins a step.
    pub fn step(&mut self, title: &str) {
        self.steps.push(Step { title: title.to_owned(), words: Vec::new(), pictures: Vec::new() });
        print(&format!("\n{}. {title}\n", self.steps.len()));
    }

    /// What happened, with its numbers.
    pub fn say(&mut self, text: impl Into<String>) {
        let text = text.into();
        print(&format!("   {text}\n"));
        if let Some(step) = self.steps.last_mut() {
            step.words.push(text);
        }
    }

    /// Writes a picture of this step, which gets the next number before its name.
    ///
    /// # Errors
    /// The file cannot be written; the text names it.
    pub fn picture(&mut self, name: &str, bytes: &[u8], caption: &str) -> Result<()> {
        self.pictures += 1;
        let file = format!("{}-{name}", self.pictures);
        let path = self.directory.join(&file);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        print(&format!("   picture {}: {caption}\n", path.display()));
        if let Some(step) = self.steps.last_mut() {
            step.pictures.push(Shown { file, caption: caption.to_owned() });
        }
        Ok(())
    }

    /// The step that is being told, for errors.
    pub fn place(&self) -> String {
        self.steps
            .last()
            .map_or_else(|| "at the start".to_owned(), |step| format!("step {} ({})", self.steps.len(), step.title))
    }

    /// Writes the page, and says where it is. A story that broke off says so on it.
    ///
    /// # Errors
    /// The file cannot be written; the text names it.
    pub fn finish(&self, broke_off: Option<&str>) -> Result<PathBuf> {
        let path = self.directory.join(PAGE);
        fs::write(&path, self.page(broke_off)).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn page(&self, broke_off: Option<&str>) -> String {
        let mut steps = String::new();
        for step in &self.steps {
            // A String cannot refuse a write.
            let _ = write!(steps, "<li>\n<h2>{}</h2>\n", escape(&step.title));
            for words in &step.words {
                let _ = writeln!(steps, "<p>{}</p>", escape(words));
            }
            for Shown { file, caption } in &step.pictures {
                let (file, caption) = (escape(file), escape(caption));
                let _ = writeln!(
                    steps,
                    "<figure><a href=\"{file}\"><img src=\"{file}\" alt=\"{caption}\"></a>\
                     <figcaption>{caption} <code>{file}</code></figcaption></figure>"
                );
            }
            steps.push_str("</li>\n");
        }
        let broke_off = broke_off
            .map(|why| format!("<p class=\"broke\">The tour broke off here: {}</p>\n", escape(why)))
            .unwrap_or_default();
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>Image Cloud: the tour</title>\n<style>\n{STYLE}</style>\n\
             </head>\n<body>\n<main>\n<h1>A photograph, three readers and a cluster that loses a node</h1>\n\
             <ol>\n{steps}</ol>\n{broke_off}</main>\n</body>\n</html>\n"
        )
    }
}

/// Standard output, flushed; one that is closed does not matter to the tour.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_steps_in_order_with_the_same_words_and_numbered_pictures() {
        let directory = tempfile::tempdir().unwrap();
        let mut story = Story::new(directory.path());
        story.step("Alice seals");
        story.say("bob gets 3 views & carol <1>");
        story.picture("photo.jpg", b"photo", "the original").unwrap();
        story.step("Bob opens");
        story.picture("bob.jpg", b"bob", "what bob sees").unwrap();
        assert_eq!(story.place(), "step 2 (Bob opens)");
        assert_eq!(fs::read(directory.path().join("2-bob.jpg")).unwrap(), b"bob");
        let path = story.finish(Some("nobody <answered>")).unwrap();
        let page = fs::read_to_string(path).unwrap();
        let places =
            ["Alice seals", "bob gets 3 views &amp; carol &lt;1&gt;", "src=\"1-photo.jpg\"", "src=\"2-bob.jpg\""]
                .map(|part| page.find(part).unwrap_or_else(|| panic!("{part} is missing in {page}")));
        assert!(places.is_sorted());
        assert!(page.contains("broke off here: nobody &lt;answered&gt;"));
        assert!(!page.contains("http") && !page.contains("<script"), "the page needs no network and no script");
    }
}
