//! Offers a responder may meet, and choices an initiator may not.

use super::super::proposal::{check_choice, choose, offer};
use super::*;
use crate::error::{PeerIncompatible, PeerMisbehaved};
use crate::wire::attribute::{Attribute, AttributeValue};
use crate::wire::registry::{Doi, LifeType, Phase1Attribute, ProtocolId, TransformId};
use crate::wire::sa::SecurityAssociation;

const OTHER: Phase1Transform = Phase1Transform { hash: HashAlgorithm::Sha2_512, ..FAST };

fn offered(transforms: &[Phase1Transform]) -> SecurityAssociation {
    offer(&policy(transforms)).unwrap()
}

fn attributes(sa: &mut SecurityAssociation) -> &mut Vec<Attribute> {
    &mut sa.proposals[0].transforms[0].attributes
}

fn place(sa: &mut SecurityAssociation, class: Phase1Attribute) -> usize {
    attributes(sa).iter().position(|attribute| attribute.class == class.0).unwrap()
}

fn is_refused<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::PeerIncompatible(PeerIncompatible::NoProposalChosen(_))))
}

/// One number keeps two configurations apart: it is named, with its transform.
#[test]
fn a_refusal_names_the_attribute_of_each_transform() {
    let refusal = |sa: &SecurityAssociation| {
        choose(&policy(&[FAST, OTHER]), sa).map(|_| ()).unwrap_err().to_string()
    };
    let changed = |class: Phase1Attribute, value: u16| {
        let mut sa = offered(&[FAST]);
        let index = place(&mut sa, class);
        attributes(&mut sa)[index].value = AttributeValue::Short(value);
        refusal(&sa)
    };
    let one = |reason: &str| {
        format!("no common ground with the peer: no proposal chosen: transform 1: {reason}")
    };
    for (class, value, reason) in [
        (
            Phase1Attribute::AUTHENTICATION_METHOD,
            3,
            "authentication method 3 (RSA signatures) is not accepted",
        ),
        (
            Phase1Attribute::AUTHENTICATION_METHOD,
            65_001,
            "authentication method 65001 is not accepted",
        ),
        (Phase1Attribute::GROUP_DESCRIPTION, 2, "group 2 (MODP 1024) is not accepted"),
        (Phase1Attribute::GROUP_DESCRIPTION, 31, "group 31 is not accepted"),
        (Phase1Attribute::HASH_ALGORITHM, 2, "hash algorithm 2 (SHA-1) is not accepted"),
        (Phase1Attribute::KEY_LENGTH, 128, "key length 128 is not accepted"),
        (Phase1Attribute::KEY_LENGTH, 512, "key length 512 is not accepted"),
        (
            Phase1Attribute::ENCRYPTION_ALGORITHM,
            3,
            "encryption algorithm 3 (Blowfish-CBC) is not accepted",
        ),
        (Phase1Attribute::LIFE_TYPE, 9, "life type 9 is not accepted"),
    ] {
        assert_eq!(changed(class, value), one(reason));
    }
    let triple = Phase1Transform { encryption: Phase1Encryption::TripleDesCbc, ..FAST };
    let reason = "encryption algorithm 5 (3DES-CBC) is not accepted";
    assert_eq!(refusal(&offered(&[triple])), one(reason));
    let mut missing = offered(&[FAST]);
    let index = place(&mut missing, Phase1Attribute::KEY_LENGTH);
    attributes(&mut missing).remove(index);
    assert_eq!(refusal(&missing), one("key length is missing"));
    let mut more = offered(&[FAST]);
    attributes(&mut more).push(Attribute::short(99_u16, 1_u16));
    assert_eq!(refusal(&more), one("attribute 99 is not understood"));
    let ours = [
        Phase1Transform { group: DhGroup::Modp2048, ..FAST },
        Phase1Transform { hash: HashAlgorithm::Sha2_512, ..FAST },
    ];
    let mixed = offered(&[
        Phase1Transform { group: DhGroup::Modp2048, hash: HashAlgorithm::Sha2_512, ..FAST },
        triple,
    ]);
    assert_eq!(
        choose(&policy(&ours), &mixed).map(|_| ()).unwrap_err().to_string(),
        one("its values are accepted one by one, but not in this combination; transform 2: ")
            + reason
    );
    // A line stays a line.
    let many = refusal(&offered(&[triple; 255]));
    assert!(many.len() < 700 && many.ends_with("; and 247 more transforms"), "{many}");
}

