//! Which secret signs, whatever is refused, accepted or replaced.

use super::*;

fn pair(current: &str, previous: Option<&str>) -> Pair {
    Pair {
        current: Some(current.into()),
        previous: previous.map(Into::into),
    }
}

fn ring(sections: &[(&str, &str, Option<&str>)]) -> Keyring {
    Keyring::new(sections_of(sections))
}

fn sections_of(sections: &[(&str, &str, Option<&str>)]) -> Vec<(String, Pair)> {
    let one = |(section, current, previous): &(&str, &str, Option<&str>)| {
        ((*section).to_owned(), pair(current, *previous))
    };
    sections.iter().map(one).collect()
}

/// Which of these secrets signs for the page, and its id.
fn signs(ring: &Keyring, page: &str, secret: &str) -> SecretId {
    let signed = ring.sign(page, b"body").expect("a secret");
    assert_eq!(signed.signature, sign_with(secret.as_bytes(), b"body"));
    signed.secret
}

#[test]
fn a_page_signs_with_its_own_secret_else_with_that_of_default() {
    let ring = ring(&[("default", "d", None), ("1", "own", None)]);
    signs(&ring, "1", "own");
    signs(&ring, "2", "d");
    assert!(ring.has_own("1") && !ring.has_own("2"));
    let unread = ("1".to_owned(), Pair::default());
    ring.replace(
        [unread]
            .into_iter()
            .chain(sections_of(&[("default", "d", None)])),
    );
    assert!(!ring.has("1") && ring.sign("1", b"").is_none() && ring.has("2"));
}

#[test]
fn a_refused_secret_gives_way_once_however_many_were_in_flight() {
    let ring = ring(&[("1", "new", Some("old"))]);
    let new = signs(&ring, "1", "new");
    assert_eq!(ring.refused("1", new), Refusal::Switched(Slot::Previous));
    for _ in 0..100 {
        assert_eq!(ring.refused("1", new), Refusal::Late);
    }
    let old = signs(&ring, "1", "old");
    ring.accepted("1", old);
    assert_eq!(signs(&ring, "1", "old"), old);
    // The receiver has changed over now.
    assert_eq!(ring.refused("1", old), Refusal::Switched(Slot::Current));
    assert_eq!(ring.refused("1", old), Refusal::Late);
    assert_eq!(signs(&ring, "1", "new"), new);
}

#[test]
fn two_secrets_refused_one_after_the_other_are_told_apart_from_a_rotation() {
    let ring = ring(&[("1", "new", Some("old"))]);
    let new = signs(&ring, "1", "new");
    ring.refused("1", new);
    let old = signs(&ring, "1", "old");
    ring.accepted("1", new);
    assert_eq!(ring.refused("1", old), Refusal::Both(Slot::Current));
    assert_eq!(ring.refused("1", new), Refusal::Both(Slot::Previous));
    ring.accepted("1", old);
    assert_eq!(ring.refused("1", old), Refusal::Switched(Slot::Current));
    ring.accepted("1", new);
    assert_eq!(ring.refused("1", new), Refusal::Switched(Slot::Previous));
}

#[test]
fn without_another_secret_there_is_nothing_to_switch_to() {
    for previous in [None, Some("s")] {
        let ring = ring(&[("1", "s", previous)]);
        let only = signs(&ring, "1", "s");
        assert_eq!(ring.refused("1", only), Refusal::Sole);
        signs(&ring, "1", "s");
    }
}

#[test]
fn pages_that_share_default_switch_each_for_itself() {
    let ring = ring(&[("default", "new", Some("old"))]);
    let new = signs(&ring, "1", "new");
    assert_eq!(ring.refused("1", new), Refusal::Switched(Slot::Previous));
    signs(&ring, "1", "old");
    signs(&ring, "2", "new");
    assert_eq!(ring.refused("2", new), Refusal::Switched(Slot::Previous));
}

#[test]
fn a_changed_secret_is_current_at_once_and_the_refusal_of_its_forerunner_is_late() {
    let ring = ring(&[("1", "a", Some("z")), ("2", "b", None)]);
    let a = signs(&ring, "1", "a");
    ring.refused("1", a);
    signs(&ring, "1", "z");
    assert!(ring.set("1", Slot::Current, "c".into()));
    let c = signs(&ring, "1", "c");
    assert_ne!(a, c);
    assert_eq!(ring.refused("1", a), Refusal::Late);
    assert!(!ring.set("1", Slot::Current, "c".into()), "the same again");
    assert!(ring.holds("1", Slot::Current, &"c".into()));
    assert_eq!(ring.take_changed(), ["1"]);
    assert!(ring.take_changed().is_empty());
}

#[test]
fn a_reload_names_what_changed_and_leaves_the_rest_in_use() {
    let ring = ring(&[
        ("default", "d", None),
        ("1", "a", Some("z")),
        ("2", "b", None),
        ("3", "c", None),
    ]);
    let a = signs(&ring, "1", "a");
    ring.refused("1", a);
    let changed = ring.replace(sections_of(&[
        ("default", "d", None),
        ("1", "a", Some("z")),
        ("2", "B", Some("b")),
        ("4", "e", None),
        ("5", "d", Some("d")),
    ]));
    // 5 has the secret it had from default; 3 falls back to that.
    assert_eq!(changed, ["2", "3", "4"]);
    assert_eq!(ring.take_changed(), changed);
    signs(&ring, "1", "z");
    signs(&ring, "2", "B");
    signs(&ring, "3", "d");
    signs(&ring, "4", "e");
}

#[test]
fn the_two_files_of_a_rotation_may_change_one_after_the_other() {
    let ring = ring(&[("1", "a", Some("z"))]);
    ring.set("1", Slot::Previous, "a".into());
    let a = signs(&ring, "1", "a");
    assert_eq!(ring.refused("1", a), Refusal::Sole);
    ring.set("1", Slot::Current, "b".into());
    let b = signs(&ring, "1", "b");
    assert_eq!(ring.refused("1", a), Refusal::Late);
    assert_eq!(ring.refused("1", b), Refusal::Switched(Slot::Previous));
    assert_eq!(signs(&ring, "1", "a"), a);
}
