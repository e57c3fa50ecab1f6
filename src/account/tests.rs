use super::*;

#[test]
fn root_is_known_and_nonsense_is_not() {
    let root = lookup("root").unwrap().unwrap();
    assert_eq!((root.uid, root.name.as_str()), (0, "root"));
    assert_eq!(lookup("no-such-account-here").unwrap(), None);
    assert_eq!(lookup("nul\0inside").unwrap(), None);
}
