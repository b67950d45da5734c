//! `gdoictl`: shows what `gdoi-agent` and `gcks` are doing. It knows the control socket, and of the
//! agent's configuration file the syntax; what the options mean is the agent's business.

mod commands;
mod format;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use commands::{Command, edit};
use control::client::ClientError;

/// The exit status for what is no command, as clap has it.
const USAGE: u8 = 2;

/// Shows what the group member gdoi-agent and the key server gcks are doing.
#[derive(Debug, Parser)]
#[command(name = "gdoictl", version, max_term_width = 100)]
struct Arguments {
    /// The daemon's control socket
    /// [default: /run/gdoi-agent/control.sock or /run/gcks/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    #[command(flatten)]
    Command(Command),
    /// Print what a shell needs to complete commands
    #[command(hide = true)]
    Completion {
        /// The shell
        shell: Shell,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_understood(&error),
    };
    match run(&arguments) {
        Ok(text) => print(&text),
        Err(error) if arguments.json => {
            let _ = print(&json_error(&error));
            ExitCode::FAILURE
        }
        Err(error) => {
            // One line: the error and what to do about it.
            let _ = writeln!(
                std::io::stderr(),
                "gdoictl: {}",
                format::clean(&control::with_causes(error.as_ref()))
            );
            ExitCode::FAILURE
        }
    }
}

/// What was typed is no command, or asks for help. A program that wanted JSON gets its error so.
fn not_understood(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().skip(1).any(|argument| argument == "--json");
    if !wants_json || !error.use_stderr() {
        error.exit();
    }
    // The error and its hints, without the usage below them.
    let text = error.to_string();
    let said = text.split("\n\nUsage:").next().unwrap_or(&text);
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let message = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let error = serde_json::json!({ "error": { "code": "usage", "message": message } });
    let _ = print(&format!("{error}\n"));
    ExitCode::from(USAGE)
}

fn run(arguments: &Arguments) -> anyhow::Result<String> {
    let command = match &arguments.task {
        Task::Command(command) => command,
        Task::Completion { shell } => return completion(*shell),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket =
        arguments.socket.clone().unwrap_or_else(|| PathBuf::from(command.default_socket()));
    if let Some(change) = command.change() {
        return runtime.block_on(edit::run(&socket, change, arguments.json));
    }
    let response = runtime
        .block_on(control::client::ask(&socket, command.request()))
        .map_err(|error| command.explained(error))?;
    command.render(&response, arguments.json)
}

fn completion(shell: Shell) -> anyhow::Result<String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "gdoictl", &mut script);
    Ok(String::from_utf8(script)?)
}

/// The error for programs, with the code of the daemon's refusal if it is one.
fn json_error(error: &anyhow::Error) -> String {
    let code = match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused { source, .. }) => source.code.to_string(),
        _ => String::from("no-answer"),
    };
    let message = control::with_causes(error.as_ref());
    let error = serde_json::json!({ "error": { "code": code, "message": message } });
    format!("{error}\n")
}

/// A reader that has seen enough, such as `head`, is no failure.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "gdoictl: cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}
