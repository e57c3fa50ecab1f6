use super::*;

//= rfc9293 MUST-18
//= rfc6298 2.1, 2.2, 2.3a, 2.3b, 2.3c, 2.5, 4a, 5.5
#[test]
fn follows_samples_and_backs_off() {
    let mut rtt = Rtt::default();
    assert_eq!(rtt.rto(), RTO_INITIAL);
    rtt.sample(Duration::from_millis(400));
    assert_eq!(rtt.rto(), Duration::from_millis(1200));
    // RTTVAR first, by the old SRTT: 250 ms, and 450 ms then.
    rtt.sample(Duration::from_millis(800));
    assert_eq!(rtt.rto(), Duration::from_millis(1450));
    assert_eq!(rtt.least(), Some(Duration::from_millis(400)));
    for _ in 0..200 {
        rtt.sample(Duration::from_millis(400));
    }
    assert_eq!(
        rtt.rto().as_millis(),
        401,
        "no variance, but a clock of 1 ms"
    );
    for _ in 0..100 {
        rtt.sample(Duration::from_millis(10));
    }
    assert_eq!(rtt.rto(), RTO_MIN);
    rtt.back_off();
    rtt.back_off();
    assert_eq!(rtt.rto(), RTO_MIN * 4);
    (0..40).for_each(|_| rtt.back_off());
    assert_eq!(rtt.rto(), RTO_MAX);
    rtt.progress();
    assert_eq!(rtt.rto(), RTO_MIN);
}
