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
    let line = |source, destination, key_length| SavedLine {
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
        lines: vec![line(
            SavedRange::Any,
            SavedRange::Subnet("10.0.0.0/8".parse().unwrap()),
            Some(256),
        )],
        received: 1,
        send_from: 2,
        receive_until: Some(3),
        expiry: vec![(0x1300, u64::MAX)],
        deleted: BTreeSet::from([0x1300, 0x1301]),
        pushed: true,
    };
    let group = SavedGroup {
        id: 9,
        generations: vec![generation],
        lines: vec![line(SavedRange::Range(first, last), SavedRange::Address(last), None)],
        spent: BTreeSet::new(),
        kek: Some(([1; 16], u32::MAX)),
    };
    Saved::new([7; 16], vec![group, SavedGroup::default()])
}

fn length(file: &StateFile) -> usize {
    fs::metadata(file.path()).unwrap().len().try_into().unwrap()
}

fn fresh() -> (tempfile::TempDir, StateFile) {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::new(folder.path().join("state"));
    assert!(file.read().unwrap().is_none());
    (folder, file)
}

#[test]
fn the_last_record_counts_and_the_file_does_not_grow_for_ever() {
    let (_folder, mut file) = fresh();
    let mut shrunk = 0;
    for number in 0..4_000 {
        let before = if number == 0 { 0 } else { length(&file) };
        file.write(&saved(number)).unwrap();
        assert_eq!(StateFile::new(file.path().to_owned()).read().unwrap(), Some(saved(number)));
        assert!(length(&file) <= LONGEST);
        shrunk += usize::from(length(&file) < before);
        let written = length(&file);
        file.write(&saved(number)).unwrap();
        assert_eq!(length(&file), written, "the same again is not written");
    }
    assert!(shrunk > 1);
}

#[test]
fn a_record_that_was_cut_off_does_not_count() {
    let (_folder, mut file) = fresh();
    file.write(&saved(1)).unwrap();
    let first = length(&file);
    file.write(&saved(2)).unwrap();
    let whole = fs::read(file.path()).unwrap();
    for end in first..whole.len() {
        fs::write(file.path(), whole.get(..end).unwrap()).unwrap();
        assert_eq!(file.read().unwrap(), Some(saved(1)), "{end} octets");
    }
    // The next run begins a file of its own.
    let mut next = StateFile::new(file.path().to_owned());
    next.write(&saved(3)).unwrap();
    assert_eq!(next.read().unwrap(), Some(saved(3)));
}

#[test]
fn every_damaged_octet_is_an_error_or_a_record_that_was_cut_off() {
    let (_folder, mut file) = fresh();
    file.write(&everything()).unwrap();
    let first = length(&file);
    file.write(&saved(2)).unwrap();
    let whole = fs::read(file.path()).unwrap();
    for place in 0..whole.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut damaged = whole.clone();
            damaged.iter_mut().skip(place).take(1).for_each(|octet| *octet ^= flip);
            fs::write(file.path(), damaged).unwrap();
            match file.read() {
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
                // Checkpoint before the last are not looked into.
                Ok(Some(found)) if place < first => assert_eq!(found, saved(2)),
                // Its length says that more was to come.
                Ok(Some(found)) => assert!(place < first + LENGTH && found == everything()),
                // Another program wrote it.
                Ok(None) => assert_eq!(place, first + LENGTH, "octet {place}"),
            }
        }
    }
}

#[test]
fn another_version_is_nothing_and_an_empty_file_an_error() {
    let (_folder, mut file) = fresh();
    file.write(&Saved { version: VERSION + 1, ..saved(1) }).unwrap();
    assert!(file.read().unwrap().is_none());
    for foreign in ["", "{", "{\"version\":3,\"boot\":[],\"groups\":[]}\n"] {
        fs::write(file.path(), foreign).unwrap();
        assert_eq!(file.read().unwrap_err().to_string(), "it holds no whole record");
    }
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
fn a_file_that_somebody_removed_comes_back() {
    let (_folder, mut file) = fresh();
    file.write(&saved(1)).unwrap();
    file.look_after().unwrap();
    let first = length(&file);
    fs::remove_file(file.path()).unwrap();
    file.write(&saved(2)).unwrap();
    file.look_after().unwrap();
    assert_eq!((file.read().unwrap(), length(&file)), (Some(saved(2)), first));
    file.write(&saved(3)).unwrap();
    assert_eq!((file.read().unwrap(), length(&file)), (Some(saved(3)), 2 * first));
    // In its folder's place there is nothing for a while. What could not be written does not count
    // as written.
    let folder = file.path().parent().unwrap().to_owned();
    fs::remove_dir_all(&folder).unwrap();
    file.look_after().unwrap_err();
    file.write(&saved(3)).unwrap_err();
    fs::create_dir(&folder).unwrap();
    file.write(&saved(3)).unwrap();
    assert_eq!(file.read().unwrap(), Some(saved(3)));
}

#[test]
fn counter_mode_senders_are_on_the_disk_in_a_file_of_their_own() {
    let (_folder, mut file) = fresh();
    file.write(&saved(1)).unwrap();
    let mut senders = saved(2);
    senders.groups.iter_mut().for_each(|group| group.spent = BTreeSet::from([0x1300]));
    file.write(&senders).unwrap();
    let checkpoint = whole_records(&fs::read(file.path()).unwrap()).count();
    assert_eq!((checkpoint, file.read().unwrap()), (1, Some(senders)));
}
