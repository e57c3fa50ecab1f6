use super::*;

fn opens(opens: usize) -> Held {
    Held {
        opens,
        ..Held::default()
    }
}

#[test]
fn the_last_quarter_is_everyones() {
    let allows = |own, all| opens(own).allows(opens(1), opens(all), opens(60), opens(80), 5);
    assert!(allows(59, 59), "within the shared part");
    assert!(!allows(60, 60), "the connection's own limit");
    assert!(
        !allows(30, 60),
        "the shared part is full, and it has more than its part"
    );
    assert!(allows(3, 60) && !allows(4, 60), "its part is 80 / 4 / 5");
    assert!(!allows(0, 80), "all of it is taken");
}