#[test]
fn the_first_acceptable_transform_of_the_offer_wins() {
    let (agreement, choice) = choose(&policy(&[FAST, OTHER]), &offered(&[OTHER, FAST])).unwrap();
    assert_eq!(agreement.transform, OTHER);
    assert_eq!(choice.proposals[0].transforms, offered(&[OTHER]).proposals[0].transforms);
    let (agreement, choice) = choose(&policy(&[FAST]), &offered(&[OTHER, FAST])).unwrap();
    assert_eq!(agreement.transform, FAST);
    assert_eq!(
        choice.proposals[0].transforms[0].number, 2,
        "the chosen transform keeps its number"
    );
    assert_eq!(check_choice(&policy(&[OTHER, FAST]), &choice).unwrap().transform, FAST);
    assert!(is_refused(&choose(&policy(&[FAST]), &offered(&[OTHER]))));
}

#[test]
fn a_weak_transform_is_chosen_only_if_the_policy_lists_it() {
    let weak = Phase1Transform { encryption: Phase1Encryption::DesCbc, ..FAST };
    assert!(weak.is_legacy());
    assert!(choose(&policy(&[FAST]), &offered(&[weak])).is_err());
    assert_eq!(choose(&policy(&[FAST, weak]), &offered(&[weak])).unwrap().0.transform, weak);
}

#[test]
fn the_responder_takes_any_life_time_and_applies_the_smaller() {
    let life = |seconds: Option<AttributeValue>| {
        let mut sa = offered(&[FAST]);
        let index = place(&mut sa, Phase1Attribute::LIFE_DURATION);
        match seconds {
            Some(value) => attributes(&mut sa)[index].value = value,
            None => {
                attributes(&mut sa).remove(index);
                attributes(&mut sa).remove(index - 1);
            }
        }
        choose(&policy(&[FAST]), &sa).map(|(agreement, choice)| {
            assert_eq!(
                choice.proposals[0].transforms, sa.proposals[0].transforms,
                "unchanged in the reply"
            );
            agreement.lifetime.as_secs()
        })
    };
    let long = |octets: &[u8]| Some(AttributeValue::Long(octets.to_vec()));
    assert_eq!(life(Some(AttributeValue::Short(600))), Ok(600));
    assert_eq!(life(long(&[0, 0, 2, 0x58])), Ok(600));
    assert_eq!(life(long(&[0, 1, 0x51, 0x80])), Ok(3600));
    assert_eq!(life(long(&[0xff; 8])), Ok(3600));
    assert_eq!(life(long(&[0xff; 9])), Ok(3600), "beyond 64 bits");
    assert_eq!(life(None), Ok(3600));
    assert!(life(Some(AttributeValue::Short(0))).is_err());
    assert!(life(long(&[])).is_err());

    // Seconds and kilobytes together.
    let mut sa = offered(&[FAST]);
    attributes(&mut sa).push(Attribute::short(Phase1Attribute::LIFE_TYPE, LifeType::KILOBYTES));
    attributes(&mut sa).push(Attribute::number(Phase1Attribute::LIFE_DURATION, 1000));
    assert_eq!(choose(&policy(&[FAST]), &sa).unwrap().0.lifetime.as_secs(), 3600);
}

/// Each way to spoil a transform, on its own.
#[test]
fn the_responder_passes_over_transforms_that_are_not_quite_right() {
    let spoil = |change: &dyn Fn(&mut SecurityAssociation)| {
        let mut sa = offered(&[FAST]);
        change(&mut sa);
        assert!(is_refused(&choose(&policy(&[FAST]), &sa)));
    };
    for class in [
        Phase1Attribute::ENCRYPTION_ALGORITHM,
        Phase1Attribute::HASH_ALGORITHM,
        Phase1Attribute::AUTHENTICATION_METHOD,
        Phase1Attribute::GROUP_DESCRIPTION,
        Phase1Attribute::KEY_LENGTH,
        Phase1Attribute::LIFE_TYPE,
    ] {
        spoil(&|sa| {
            let index = place(sa, class);
            attributes(sa).remove(index);
        });
        spoil(&|sa| {
            let index = place(sa, class);
            attributes(sa)[index].value = AttributeValue::Short(0x7fff);
        });
        // Basic classes must not have the long form.
        spoil(&|sa| {
            let index = place(sa, class);
            let octets = attributes(sa)[index].octets();
            attributes(sa)[index].value = AttributeValue::Long(octets);
        });
        if class != Phase1Attribute::LIFE_TYPE {
            spoil(&|sa| {
                let index = place(sa, class);
                let again = attributes(sa)[index].clone();
                attributes(sa).push(again);
            });
        }
    }
    spoil(&|sa| attributes(sa).push(Attribute::short(Phase1Attribute::PRF, 1_u16)));
    spoil(&|sa| attributes(sa).push(Attribute::long(Phase1Attribute::GROUP_PRIME, [7])));
    spoil(&|sa| attributes(sa).push(Attribute::short(99_u16, 1_u16)));
    spoil(&|sa| sa.proposals[0].transforms[0].id = TransformId(2));
    spoil(&|sa| sa.proposals[0].transforms.clear());
    spoil(&|sa| sa.proposals[0].protocol = ProtocolId::IPSEC_ESP);
    // A key length where the cipher has only one.
    let triple = Phase1Transform { encryption: Phase1Encryption::TripleDesCbc, ..FAST };
    let mut sa = offered(&[triple]);
    attributes(&mut sa).push(Attribute::short(Phase1Attribute::KEY_LENGTH, 192_u16));
    assert!(choose(&policy(&[triple]), &sa).is_err());
}

