//! Answers to the requests of gdoictl.

use control::{Completed, ErrorCode, Refusal, Request, Response};
use ike::BootTime;

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
