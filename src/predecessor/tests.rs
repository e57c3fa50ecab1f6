use super::*;

#[test]
fn only_held_resources_are_tried_again() {
    let mut answers = [Err("held"), Err("held"), Ok(7)].into_iter();
    let is_held = |error: &&str| *error == "held";
    assert_eq!(outwait(is_held, || answers.next().unwrap()), Ok(7));
    let mut attempts = 0;
    let refused = outwait(is_held, || {
        attempts += 1;
        Err::<(), _>("wrong")
    });
    assert_eq!((refused, attempts), (Err("wrong"), 1));
}
