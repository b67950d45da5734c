//! Requests of the other server, and the parts in which long ones come.

use ike::BootTime;
use ike::peer::{PrivateBody, QuestionId};
use ike::wire::registry::ExchangeType;

use super::answer::name;
use super::{Link, LinkEvent, Question};
use crate::error::MessageError;
use crate::message::{
    Assembly, CLUSTER_INIT, CLUSTER_NOTICE, CLUSTER_UPDATE, Content, Message, NextPart, Part,
    PartReceived,
};

impl Link {
    pub(super) fn handle_request(
        &mut self,
        question: QuestionId,
        exchange: ExchangeType,
        body: &PrivateBody,
        now: BootTime,
    ) -> Result<(), MessageError> {
        let message = Message::decode(body.octets.expose())?;
        let is_init = exchange == CLUSTER_INIT;
        let place =
            MessageError::Place { message: message.content.name(), exchange: name(exchange) };
        match message.content {
            Content::Ask(_) if is_init => self.hand_up(question, exchange, message),
            Content::Prepare(_) | Content::Commit(_) if exchange == CLUSTER_UPDATE => {
                self.hand_up(question, exchange, message);
            }
            Content::Notice(_) if exchange == CLUSTER_NOTICE => {
                self.hand_up(question, exchange, message);
            }
            Content::NextPart(NextPart { serial, number }) if is_init => {
                let parts = self.answer.iter().flatten();
                let part =
                    parts.clone().find(|part| part.serial == serial && part.number == number);
                let Some(Part { count, octets, .. }) = part else {
                    let have = number;
                    return Err(MessageError::PartOrder { expected: 0, have });
                };
                let part = Part { serial, number, count: *count, octets: octets.duplicate() };
                if let Ok(octets) = Message::new(message.group, part).encode() {
                    let _ = self.reply(question, octets, now);
                }
            }
            Content::Part(part) if !is_init => {
                return self.handle_part((question, exchange), message.group, &part, now);
            }
            _ => return Err(place),
        }
        Ok(())
    }

    fn handle_part(
        &mut self,
        (question, exchange): (QuestionId, ExchangeType),
        group: u32,
        part: &Part,
        now: BootTime,
    ) -> Result<(), MessageError> {
        let is_copy = matches!(&self.incoming, Some((_, Some(last))) if *last == question);
        if !is_copy {
            match &mut self.incoming {
                Some((assembly, None)) if part.number != 0 => assembly.add(part)?,
                _ => self.incoming = Some((Assembly::new(part)?, None)),
            }
        }
        let Some((assembly, last)) = &mut self.incoming else { return Ok(()) };
        if assembly.missing().is_some() {
            let received = PartReceived { serial: part.serial, number: part.number };
            if let Ok(octets) = Message::new(group, received).encode() {
                let _ = self.reply(question, octets, now);
            }
            return Ok(());
        }
        // Kept, as it is told again until it is answered.
        *last = Some(question);
        let message = Message::decode(assembly.octets())?;
        let has_place = match message.content {
            Content::Prepare(_) | Content::Commit(_) => exchange == CLUSTER_UPDATE,
            Content::Notice(_) => exchange == CLUSTER_NOTICE,
            _ => false,
        };
        if !has_place {
            let (message, exchange) = (message.content.name(), name(exchange));
            return Err(MessageError::Place { message, exchange });
        }
        self.hand_up(question, exchange, message);
        Ok(())
    }

    fn hand_up(&mut self, question: QuestionId, exchange: ExchangeType, message: Message) {
        if self.open.insert(question, exchange).is_none() {
            self.statistics.requests_received += 1;
        }
        self.events.push_back(LinkEvent::Asked { question: Question(question), message });
    }
}
