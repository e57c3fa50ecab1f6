use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{Model, Rate, Wish};
use super::view;
use crate::control::{
    ActivityStatus, ConnectionStatus, LogStatus, Outage, PairStatus, Serves, SmbStatus,
    StandbyStatus, Status, TcpStatus,
};

fn connection(client: &str, rcv_nxt: u32, snd_una: u32) -> ConnectionStatus {
    ConnectionStatus {
        client: client.parse().unwrap(),
        server: "10.77.0.1:445".parse().unwrap(),
        tcp: TcpStatus {
            rcv_nxt,
            snd_una,
            snd_wnd: 65_536,
            unacked_bytes: 12_345,
            ..TcpStatus::default()
        },
        smb: SmbStatus {
            dialect: Some("3.1.1".into()),
            user: Some("alice".into()),
            opens: 17,
            locks: 3,
            ..SmbStatus::default()
        },
        log_bytes: 0,
    }
}

fn status(n: u64) -> Status {
    let moved = u32::try_from(n).unwrap() * 1_048_576;
    Status {
        worker_pid: 4711,
        epoch: 7,
        version: "0.1.0".into(),
        serves: Serves {
            name: "LAB".into(),
            durability: "process".into(),
            ..Serves::default()
        },
        log: Some(LogStatus {
            size_bytes: 256 << 20,
            used_bytes: 64 << 20,
            replay_records: 1234,
            replay_bytes: 3 << 20,
            replay_deltas: 567,
        }),
        standby: Some(StandbyStatus {
            pid: 4712,
            memory_bytes: 0,
            lag_bytes: 100,
        }),
        activity: ActivityStatus {
            points: [10 * n, 20 * n, 30 * n, 40 * n],
            commits: 50 * n,
            received_bytes: n * (20 << 20),
            sent_bytes: 0,
        },
        connections: vec![
            // Around the end of the sequence numbers.
            connection("10.77.0.2:40000", (u32::MAX - 99).wrapping_add(moved), 1),
            connection("10.77.0.3:40001", 5, 6),
        ],
        ..Status::unknown()
    }
}

fn updated(times: u64) -> Model {
    let mut model = Model::default();
    for n in 0..times {
        model.update(Ok(status(n)), Duration::from_millis(500) * n as u32);
    }
    model
}

/// The screen's lines.
fn screen(model: &Model) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(130, 24)).unwrap();
    terminal.draw(|frame| view::draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer();
    let cells = buffer.content().chunks(buffer.area.width.into());
    let text = |line: &[ratatui::buffer::Cell]| line.iter().map(|cell| cell.symbol()).collect();
    cells.map(text).collect()
}

fn press(model: &mut Model, code: KeyCode) -> Option<Wish> {
    model.press(KeyEvent::new(code, KeyModifiers::NONE))
}

#[track_caller]
fn shows(screen: &[String], text: &str) {
    let is_there = screen.iter().any(|line| line.contains(text));
    assert!(is_there, "{text:?} is not on the screen: {screen:#?}");
}

#[test]
fn the_screen_shows_the_server_and_its_connections() {
    let screen = screen(&updated(2));
    for text in [
        "LAB (Outlast 0.1.0)",
        "worker 4711  epoch 7",
        "standby  worker 4712, 100 B behind",
        "25 % of 256 MiB   next replay: 1234 records, 3072 KiB, 567 deltas",
        "points   1 20/s   2 40/s   3 60/s   4 80/s   commits 100/s",
        "frames   received 40 MiB/s   sent 0 B/s",
        "connections 2",
        "CLIENT",
        "10.77.0.3:40001",
        "q: leave",
    ] {
        shows(&screen, text);
    }
    let line = screen.iter().find(|line| line.contains("10.77.0.2:40000"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    let expected = [
        "alice", "3.1.1", "2048", "KiB/s", "0", "B/s", "1", "1048476", "12", "KiB", "64", "KiB",
        "17", "3",
    ];
    assert_eq!(words[1..words.len() - 1], expected);
}

#[test]
fn returns_and_a_pair_are_shown() {
    let mut model = updated(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let status = Status {
        returns: vec![Outage {
            began_unix_seconds: now.as_secs_f64() - 125.0,
            seconds: 0.0042,
            cause: "killed".into(),
        }],
        pair: Some(PairStatus {
            node: "a".into(),
            partner: "b".into(),
            role: "serving".into(),
            holder: None,
            epoch: 1,
            in_step: false,
            in_step_since_unix_seconds: 0,
            partner_runs: true,
            by_order: false,
            has_state: true,
            link: None,
            taken_from: None,
            if_died: String::new(),
            trouble: None,
        }),
        standby: None,
        ..status(1)
    };
    model.update(Ok(status), Duration::from_secs(1));
    let screen = screen(&model);
    shows(&screen, "4.2 ms after killed (2 min ");
    shows(&screen, "node a: serving, partner b runs, NOT IN STEP");
    shows(&screen, "standby  none");
}

#[test]
fn a_server_that_does_not_run_is_reported_and_the_rest_stays() {
    let mut model = updated(2);
    model.update(
        Err("the server does not answer".into()),
        Duration::from_secs(2),
    );
    let lines = screen(&model);
    shows(&lines, "the server does not answer");
    shows(&lines, "10.77.0.2:40000");
    model.update(Ok(status(2)), Duration::from_secs(3));
    assert_eq!(model.silence(), None);
    let rate = model.rate(&model.connections()[0]);
    let expected = Rate {
        received: 1_048_576.0 / 2.5,
        acknowledged: 0.0,
    };
    assert_eq!(rate, expected, "over the whole time");
    // A restarted server counts from zero.
    model.update(Ok(status(0)), Duration::from_secs(4));
    assert_eq!(model.pace().commits, 0.0);
}

#[test]
fn a_client_is_disconnected_after_a_question() {
    let mut model = updated(1);
    assert_eq!(press(&mut model, KeyCode::Down), None);
    assert_eq!(press(&mut model, KeyCode::Down), None, "there is no third");
    assert_eq!(press(&mut model, KeyCode::Char('d')), None);
    shows(&screen(&model), "disconnect 10.77.0.3:40001?");
    assert_eq!(press(&mut model, KeyCode::Char('n')), None);
    assert_eq!(
        press(&mut model, KeyCode::Char('y')),
        None,
        "it was not asked"
    );
    press(&mut model, KeyCode::Up);
    press(&mut model, KeyCode::Char('d'));
    let wish = press(&mut model, KeyCode::Char('y'));
    assert_eq!(wish, Some(Wish::Disconnect("10.77.0.2:40000".into())));
    model.show_result("10.77.0.2:40000 was disconnected".into());
    shows(&screen(&model), "10.77.0.2:40000 was disconnected");
    assert_eq!(press(&mut model, KeyCode::Char('q')), Some(Wish::Leave));
}

#[test]
fn a_small_screen_and_no_answer_do_no_harm() {
    for (width, height) in [(0, 0), (1, 1), (20, 3), (80, 10)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        for model in [Model::default(), updated(2)] {
            terminal.draw(|frame| view::draw(frame, &model)).unwrap();
        }
    }
    let mut model = Model::default();
    assert_eq!(press(&mut model, KeyCode::Char('d')), None);
    assert_eq!(press(&mut model, KeyCode::Char('y')), None);
}
