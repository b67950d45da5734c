//! Answers to the requests of gdoictl.

use control::{
    Completed, ConfigurationChange, ConfigurationChanges, ConfigurationConsequence, ErrorCode,
    Refusal, Request, Response,
};
use ike::BootTime;

use crate::config::change::Change;
use crate::member::Member;
use crate::membership::error::RegisterError;
use crate::show::snapshot::{Surroundings, snapshot};

pub fn answer(
    request: &Request,
    member: &Member,
    surroundings: &Surroundings,
    now: BootTime,
) -> Response {
    match request {
        Request::ShowMember => Response::Member(Box::new(snapshot(member, surroundings, now))),
        _ => Response::Refused(Refusal::not_served_here("gdoi-agent", request)),
    }
}

/// Registers a group again, as an operator commands.
pub fn register(member: &mut Member, group: &str, now: BootTime) -> Response {
    match member.register(group, now) {
        Ok(()) => Response::Done(Completed {
            message: format!("group {group} registers; keys in use stay until new ones come"),
        }),
        Err(error) => {
            let code = match &error {
                RegisterError::UnknownGroup { .. } => ErrorCode::UnknownGroup,
                RegisterError::NoLocalAddress { .. } => ErrorCode::NotPossible,
            };
            Response::Refused(Refusal::new(code, error.to_string()))
        }
    }
}

/// Registers a group again, or all, as an operator commands.
pub fn clear(member: &mut Member, group: Option<&str>, now: BootTime) -> Response {
    if let Some(group) = group {
        return register(member, group, now);
    }
    let names: Vec<String> =
        member.memberships().iter().map(|membership| membership.config().name.clone()).collect();
    let answers = names.iter().map(|name| register(member, name, now));
    let lines = answers.map(|answer| match answer {
        Response::Done(done) => Ok(done.message),
        Response::Refused(refusal) => Err(refusal),
        _ => Ok(String::new()),
    });
    let lines: Vec<Result<String, Refusal>> = lines.collect();
    match lines.iter().find_map(|line| line.as_ref().err()) {
        Some(refusal) if lines.iter().all(Result::is_err) => Response::Refused(refusal.clone()),
        _ => {
            let text = |line: &Result<String, Refusal>| match line {
                Ok(line) => line.clone(),
                Err(refusal) => refusal.message.clone(),
            };
            let lines: Vec<String> = lines.iter().map(text).collect();
            Response::Done(Completed { message: lines.join("; ") })
        }
    }
}

/// What a changed configuration does, or would do.
pub fn configuration(dry_run: bool, warnings: &[String], changes: &[Change]) -> Response {
    let (warnings, changes) = (warnings.to_vec(), listed(changes));
    Response::Configuration(Box::new(ConfigurationChanges { dry_run, warnings, changes }))
}

/// Changes as they travel.
pub fn listed(changes: &[Change]) -> Vec<ConfigurationChange> {
    let change = |change: &Change| ConfigurationChange {
        subject: change.subject.to_string(),
        option: change.option.to_string(),
        before: change.before.clone(),
        after: change.after.clone(),
        consequences: vec![ConfigurationConsequence {
            name: change.consequence.name().to_owned(),
            text: change.consequence.to_string(),
        }],
    };
    changes.iter().map(change).collect()
}

/// What is wrong with a configuration that was to be read again: the first defect.
pub fn defects(text: &str) -> Response {
    let first = text.lines().next().unwrap_or("the configuration cannot be read");
    // The last line of several counts them.
    let message = match text.lines().count() {
        0 | 1 => first.to_owned(),
        _ => format!("{first} (gdoi-agent --check tells of all defects)"),
    };
    Response::Refused(Refusal::new(ErrorCode::NotPossible, message))
}
