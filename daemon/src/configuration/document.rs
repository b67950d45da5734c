//! The example file and the manual page of a configuration file, made from its declarations.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use thiserror::Error;

use super::option::{Description, Kind, Outline, Value};

const WIDTH: usize = 98;

/// What a configuration file's documents say beside its options.
#[derive(Clone, Copy, Debug)]
pub struct Document {
    /// Name of the file, for example `gcks.toml`.
    pub file: &'static str,
    /// The program that reads it.
    pub program: &'static str,
    /// What it configures, for the NAME section.
    pub subject: &'static str,
    pub about: &'static [&'static str],
}

/// Why a document is not as its declarations are.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// It cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what the declarations say.
    #[error("{} is out of date: run `cargo xtask man` and commit the result", .path.display())]
    Stale { path: PathBuf },
}

/// The program of a daemon's example `.._documents`: writes the documents below the workspace, or
/// compares them with `--check`.
pub fn run_documents(manifest: &str, documents: &[(&str, String)]) -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    match write_documents(&Path::new(manifest).join(".."), documents, check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes documents below `workspace`, or with `check` compares them.
///
/// # Errors
/// One cannot be written, or is not what its declarations say.
pub fn write_documents(
    workspace: &Path,
    documents: &[(&str, String)],
    check: bool,
) -> Result<(), DocumentError> {
    for (path, content) in documents {
        let path = workspace.join(path);
        if !check {
            fs::write(&path, content).map_err(|source| DocumentError::Write { path, source })?;
        } else if fs::read_to_string(&path).ok().as_ref() != Some(content) {
            return Err(DocumentError::Stale { path });
        }
    }
    Ok(())
}

/// The example file: every option with its explanation. What shows a default or an alternative is
/// a comment that begins with `#` and no space.
pub fn example(document: &Document, outline: &Outline) -> String {
    let mut text = String::new();
    let general = [
        format!("Configuration of {}, {}.", document.program, document.subject),
        format!(
            "This file is made by `cargo xtask man` and shows every option. An option behind a `#` \
             without a space is not set; it shows the default, or an example where the text says that \
             there is none. A table behind a `#` is an example of what only some need. `{} --config FILE --check` reports everything that is wrong, with its \
             line and the remedy, and starts nothing.",
            document.program
        ),
        "A duration is a whole number and a unit: \"30s\", \"10m\", \"8h\", \"1d\".".to_owned(),
    ];
    let about = document.about.iter().map(|paragraph| (*paragraph).to_owned());
    let general: Vec<String> = general.into_iter().chain(about).collect();
    comment(&mut text, &general);
    example_table(&mut text, "", outline, true);
    text
}

/// The manual page in section 5.
pub fn manual(document: &Document, outline: &Outline, version: &str) -> String {
    let Document { file, program, subject, about } = document;
    let mut text = format!(
        ".\\\" Made from the declarations of the options by `cargo xtask man`.\n\
         .TH {} 5 \"\" \"gdoi-agent {version}\" \"File Formats\"\n\
         .SH NAME\n{file} \\- configuration of {}\n\
         .SH DESCRIPTION\nThe file is TOML. Unknown keys are refused, and everything that is wrong is \
         reported at once with its line and the remedy; nothing is started then.\n.PP\n\
         A duration is a whole number and a unit: \"30s\", \"10m\", \"8h\", \"1d\".\n",
        file.to_uppercase(),
        roff(subject),
    );
    for paragraph in *about {
        text.push_str(&format!(".PP\n{}\n", roff(paragraph)));
    }
    text.push_str(".SH OPTIONS\n");
    manual_table(&mut text, "", outline);
    text.push_str(".SH EXAMPLE\n.nf\n");
    for line in example(document, outline).lines().filter(|line| is_set(line)) {
        text.push_str(&format!("{}\n", roff(line)));
    }
    text.push_str(&format!(".fi\n.SH SEE ALSO\n.BR {program} (8),\n.BR gdoictl (1)\n"));
    text
}

fn is_set(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}

/// Nothing is set below a table that is a comment itself.
fn example_table(text: &mut String, path: &str, outline: &Outline, in_force: bool) {
    // A line before a table's header; TOML has the values of a table before the tables in it.
    for (option, value) in outline.options.iter().filter_map(value_of) {
        text.push('\n');
        let mut paragraphs = option.text.clone();
        paragraphs.push(facts(value));
        comment(text, &paragraphs);
        let shown = value.example.as_ref().or(value.default.as_ref());
        let shown = shown.map_or("", String::as_str);
        let mark = if value.set_in_example && in_force { "" } else { "#" };
        text.push_str(&format!("{mark}{} = {shown}\n", option.key));
    }
    for option in &outline.options {
        let Some((inner, header, path)) = table_of(option, path) else { continue };
        text.push('\n');
        comment(text, &inner.text);
        let in_force = in_force && is_set_table(option) && !option.only_shown;
        let mark = if in_force { "" } else { "#" };
        text.push_str(&format!("{mark}{header}\n"));
        example_table(text, &path, inner, in_force);
        if !option.also.is_empty() {
            text.push_str(&format!("\n{}\n", option.also));
        }
    }
}

/// Whether the example has such a table: not if it is one of several and nothing in it is set.
fn is_set_table(option: &Description) -> bool {
    match &option.kind {
        Kind::Tables(outline) => {
            let sets =
                |one: &Description| matches!(&one.kind, Kind::Value(value) if value.set_in_example);
            outline.options.iter().any(|one| sets(one) || matches!(one.kind, Kind::Tables(_)))
        }
        _ => true,
    }
}

fn manual_table(text: &mut String, path: &str, outline: &Outline) {
    for (option, value) in outline.options.iter().filter_map(value_of) {
        text.push_str(&format!(".TP\n.B {}\n", roff(option.key)));
        for paragraph in &option.text {
            text.push_str(&format!("{}\n", roff(paragraph)));
        }
        text.push_str(&format!(".br\n{}\n", roff(&facts(value))));
    }
    for option in &outline.options {
        let Some((inner, header, path)) = table_of(option, path) else { continue };
        text.push_str(&format!(".SS {}\n", roff(&header)));
        for (index, paragraph) in inner.text.iter().enumerate() {
            let separator = if index == 0 { "" } else { ".PP\n" };
            text.push_str(&format!("{separator}{}\n", roff(paragraph)));
        }
        manual_table(text, &path, inner);
    }
}

fn value_of(option: &Description) -> Option<(&Description, &Value)> {
    match &option.kind {
        Kind::Value(value) => Some((option, value)),
        Kind::Table(_) | Kind::Tables(_) => None,
    }
}

fn table_of<'o>(option: &'o Description, path: &str) -> Option<(&'o Outline, String, String)> {
    let dot = if path.is_empty() { "" } else { "." };
    let path = format!("{path}{dot}{}", option.key);
    match &option.kind {
        Kind::Value(_) => None,
        Kind::Table(outline) => Some((outline, format!("[{path}]"), path)),
        Kind::Tables(outline) => Some((outline, format!("[[{path}]]"), path)),
    }
}

