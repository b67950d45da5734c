//! `cargo xtask man`: the manual pages of the configuration files, made from the example files that
//! explain every option.

use crate::command;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;

#[derive(Args)]
pub(crate) struct Man {
    /// Compares instead of writing, and fails when a page is not what its example says.
    #[arg(long)]
    pub check: bool,
}

struct Page {
    example: &'static str,
    page: &'static str,
    title: &'static str,
    summary: &'static str,
    reader: &'static str,
}

const PAGES: &[Page] = &[
    Page {
        example: "agent/gdoi-agent.example.toml",
        page: "man/gdoi-agent.toml.5",
        title: "GDOI-AGENT.TOML",
        summary: "gdoi-agent.toml \\- configuration of a GDOI group member",
        reader: "gdoi-agent",
    },
    Page {
        example: "gcks/gcks.example.toml",
        page: "man/gcks.toml.5",
        title: "GCKS.TOML",
        summary: "gcks.toml \\- configuration of a GDOI key server",
        reader: "gcks",
    },
];

/// Writes the pages, or checks them; true when they are as they should be.
///
/// # Errors
/// An example cannot be read, or a page cannot be written.
pub(crate) fn run(man: &Man) -> Result<bool> {
    let mut stale = Vec::new();
    for page in PAGES {
        let example = command::workspace().join(page.example);
        let example = fs::read_to_string(&example)
            .with_context(|| format!("cannot read {}", example.display()))?;
        let path = command::workspace().join(page.page);
        let wanted = render(page, &example);
        if !man.check {
            fs::write(&path, wanted).with_context(|| format!("cannot write {}", path.display()))?;
        } else if fs::read_to_string(&path).ok().as_ref() != Some(&wanted) {
            stale.push(page.page);
        }
    }
    if !stale.is_empty() {
        bail!("{} not up to date: run `cargo xtask man` and commit the result", stale.join(", "));
    }
    Ok(true)
}

fn render(page: &Page, example: &str) -> String {
    let Page { title, summary, reader, .. } = page;
    let mut text = format!(
        ".\\\" Made from the example file by `cargo xtask man`.\n\
         .TH {title} 5 \"\" \"gdoi-agent {}\" \"File Formats\"\n\
         .SH NAME\n{summary}\n\
         .SH DESCRIPTION\nThe file is TOML. Unknown keys are refused, and all defects are reported at once with their line.\n\
         The example below shows every option; comments explain it, and options that are commented out show their default.\n\
         .SH OPTIONS\n.nf\n",
        env!("CARGO_PKG_VERSION"),
    );
    for line in example.lines() {
        text.push_str(&escaped(line));
        text.push('\n');
    }
    text.push_str(&format!(".fi\n.SH SEE ALSO\n.BR {reader} (8),\n.BR gdoictl (1)\n"));
    text
}

/// A line that roff prints as it is.
fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_made_from_the_examples() {
        run(&Man { check: true }).unwrap();
    }

    #[test]
    fn roff_prints_every_line_as_it_is() {
        assert_eq!(escaped(".a-b\\c"), "\\&.a\\-b\\ec");
        assert_eq!(escaped("key = 1"), "key = 1");
    }
}