#[test]
fn phase_1_has_one_proposal_under_the_gdoi() {
    let mut sa = offered(&[FAST]);
    sa.proposals.push(sa.proposals[0].clone());
    assert!(matches!(
        choose(&policy(&[FAST]), &sa),
        Err(Error::PeerMisbehaved(PeerMisbehaved::DuplicatePayload { message: "message 1", .. }))
    ));
    sa.proposals.clear();
    assert!(matches!(
        choose(&policy(&[FAST]), &sa),
        Err(Error::PeerMisbehaved(PeerMisbehaved::MissingPayload { message: "message 1", .. }))
    ));
    let ipsec = SecurityAssociation { doi: Doi::IPSEC, situation: 1, ..offered(&[FAST]) };
    assert_eq!(choose(&policy(&[FAST]), &ipsec), Err(PeerIncompatible::Doi(Doi::IPSEC).into()));
    let situation = SecurityAssociation { situation: 1, ..offered(&[FAST]) };
    assert!(choose(&policy(&[FAST]), &situation).is_ok(), "situation 1 is seen in the field");
}

#[test]
fn the_initiator_refuses_any_changed_added_or_removed_attribute() {
    let ours = policy(&[OTHER, FAST]);
    let (_, choice) = choose(&policy(&[FAST]), &offer(&ours).unwrap()).unwrap();
    assert!(check_choice(&ours, &choice).is_ok());
    let refuse = |change: &dyn Fn(&mut SecurityAssociation)| {
        let mut sa = choice.clone();
        change(&mut sa);
        assert_eq!(check_choice(&ours, &sa), Err(PeerMisbehaved::ForeignTransform.into()));
    };
    for index in 0..choice.proposals[0].transforms[0].attributes.len() {
        refuse(&|sa| {
            attributes(sa).remove(index);
        });
        refuse(&|sa| {
            let again = attributes(sa)[index].clone();
            attributes(sa).push(again);
        });
        refuse(&|sa| {
            let value = attributes(sa)[index].as_number().unwrap();
            attributes(sa)[index].value = AttributeValue::Short(u16::try_from(value).unwrap() ^ 1);
        });
        if attributes(&mut choice.clone())[index].class != Phase1Attribute::LIFE_DURATION.0 {
            refuse(&|sa| {
                let octets = attributes(sa)[index].octets();
                attributes(sa)[index].value = AttributeValue::Long(octets);
            });
        }
    }
    refuse(&|sa| attributes(sa).push(Attribute::short(99_u16, 1_u16)));
    refuse(&|sa| sa.proposals[0].transforms.clear());
    refuse(&|sa| sa.proposals[0].transforms[0].id = TransformId(2));
    refuse(&|sa| {
        let again = sa.proposals[0].transforms[0].clone();
        sa.proposals[0].transforms.push(again);
    });
    // A transform that was not offered at all.
    refuse(&|sa| *sa = offered(&[Phase1Transform { hash: HashAlgorithm::Sha1, ..FAST }]));
    // The life duration is of a variable class: it may come back in the short form, and in another
    // length.
    for value in [AttributeValue::Short(3600), AttributeValue::Long(vec![0x0e, 0x10])] {
        let mut sa = choice.clone();
        let index = place(&mut sa, Phase1Attribute::LIFE_DURATION);
        attributes(&mut sa)[index].value = value;
        assert_eq!(check_choice(&ours, &sa).unwrap().transform, FAST);
    }
    // Attributes may come in another order.
    let mut reordered = choice.clone();
    attributes(&mut reordered).reverse();
    assert!(check_choice(&ours, &reordered).is_ok());
}

/// libreswan and others refuse an offer of the IPsec DOI without it (RFC 2407 §4.2).
#[test]
fn the_situation_is_the_one_of_the_domain_of_interpretation() {
    for (doi, situation) in [(Doi::IPSEC, 1), (Doi::GDOI, 0)] {
        let policy = Phase1Policy { doi, ..policy(&[FAST]) };
        let offer = offer(&policy).unwrap();
        let (_, choice) = choose(&policy, &offer).unwrap();
        assert_eq!((offer.situation, choice.situation), (situation, situation));
    }
}
