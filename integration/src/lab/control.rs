//! What a lab asks of its daemons through their control sockets, and the traffic it sends from its
//! nodes.

use super::Lab;
use crate::lab::nodes::{Node, Process};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};

impl Lab {
    /// Runs `gdoictl` against the daemon on a node and returns what it printed.
    ///
    /// # Errors
    /// When it does not answer or refuses; its own message is included.
    pub fn gdoictl(&self, node: Node, arguments: &[&str]) -> Result<String> {
        let socket = self.file(&format!("{}.sock", node.0));
        let mut command = Command::new(self.binaries.join("gdoictl"));
        command.arg("--socket").arg(socket).args(arguments).stdin(Stdio::null());
        let changes_the_file =
            |words: &[&str]| matches!(words, ["gateway" | "tunnel", "create" | "set" | "delete"]);
        if arguments.windows(2).any(changes_the_file) {
            command.arg("--config").arg(self.file(&format!("{}.toml", node.0)));
        }
        let output = command.output()?;
        if !output.status.success() {
            bail!("gdoictl on {}: {}", node.0, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What `gdoictl --json show` answers, from the object with this key on.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn show(&self, node: Node, what: &[&str], key: &str) -> Result<Value> {
        let text = self.gdoictl(node, &[&["--json", "show"], what].concat())?;
        let answer: Value = serde_json::from_str(&text).context("gdoictl printed no JSON")?;
        find(&answer, key)
            .cloned()
            .with_context(|| format!("no {key} in what gdoictl printed: {answer}"))
    }

    /// What `gdoictl show` prints for people.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn show_text(&self, node: Node, what: &[&str]) -> Result<String> {
        self.gdoictl(node, &[&["show"], what].concat())
    }

    /// Runs `lab traffic ...` on a node and waits for its line.
    ///
    /// # Errors
    /// The program ends with another status than 0.
    pub fn traffic(&self, node: Node, line: &str) -> Result<String> {
        let program = self.binaries.join("lab").to_string_lossy().into_owned();
        let arguments: Vec<&str> =
            std::iter::once("traffic").chain(line.split_whitespace()).collect();
        node.run(&program, &arguments)
    }

    /// Starts `lab traffic ...` on a node.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_traffic(&self, node: Node, line: &str) -> Result<Process> {
        let program = self.binaries.join("lab").to_string_lossy().into_owned();
        let arguments: Vec<&str> =
            std::iter::once("traffic").chain(line.split_whitespace()).collect();
        let mut command = node.command(&program, &arguments);
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.file("traffic.log"))?;
        Process::start(command.stdout(Stdio::piped()).stderr(log))
    }

    /// Starts a sink on a node and returns when it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_sink(&self, node: Node, line: &str) -> Result<Process> {
        let mut sink = self.start_traffic(node, line)?;
        sink.first_line()?;
        Ok(sink)
    }
}

fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => {
            fields.get(key).or_else(|| fields.values().find_map(|field| find(field, key)))
        }
        Value::Array(items) => items.iter().find_map(|item| find(item, key)),
        _ => None,
    }
}
