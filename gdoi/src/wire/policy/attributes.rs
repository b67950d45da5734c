//! The attributes of one payload, looked up by class, with errors that name them.

use core::fmt;

use super::PolicyError;
use crate::wire::registry::{GapAttribute, KekAttribute};
use ike::wire::attribute::{Attribute, AttributeValue};
use ike::wire::registry::{PayloadKind, SaAttribute};

/// An attribute of a payload, shown by its registry name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeName {
    /// SAK, GAP or SAT.
    pub payload: PayloadKind,
    /// Attribute class within that payload.
    pub class: u16,
}

impl fmt::Display for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} attribute ", self.payload)?;
        match self.payload {
            PayloadKind::SA_KEK => KekAttribute(self.class).fmt(f),
            PayloadKind::GROUP_ASSOCIATED_POLICY => GapAttribute(self.class).fmt(f),
            _ => SaAttribute(self.class).fmt(f),
        }
    }
}

/// The attributes of one payload, with errors that name it.
pub(super) struct Attributes<'a> {
    pub(super) payload: PayloadKind,
    pub(super) list: &'a [Attribute],
}

impl Attributes<'_> {
    pub(super) fn name(&self, class: u16) -> AttributeName {
        AttributeName { payload: self.payload, class }
    }

    pub(super) fn value(&self, class: u16, value: u64) -> PolicyError {
        PolicyError::Value { name: self.name(class), value }
    }

    pub(super) fn understood(&self, known: &[u16]) -> Result<(), PolicyError> {
        let strange =
            |one: &&Attribute| !known.contains(&one.class) && !is_private(self.name(one.class));
        match self.list.iter().find(strange) {
            Some(attribute) => Err(PolicyError::UnknownAttribute(self.name(attribute.class))),
            None => Ok(()),
        }
    }

    pub(super) fn once(&self, class: u16) -> Result<Option<&Attribute>, PolicyError> {
        let mut all = self.list.iter().filter(|attribute| attribute.class == class);
        let first = all.next();
        match all.next() {
            Some(_) => Err(PolicyError::Repeated(self.name(class))),
            None => Ok(first),
        }
    }

    pub(super) fn basic(&self, class: u16) -> Result<Option<u16>, PolicyError> {
        let Some(attribute) = self.once(class)? else { return Ok(None) };
        attribute.as_basic().map(Some).ok_or(PolicyError::Form(self.name(class)))
    }

    pub(super) fn required(&self, class: u16) -> Result<u16, PolicyError> {
        self.basic(class)?.ok_or(PolicyError::Missing(self.name(class)))
    }

    pub(super) fn number(&self, class: u16) -> Result<Option<u64>, PolicyError> {
        let Some(attribute) = self.once(class)? else { return Ok(None) };
        attribute.as_number().map(Some).ok_or(PolicyError::Form(self.name(class)))
    }
}

/// Private use: 128 to 255 in SAK and GAP (RFC 6407 §5.3, §5.4), 32001 to 32767 in a SAT (RFC 2407
/// §6.7).
pub(super) fn is_private(name: AttributeName) -> bool {
    match name.payload {
        PayloadKind::SA_TEK => (32001..=32767).contains(&name.class),
        _ => (128..=255).contains(&name.class),
    }
}

/// A number of a variable class, in as many octets as it needs: four or eight.
pub(super) fn number(class: u16, value: u64) -> Attribute {
    match u32::try_from(value) {
        Ok(value) => Attribute::number(class, value),
        Err(_) => Attribute { class, value: AttributeValue::Long(value.to_be_bytes().to_vec()) },
    }
}
