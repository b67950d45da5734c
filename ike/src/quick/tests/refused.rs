//! Offers that cannot be followed: the attribute is named.

use super::{policy, with_pfs};
use crate::crypto::DhGroup;
use crate::error::{Error, PeerMisbehaved};
use crate::quick::proposal::{self, Agreement};
use crate::quick::{ChildPolicy, EspAlgorithms, EspEncryption, EspIntegrity, Mode};
use crate::wire::Codec;
use crate::wire::attribute::Attribute;
use crate::wire::registry::{Doi, LifeType, ProtocolId, SaAttribute};
use crate::wire::sa::SecurityAssociation;

const SPI: u32 = 0x1234_5678;

fn offer(policy: &ChildPolicy, spi: u32) -> Result<SecurityAssociation, Error> {
    proposal::offer(policy, policy.mode.number(), spi)
}

fn choose(
    policy: &ChildPolicy,
    offer: &SecurityAssociation,
    spi: u32,
) -> Result<(Agreement, SecurityAssociation), Error> {
    proposal::choose(policy, policy.mode.number(), offer, spi)
}

fn check_choice(policy: &ChildPolicy, choice: &SecurityAssociation) -> Result<Agreement, Error> {
    proposal::check_choice(policy, policy.mode.number(), choice)
}

fn refusal(offered: &ChildPolicy, accepted: &ChildPolicy) -> String {
    refused(&offer(offered, SPI).unwrap(), accepted)
}

fn refused(offered: &SecurityAssociation, accepted: &ChildPolicy) -> String {
    choose(accepted, offered, SPI).unwrap_err().to_string()
}

fn cbc(encryption: EspEncryption, integrity: EspIntegrity) -> ChildPolicy {
    ChildPolicy { algorithms: vec![EspAlgorithms::separate(encryption, integrity)], ..policy() }
}

#[test]
fn the_attribute_at_fault_is_named() {
    let ours = cbc(EspEncryption::Aes128Cbc, EspIntegrity::HmacSha1);
    for (offered, text) in [
        (cbc(EspEncryption::Aes256Cbc, EspIntegrity::HmacSha1), "key length 256 is not accepted"),
        (
            cbc(EspEncryption::Aes128Cbc, EspIntegrity::HmacSha2_256),
            "integrity algorithm 5 is not accepted",
        ),
        (cbc(EspEncryption::TripleDesCbc, EspIntegrity::HmacSha1), "encryption 3 is not accepted"),
        (
            ChildPolicy { pfs: Some(DhGroup::Modp1024), ..ours.clone() },
            "perfect forward secrecy with group 2, where none is configured",
        ),
        (
            ChildPolicy { mode: Mode::Transport, ..ours.clone() },
            "encapsulation mode 2 (transport mode), not tunnel mode",
        ),
    ] {
        let refusal = refusal(&offered, &ours);
        assert!(refusal.ends_with(&format!("proposal 1, transform 1: {text}")), "{refusal}");
    }
    let refusal = refusal(&policy(), &with_pfs(DhGroup::Ecp256));
    assert!(
        refusal.contains("transform 2: no perfect forward secrecy, where group 19 is configured"),
        "{refusal}"
    );
}