/// Type, range, default and time of effect in one line.
fn facts(value: &Value) -> String {
    let mut kind = if value.list {
        format!("list of {}", value.type_name)
    } else {
        value.type_name.to_owned()
    };
    if !value.names.is_empty() {
        kind = format!(
            "{}{}",
            if value.list { "list of " } else { "one of " },
            value.names.join(", ")
        );
    }
    let range = value.range.as_ref().map(|(first, last)| format!(", {first} to {last}"));
    let presence = match &value.default {
        Some(default) => format!("default {default}"),
        None if value.required => "required".to_owned(),
        None => "no default".to_owned(),
    };
    format!("({kind}{}; {presence}; {})", range.unwrap_or_default(), value.applies.text())
}

fn comment(text: &mut String, paragraphs: &[String]) {
    for paragraph in paragraphs {
        let mut line = String::from("#");
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                text.push_str(&line);
                text.push_str("\n#");
                line.clear();
            }
            line.push(' ');
            line.push_str(word);
        }
        text.push_str(&line);
        text.push('\n');
    }
}

/// A line that roff prints as it is.
fn roff(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Located, Section as _, list, one_of, required, table, value};
    use super::*;
    use crate::options;

    options! {
        /// Waiting.
        struct Wait {
            /// How long.
            time: Duration = value("time", Duration::from_secs(5))
                .within(Duration::from_secs(1)..=Duration::from_secs(60));
        }

        /// All of it.
        struct File {
            /// The name.
            ///
            /// In two paragraphs.
            name: Option<Located<String>> = required("name").set("\"a\"");
            /// Ports.
            ports: Vec<Located<u16>> = list("ports").set("[848]");
            /// Either.
            mode: u8 = one_of("mode", 1, &[("off", 0), ("on", 1)]);
            /// Before the rest.
            wait: Wait = table("wait");
        }
    }

    const DOCUMENT: Document =
        Document { file: "f.toml", program: "f", subject: "a test", about: &[] };

    #[test]
    fn an_example_shows_every_option_and_loads() {
        let text = example(&DOCUMENT, &File::outline());
        let shown = "\n\n# The name.\n# In two paragraphs.\n\
                     # (text; required; takes effect on reload)\nname = \"a\"\n\n# Ports.\n\
                     # (list of number; required; takes effect on reload)\nports = [848]\n\n# Either.\n\
                     # (one of \"off\", \"on\"; default \"on\"; takes effect on reload)\n#mode = \"on\"\n\n\
                     # Before the rest.\n# Waiting.\n[wait]\n\n# How long.\n\
                     # (duration, \"1s\" to \"1m\"; default \"5s\"; takes effect on reload)\n#time = \"5s\"\n";
        assert!(text.ends_with(shown), "{text}");
        let read = super::super::parse("f", &text, |mut root| {
            let file = File::read(&mut root);
            root.finish();
            Some(file)
        });
        let file = read.unwrap().value;
        assert_eq!((file.mode, file.wait.time.as_secs()), (1, 5));
        let values: Vec<_> = file.effective().into_iter().map(|one| (one.key, one.value)).collect();
        assert_eq!(
            values,
            [
                ("name", Some("\"a\"".to_owned())),
                ("ports", Some("[848]".to_owned())),
                ("mode", Some("\"on\"".to_owned())),
            ]
        );
        assert!(file.effective().iter().all(|one| one.is_default == (one.key == "mode")));
        assert!(file.wait.effective().iter().all(|one| one.is_default));
    }

    #[test]
    fn roff_prints_every_line_as_it_is() {
        assert_eq!(roff(".a-b\\c"), "\\&.a\\-b\\ec");
        assert_eq!(roff("key = 1"), "key = 1");
        let page = manual(&DOCUMENT, &File::outline(), "1");
        assert!(
            page.contains(".SS [wait]\nBefore the rest.\n.PP\nWaiting.\n.TP\n.B time\n"),
            "{page}"
        );
        assert!(page.ends_with(".nf\nname = \"a\"\nports = [848]\n[wait]\n.fi\n.SH SEE ALSO\n.BR f (8),\n.BR gdoictl (1)\n"), "{page}");
    }
}
