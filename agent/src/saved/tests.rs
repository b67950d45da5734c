#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use super::*;

/// What a run saves after so many pushes.
fn saved(number: u32) -> Saved {
    Saved::new([7; 16], vec![SavedGroup { id: 9, kek: Some(([1; 16], number)), ..SavedGroup::default() }])
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
fn the_last_line_counts_and_the_file_does_not_grow_for_ever() {
    let (_folder, mut file) = fresh();
    let mut shrunk = 0;
    for number in 0..2_000 {
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
fn a_line_that_was_cut_off_does_not_count() {
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
fn a_damaged_line_is_an_error_and_another_version_is_nothing() {
    let (_folder, mut file) = fresh();
    file.write(&saved(1)).unwrap();
    let text = fs::read_to_string(file.path()).unwrap();
    fs::write(file.path(), text.replace("groups", "group\u{fffd}")).unwrap();
    file.read().unwrap_err();
    for other in [r#"{"version":2,"boot":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"groups":[]}"#.to_owned(), {
        text.replace("\"version\":3", "\"version\":4")
    }] {
        fs::write(file.path(), other).unwrap();
        assert!(file.read().unwrap().is_none());
    }
}

#[test]
fn a_file_that_somebody_removed_comes_back() {
    let (_folder, mut file) = fresh();
    file.write(&saved(1)).unwrap();
    fs::remove_file(file.path()).unwrap();
    file.write(&saved(2)).unwrap();
    assert_eq!(file.read().unwrap(), Some(saved(2)));
    // In its folder's place there is nothing for a while.
    let folder = file.path().parent().unwrap().to_owned();
    fs::remove_dir_all(&folder).unwrap();
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
    let lines = fs::read_to_string(file.path()).unwrap().lines().count();
    assert_eq!((lines, file.read().unwrap()), (1, Some(senders)));
}
