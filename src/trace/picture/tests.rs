use super::super::connection::tests::{Story, ms};
use super::*;

/// A download of two seconds, with a gap of 5 ms after half a second and one of 300 ms after 1.5 s.
fn download() -> Story {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    story.sends(0, false, 100);
    for at in 1..2000 {
        if !(500..505).contains(&at) && !(1200..1500).contains(&at) {
            story.sends(at, true, 1000);
        }
    }
    story
}

#[test]
fn gaps_that_stand_out_are_found_and_shorter_ones_if_asked_for() {
    let story = download();
    let found = gaps(&story.connections.busiest(None), None);
    let lengths: Vec<_> = found.iter().map(Gap::label).collect();
    assert_eq!(lengths, ["301 ms"]);
    let found = gaps(&story.connections.busiest(None), Some(ms(5)));
    let lengths: Vec<_> = found.iter().map(Gap::label).collect();
    assert_eq!(lengths, ["6.0 ms", "301 ms"]);
}

#[test]
fn the_line_is_unbroken_and_thin_and_the_gaps_are_shaded() {
    let story = download();
    let connections = story.connections.busiest(None);
    let mut found = gaps(&connections, Some(ms(5)));
    found[0].cause = Some("kill -9".into());
    let picture = Picture::of("a title", &connections, &found).unwrap();
    let [line] = &picture.whole.lines[..] else {
        panic!("the client's bytes are few: {:?}", picture.whole.lines);
    };
    assert!(line.from_server);
    assert!(line.points.len() <= 3 * COLUMNS + 2);
    assert_eq!(*line.points.last().unwrap(), (1.999, 1_694_000.0));
    assert!(line.points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
    let shaded: Vec<_> = picture
        .whole
        .gaps
        .iter()
        .map(|gap| (gap.seconds, gap.label.as_str()))
        .collect();
    assert_eq!(
        shaded,
        [
            ((0.499, 0.505), "kill -9: 6.0 ms"),
            ((1.199, 1.5), "301 ms")
        ]
    );
    // The short gap is shown in detail, flat in its middle.
    let [detail] = &picture.details[..] else {
        panic!("{:?}", picture.details);
    };
    assert_eq!(detail.title, "kill -9: 6.0 ms");
    let points = &detail.lines[0].points;
    assert!(
        points
            .windows(2)
            .any(|pair| pair[0].0 == 0.499 && pair[1] == (0.505, pair[0].1))
    );
    assert_eq!(
        picture.subtitle,
        "1.7 MB in 2.0 s: 1 connection, 1 SYN of the client, no RST"
    );
}

#[test]
fn a_death_is_shown_as_one() {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    for at in 1..100 {
        story.sends(at, true, 1000);
    }
    story.resets(100, true);
    story.connect(600, 50_001, 9);
    story.syn(700);
    for at in 701..720 {
        story.sends(at, true, 1000);
    }
    let connections = story.connections.busiest(None);
    let picture = Picture::of("", &connections, &[]).unwrap();
    assert_eq!(picture.whole.lines.len(), 2);
    assert_eq!(picture.whole.lines[1].points[0].1, 1000.0);
    let flags: Vec<_> = picture
        .whole
        .flags
        .iter()
        .map(|flag| (flag.label.as_str(), flag.is_bad))
        .collect();
    assert_eq!(
        flags,
        [
            ("SYN", false),
            ("RST from the server", true),
            ("new SYN", true),
            ("SYN again", true)
        ]
    );
    assert_eq!(picture.whole.flags[1].offset, 99_000.0);
    assert!(
        picture
            .subtitle
            .ends_with("2 connections, 3 SYNs of the client, 1 ended by RST")
    );
}

#[test]
fn what_was_sent_again_is_marked_and_both_directions_are_drawn_if_both_are_large() {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    for at in 1..50 {
        story.sends(at, true, 1000);
        story.sends(at, false, 800);
    }
    story.resends(60, false, 800);
    let connections = story.connections.busiest(None);
    let picture = Picture::of("", &connections, &[]).unwrap();
    assert_eq!(picture.whole.lines.len(), 2);
    assert_eq!(picture.whole.resent, [(0.06, 49.0 * 800.0)]);
}

#[test]
fn a_server_that_never_returns_leaves_a_gap() {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    story.sends(1, true, 1000);
    story.sends(2, false, 1000);
    for at in [200, 400, 800, 1600] {
        story.resends(at, false, 1000);
    }
    let found = gaps(&story.connections.busiest(None), None);
    assert_eq!(found.iter().map(Gap::label).collect::<Vec<_>>(), ["1.6 s"]);
}

#[test]
fn labels_that_are_near_are_in_rows_of_their_own() {
    let shade = |from: f64| Shade {
        seconds: (from, from + 0.1),
        label: "kill -9: 5.0 ms".into(),
        row: 0,
    };
    let mut shades = [1.0, 1.2, 1.4, 8.0].map(shade);
    arrange(&mut shades, (0.0, 10.0));
    assert_eq!(shades.map(|shade| shade.row), [0, 1, 2, 0]);
}

#[test]
fn nothing_is_no_picture() {
    assert_eq!(Picture::of("", &[], &[]), None);
}
