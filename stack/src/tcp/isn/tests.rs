use super::*;

fn path(port: u16) -> Path {
    Path {
        local: SocketAddr::from(([10, 0, 0, 1], 445)),
        remote: SocketAddr::from(([10, 0, 0, 2], port)),
        remote_mac: [0; 6],
    }
}

//= rfc9293 MUST-8, MUST-9, SHLD-1
//= rfc6528 3a, 3b, 3c
//= rfc7323 7.1a
#[test]
fn never_the_same_and_keyed() {
    let mut isn = Isn::new([7; 32]);
    let now = Duration::from_secs(5);
    let first = isn.draw(&path(1), now);
    assert_ne!(first, isn.draw(&path(1), now));
    assert_ne!(Isn::new([8; 32]).draw(&path(1), now), first);
    assert_ne!(Isn::new([7; 32]).draw(&path(2), now), first);
    assert_eq!(Isn::new([7; 32]).draw(&path(1), now), first);
    let later = Isn::new([7; 32]).draw(&path(1), now + Duration::from_micros(400));
    assert_eq!(later - first, 100);
    assert_ne!(
        isn.timestamp_offset(&path(1)),
        isn.timestamp_offset(&path(2))
    );
}
