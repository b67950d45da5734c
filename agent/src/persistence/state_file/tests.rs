#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use super::*;

/// What a run saves after so many pushes.
fn saved(number: u32) -> Saved {
    Saved::new(
        [7; 16],
        vec![SavedGroup { id: 9, kek: Some(([1; 16], number)), ..SavedGroup::default() }],
    )
}

/// Every kind of value that there is.
fn everything() -> Saved {
    let sa_tek = |source, destination, key_length| SavedSaTek {
        spi: 0x1300,
        ip_protocol: 17,
        source,
        source_port: 0,
        destination,
        destination_port: 65_535,
        protocol: 1,
        transform: 12,
        key_length,
        authentication: key_length.map(|_| 5),
        mode: 1,
        address_preservation: 4,
        direction: 3,
        lifetime_seconds: u64::MAX,
        lifetime_kilobytes: key_length.map(|_| 0),
    };
    let (first, last) = ("10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    let generation = SavedGeneration {
        sa_teks: vec![sa_tek(
            SavedRange::Any,
            SavedRange::Subnet("10.0.0.0/8".parse().unwrap()),
            Some(256),
        )],
        received: 1,
        send_from: 2,
        receive_until: Some(3),
        expiry: vec![(0x1300, u64::MAX)],
        active_from: vec![(0x1300, 4)],
        deleted: BTreeSet::from([0x1300, 0x1301]),
        pushed: true,
    };
    let group = SavedGroup {
        id: 9,
        generations: vec![generation],
        sa_teks: vec![sa_tek(SavedRange::Range(first, last), SavedRange::Address(last), None)],
        iv_reuse_hazard: BTreeSet::new(),
        kek: Some(([1; 16], u32::MAX)),
    };
    let exempt = BTreeSet::from([String::from("lan")]);
    Saved::new([7; 16], vec![group, SavedGroup::default()]).with_exempt([8; 16], exempt)
}

#[test]
fn a_setting_of_somebody_else_is_known_for_its_boot() {
    let saved = everything();
    assert_eq!(saved.exempt([8; 16]), BTreeSet::from([String::from("lan")]));
    assert_eq!((saved.exempt([7; 16]), saved.exempt(Boot::default())), Default::default());
}

fn fresh() -> (tempfile::TempDir, StateFile) {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::new(folder.path().join("state"));
    assert!(file.read().unwrap().is_none());
    (folder, file)
}

#[test]
fn what_was_written_last_is_read() {
    let (_folder, mut file) = fresh();
    for number in 0..100 {
        file.write(&saved(number)).unwrap();
        assert_eq!(StateFile::new(file.path().to_owned()).read().unwrap(), Some(saved(number)));
    }
}

#[test]
fn every_damaged_or_missing_octet_is_noticed() {
    let (_folder, mut file) = fresh();
    file.write(&everything()).unwrap();
    let whole = fs::read(file.path()).unwrap();
    for place in 0..whole.len() {
        fs::write(file.path(), whole.get(..place).unwrap()).unwrap();
        assert_eq!(file.read().unwrap_err().kind(), io::ErrorKind::InvalidData, "{place} octets");
        for flip in [0x01, 0x80, 0xFF] {
            let mut damaged = whole.clone();
            damaged.iter_mut().skip(place).take(1).for_each(|octet| *octet ^= flip);
            fs::write(file.path(), damaged).unwrap();
            match file.read() {
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
                // Another program wrote it.
                Ok(found) => assert_eq!((found, place), (None, 0), "octet {place}"),
            }
        }
    }
}

#[test]
fn another_version_is_nothing_and_an_empty_file_an_error() {
    let (_folder, mut file) = fresh();
    file.write(&Saved { version: VERSION + 1, ..saved(1) }).unwrap();
    assert!(file.read().unwrap().is_none());
    fs::write(file.path(), "").unwrap();
    assert_eq!(file.read().unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn everything_comes_back() {
    let octets = everything().to_octets().unwrap();
    assert_eq!(Saved::from_octets(&octets).unwrap(), Some(everything()));
    for end in 0..octets.len() {
        Saved::from_octets(octets.get(..end).unwrap()).unwrap_err();
    }
    Saved::from_octets(&[octets.as_slice(), &[0]].concat()).unwrap_err();
}

#[test]
fn a_file_that_was_removed_comes_back() {
    let (_folder, mut file) = fresh();
    file.write(&saved(1)).unwrap();
    fs::remove_file(file.path()).unwrap();
    file.write(&saved(1)).unwrap();
    assert_eq!(file.read().unwrap(), Some(saved(1)));
    // What could not be written does not count as written.
    let folder = file.path().parent().unwrap().to_owned();
    fs::remove_dir_all(&folder).unwrap();
    file.write(&saved(2)).unwrap_err();
    fs::create_dir(&folder).unwrap();
    file.write(&saved(2)).unwrap();
    assert_eq!(file.read().unwrap(), Some(saved(2)));
}

#[test]
fn counter_mode_senders_are_written() {
    let (_folder, mut file) = fresh();
    file.write(&saved(1)).unwrap();
    let mut senders = saved(2);
    senders.groups.iter_mut().for_each(|group| group.iv_reuse_hazard = BTreeSet::from([0x1300]));
    file.write(&senders).unwrap();
    assert_eq!(file.read().unwrap(), Some(senders));
}
