//! Answers to our requests, and the parts in which long ones come.

use ike::BootTime;
use ike::error::Error;
use ike::peer::PrivateBody;
use ike::wire::registry::ExchangeType;

use super::{Link, LinkEvent, Outgoing};
use crate::error::MessageError;
use crate::message::{
    Assembly, CLUSTER_INIT, CLUSTER_NOTICE, CLUSTER_UPDATE, Content, Message, NextPart,
};

/// What an answer leads to.
pub(super) enum Answer {
    Whole(Message),
    /// The next part, or the request for it.
    More(Message),
}

/// As sentences name it.
pub(super) fn name(exchange: ExchangeType) -> &'static str {
    match exchange {
        CLUSTER_INIT => "cluster-init",
        CLUSTER_NOTICE => "cluster-notice",
        _ => "cluster-update",
    }
}

impl Link {
    pub(super) fn handle_answer(
        &mut self,
        mut outgoing: Outgoing,
        body: &PrivateBody,
        now: BootTime,
    ) -> Result<(), MessageError> {
        let ticket = outgoing.ticket;
        let result = self.read_answer(&mut outgoing, body);
        let next = match result {
            Ok(Answer::Whole(message)) => {
                self.statistics.answers_received += 1;
                self.events.push_back(LinkEvent::Answered { ticket, message });
                return Ok(());
            }
            Ok(Answer::More(message)) => message,
            Err(error) => {
                self.lose(ticket);
                return Err(error);
            }
        };
        let sent = next
            .encode()
            .map_err(Error::from)
            .and_then(|octets| self.ask(octets, outgoing, self.config.period, now));
        if !matches!(sent, Ok(true)) {
            self.lose(ticket);
        }
        Ok(())
    }

    fn read_answer(
        &mut self,
        outgoing: &mut Outgoing,
        body: &PrivateBody,
    ) -> Result<Answer, MessageError> {
        let message = Message::decode(body.octets.expose())?;
        let exchange = name(outgoing.exchange);
        let place = MessageError::Place { message: message.content.name(), exchange };
        match (outgoing.exchange, message.content) {
            (CLUSTER_UPDATE | CLUSTER_NOTICE, Content::PartReceived(_)) => {
                match outgoing.parts.pop_front() {
                    Some(part) => Ok(Answer::More(Message::new(message.group, part))),
                    None => Err(place),
                }
            }
            (CLUSTER_INIT, Content::Part(part)) => {
                let assembly = match &mut outgoing.answer {
                    Some(assembly) => {
                        assembly.add(&part)?;
                        assembly
                    }
                    None => outgoing.answer.insert(Assembly::new(&part)?),
                };
                let serial = assembly.serial();
                match assembly.missing() {
                    Some(number) => {
                        let next = NextPart { serial, number };
                        Ok(Answer::More(Message::new(message.group, next)))
                    }
                    None => {
                        let whole = Message::decode(assembly.octets())?;
                        match whole.content {
                            Content::Told(_) => Ok(Answer::Whole(whole)),
                            _ => Err(place),
                        }
                    }
                }
            }
            (CLUSTER_INIT, content @ (Content::Told(_) | Content::Refused(_)))
            | (CLUSTER_UPDATE, content @ (Content::Acknowledged(_) | Content::Refused(_)))
            | (CLUSTER_NOTICE, content @ (Content::Noted(_) | Content::Refused(_))) => {
                Ok(Answer::Whole(Message { group: message.group, content }))
            }
            _ => Err(place),
        }
    }
}