#[test]
fn strange_offers_are_refused_whole() {
    let change = |change: fn(&mut SecurityAssociation)| {
        let mut sa = offer(&policy(), SPI).unwrap();
        sa.proposals[0].transforms.truncate(1);
        change(&mut sa);
        refused(&sa, &policy())
    };
    let attributes = |sa: &mut SecurityAssociation, more: Vec<Attribute>| {
        sa.proposals[0].transforms[0].attributes.extend(more);
    };
    assert!(change(|sa| sa.doi = Doi::GDOI).contains("domain of interpretation GDOI"));
    assert!(change(|sa| sa.proposals.clear()).contains("the offer has no transform"));
    assert!(change(|sa| sa.proposals[0].protocol = ProtocolId::IPSEC_AH).contains("not ESP alone"));
    assert!(
        change(|sa| sa.proposals[0].spi = vec![0, 0, 0, 255]).contains("an SPI that ESP cannot")
    );
    assert!(change(|sa| sa.proposals[0].spi = vec![1; 8]).contains("an SPI that ESP cannot have"));
    // Two proposals of one number are one of both protocols (RFC 2408 §4.2).
    assert!(
        change(|sa| sa.proposals.extend(sa.proposals.clone())).contains("not ESP alone"),
        "AND of two proposals"
    );
    let mut sa = offer(&policy(), SPI).unwrap();
    sa.proposals[0].transforms.truncate(1);
    for (more, text) in [
        (
            vec![Attribute::short(SaAttribute::KEY_LENGTH, 256_u16)],
            "key length occurs more than once",
        ),
        (vec![Attribute::short(SaAttribute(300), 1_u16)], "attribute 300 is not understood"),
        (vec![Attribute::number(SaAttribute::LIFE_DURATION, 9)], "life type is missing"),
        (
            vec![
                Attribute::short(SaAttribute::LIFE_TYPE, LifeType::SECONDS),
                Attribute::number(SaAttribute::LIFE_DURATION, 9),
            ],
            "life duration occurs more than once",
        ),
        (
            vec![Attribute::short(SaAttribute::EXTENDED_SEQUENCE_NUMBER, 2_u16)],
            "extended sequence number 2",
        ),
        (vec![Attribute::long(SaAttribute::GROUP_DESCRIPTION, [0, 14])], "group has a form"),
    ] {
        let mut sa = sa.clone();
        attributes(&mut sa, more);
        let refusal = refused(&sa, &policy());
        assert!(refusal.contains(text), "{refusal}");
    }
}

/// A thousand transforms cost one line.
#[test]
fn a_long_offer_gives_a_short_line() {
    let many = cbc(EspEncryption::Aes128Cbc, EspIntegrity::HmacSha1);
    let mut sa = offer(&many, SPI).unwrap();
    let one = sa.proposals[0].transforms[0].clone();
    sa.proposals[0].transforms = vec![one; 255];
    let octets = sa.to_octets().unwrap();
    let refusal = refused(&SecurityAssociation::decode(&octets).unwrap(), &policy());
    assert!(refusal.ends_with("; and 247 more transforms"), "{refusal}");
}

#[test]
fn a_choice_is_one_transform_of_the_offer() {
    let choice = |change: fn(&mut SecurityAssociation)| {
        let (_, mut choice) = choose(&policy(), &offer(&policy(), SPI).unwrap(), SPI).unwrap();
        change(&mut choice);
        check_choice(&policy(), &choice)
    };
    let foreign = Err(Error::from(PeerMisbehaved::ForeignTransform));
    assert!(choice(|_| {}).is_ok());
    // The responder's own lifetime is the smaller one.
    let shorter = choice(|choice| {
        for attribute in &mut choice.proposals[0].transforms[0].attributes {
            if attribute.class == SaAttribute::LIFE_DURATION.0 {
                *attribute = Attribute::number(SaAttribute::LIFE_DURATION, 600);
            }
        }
    });
    assert_eq!(shorter.unwrap().lifetime.as_secs(), 600);
    for change in [
        (|choice| choice.proposals[0].transforms.clear()) as fn(&mut SecurityAssociation),
        |choice| choice.proposals.clear(),
        |choice| choice.proposals.extend(choice.proposals.clone()),
        |choice| {
            let twice = choice.proposals[0].transforms[0].clone();
            choice.proposals[0].transforms.push(twice);
        },
        |choice| choice.proposals[0].spi = vec![0; 4],
        |choice| {
            let attributes = &mut choice.proposals[0].transforms[0].attributes;
            attributes.push(Attribute::short(SaAttribute::GROUP_DESCRIPTION, 14_u16));
        },
    ] {
        assert_eq!(choice(change), foreign);
    }
}

#[test]
fn a_policy_that_cannot_be_offered_is_named() {
    let half = EspAlgorithms { encryption: EspEncryption::Aes128Cbc, integrity: None };
    for algorithms in [vec![], vec![half]] {
        assert!(offer(&ChildPolicy { algorithms, ..policy() }, SPI).is_err());
    }
    let many = vec![policy().algorithms[0]; 128];
    let many = ChildPolicy { algorithms: many, extended_sequence_numbers: true, ..policy() };
    assert!(offer(&many, SPI).is_err());
}
