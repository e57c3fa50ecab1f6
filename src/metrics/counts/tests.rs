use super::*;

#[test]
fn each_count_has_a_place_of_its_own() {
    let mut counts = Counts::default();
    counts.pass(Point::Four);
    counts.commit(3);
    counts.receive(60);
    counts.send(1500);
    for why in Eviction::ALL {
        counts.evict(why);
    }
    for command in 0..30 {
        let answered = Answered {
            command,
            is_error: command == 8,
            request_bytes: 100,
            reply_bytes: 1000,
        };
        counts.answer(&answered);
        counts.take(command, Duration::from_millis(3));
    }
    assert_eq!(counts.points(), [0, 0, 0, 1]);
    assert_eq!(counts.commits(), 3);
    assert_eq!((counts.received(), counts.sent()), ((1, 60), (1, 1500)));
    assert!(Eviction::ALL.iter().all(|why| counts.evictions(*why) == 1));
    assert_eq!(counts.answers(8), [1, 1, 100, 1000]);
    assert_eq!(counts.answers(0), [1, 0, 100, 1000]);
    assert_eq!(
        counts.answers(19),
        [11, 0, 1100, 11_000],
        "no such commands"
    );
    assert_eq!(counts.latencies(8).count, 1);
    let all = counts.words().iter().filter(|word| **word != 0).count();
    let of_commands = COMMANDS * (1 + 2 + 2) + 1;
    assert_eq!(all, 1 + 1 + 2 + 2 + 9 + of_commands, "nothing overlaps");
}
