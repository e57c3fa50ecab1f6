use super::{action, filter, notices};
use crate::fileop::{Change, ChangeKind};
use crate::open::Watch;

fn seen(
    recursive: bool,
    mask: u32,
    path: &str,
    is_dir: bool,
    kind: ChangeKind,
) -> Vec<(u32, String)> {
    let watch = Watch {
        filter: mask,
        recursive,
        ..Watch::default()
    };
    let change = Change {
        share: 0,
        path: path.into(),
        is_dir,
        kind,
    };
    notices(&watch, "dir", &change)
        .into_iter()
        .map(|notice| (notice.action, notice.name))
        .collect()
}

#[test]
fn only_what_the_filter_asks_for_and_only_below() {
    let mask = filter::FILE_NAME | filter::SIZE;
    let one = |a, n: &str| vec![(a, n.to_string())];
    assert_eq!(
        seen(false, mask, "dir/f", false, ChangeKind::Added),
        one(action::ADDED, "f")
    );
    assert_eq!(seen(false, mask, "dir/f", true, ChangeKind::Added), vec![]);
    assert_eq!(
        seen(false, mask, "dir/sub/f", false, ChangeKind::Added),
        vec![]
    );
    assert_eq!(
        seen(true, mask, "dir/sub/f", false, ChangeKind::Added),
        one(action::ADDED, "sub\\f")
    );
    assert_eq!(seen(true, mask, "dirt/f", false, ChangeKind::Added), vec![]);
    let size = ChangeKind::Modified(filter::SIZE);
    assert_eq!(
        seen(false, mask, "dir/f", false, size),
        one(action::MODIFIED, "f")
    );
    let security = ChangeKind::Modified(filter::SECURITY);
    assert_eq!(seen(false, mask, "dir/f", false, security), vec![]);
}

#[test]
fn a_rename_is_told_as_one_or_as_going_and_coming() {
    let mask = filter::FILE_NAME;
    let renamed = |to: &str| ChangeKind::RenamedTo(to.into());
    assert_eq!(
        seen(false, mask, "dir/a", false, renamed("dir/b")),
        [
            (action::RENAMED_OLD_NAME, "a".into()),
            (action::RENAMED_NEW_NAME, "b".into())
        ]
    );
    assert_eq!(
        seen(false, mask, "dir/a", false, renamed("x/b")),
        [(action::REMOVED, "a".into())]
    );
    assert_eq!(
        seen(false, mask, "x/a", false, renamed("dir/b")),
        [(action::ADDED, "b".into())]
    );
    assert_eq!(
        seen(true, mask, "dir/a", false, renamed("dir/s/b")),
        [
            (action::REMOVED, "a".into()),
            (action::ADDED, "s\\b".into())
        ]
    );
}

/// MS-FSCC 2.7.1: streams have actions of their own.
#[test]
fn changes_of_streams_are_distinguished_from_those_of_files() {
    let one = |a, n: &str| vec![(a, n.to_string())];
    let streams = filter::STREAM_NAME | filter::STREAM_WRITE;
    let path = "dir/f:s";
    for (kind, action) in [
        (ChangeKind::Added, action::ADDED_STREAM),
        (ChangeKind::Removed, action::REMOVED_STREAM),
        (
            ChangeKind::Modified(filter::STREAM_WRITE),
            action::MODIFIED_STREAM,
        ),
    ] {
        let named = seen(false, streams, path, false, kind.clone());
        assert_eq!(named, one(action, "f:s"));
        let names = filter::FILE_NAME | filter::LAST_WRITE;
        assert_eq!(seen(false, names, path, false, kind), vec![]);
    }
    let renamed = ChangeKind::RenamedTo("dir/f:t".into());
    assert_eq!(
        seen(false, streams, path, false, renamed),
        [
            (action::REMOVED_STREAM, "f:s".into()),
            (action::ADDED_STREAM, "f:t".into())
        ]
    );
}
