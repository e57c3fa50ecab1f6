use super::*;

/// A file that a test reads.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn screen_of(target: Box<dyn TermLike>) -> Screen {
    Screen {
        plain: false,
        bars: vec![bar(ProgressDrawTarget::term_like(target))],
    }
}

fn play(screen: &Screen) {
    screen.title("Outlast");
    screen.live().show("120 MB/s");
    screen.fault("kill -9");
    screen.live().show("0 MB/s");
    screen.good("equal");
}

#[test]
fn lines_stand_above_the_one_that_changes_which_is_gone_at_the_end() {
    let terminal = indicatif::InMemoryTerm::new(20, 80);
    let screen = screen_of(Box::new(terminal.clone()));
    play(&screen);
    let shown = terminal.contents();
    let lines: Vec<_> = shown.lines().map(str::trim_end).collect();
    assert_eq!(lines[..4], ["", "Outlast", "   kill -9", "   ✓ equal"]);
    assert!(lines[4].ends_with("MB/s"), "{shown}");
    drop(screen);
    assert!(!terminal.contents().contains("MB/s"));
}

#[test]
fn a_recording_is_an_asciicast_that_shows_the_same() {
    let file = Shared::default();
    let recording = Recording::new(Box::new(file.clone())).unwrap();
    let screen = screen_of(Box::new(recording));
    play(&screen);
    drop(screen);
    let text = String::from_utf8(file.0.lock().unwrap().clone()).unwrap();
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let header = lines.next().unwrap();
    assert_eq!(
        (header["version"].as_u64(), header["width"].as_u64()),
        (Some(2), Some(u64::from(COLUMNS)))
    );
    let terminal = indicatif::InMemoryTerm::new(ROWS, COLUMNS);
    let mut before = 0.0;
    for event in lines {
        let (seconds, text) = (event[0].as_f64().unwrap(), event[2].as_str().unwrap());
        assert!(seconds >= before && event[1] == "o");
        before = seconds;
        terminal.write_str(text).unwrap();
    }
    let shown = terminal.contents();
    assert!(shown.contains("   kill -9\n   ✓ equal"), "{shown:?}");
    assert!(!shown.contains("MB/s"), "{shown:?}");
}
