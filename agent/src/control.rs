//! Answers to the requests of gdoictl.

use control::{Completed, ErrorCode, Refusal, Request, Response};
use gdoi::BootTime;

use crate::member::Member;
use crate::show::snapshot::{Surroundings, snapshot};

/// Answers a request.
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

/// Registers a group again, as an operator wishes.
pub fn register(member: &mut Member, group: &str, now: BootTime) -> Response {
    if member.memberships().iter().all(|membership| membership.config().name != group) {
        return Response::Refused(Refusal::new(
            ErrorCode::UnknownGroup,
            format!("there is no group {group}"),
        ));
    }
    match member.register(group, now) {
        Ok(()) => Response::Done(Completed {
            message: format!("group {group} registers; keys in use stay until new ones come"),
        }),
        Err(message) => Response::Refused(Refusal::new(ErrorCode::NotPossible, message)),
    }
}
