use super::*;

#[test]
fn one_byte_makes_the_difference() {
    let directory = std::env::temp_dir();
    let path = |name: &str| directory.join(format!("demo-{name}-{}", std::process::id()));
    let (left, right) = (path("left"), path("right"));
    let mut content = vec![7; 2 * PIECE + 5];
    std::fs::write(&left, &content).unwrap();
    std::fs::write(&right, &content).unwrap();
    assert!(are_equal(&left, &right).unwrap());
    content[2 * PIECE] = 8;
    std::fs::write(&right, &content).unwrap();
    assert!(!are_equal(&left, &right).unwrap());
    std::fs::write(&right, &content[..PIECE]).unwrap();
    assert!(!are_equal(&left, &right).unwrap());
    std::fs::remove_file(left).unwrap();
    std::fs::remove_file(right).unwrap();
}
