use super::*;

#[test]
fn a_binary_is_probed_by_the_other_side() {
    let (prober, supervisor) = Prober::new().unwrap();
    let (woken, waker) = UnixStream::pair().unwrap();
    let (asks, asked) = Asks::new(waker);
    let captures = Capture::new().unwrap();
    answer(supervisor, PathBuf::from("/nowhere/o.toml"), asks, captures);
    let refused = |binary: &str| prober.ask(Some(Path::new(binary))).unwrap_err();
    for _ in 0..2 {
        assert!(refused("/nowhere/outlast").contains("/nowhere/outlast cannot be run"));
        assert!(refused("/bin/true").contains("it is not an outlast binary"));
    }
    assert!(
        asked.try_recv().is_err(),
        "another binary is no standby worker"
    );
    let answers = std::thread::spawn(move || {
        for answer in [Ok(()), Err("it cannot".to_owned())] {
            io::Read::read(&mut &woken, &mut [0]).unwrap();
            let ask = asked.recv().unwrap();
            assert_eq!(ask.binary, None);
            ask.answer.send(answer).unwrap();
        }
    });
    assert_eq!(prober.ask(None), Ok(()));
    assert_eq!(prober.ask(None), Err("it cannot".to_owned()));
    answers.join().unwrap();
}

#[test]
fn a_supervisor_without_a_thread_refuses() {
    let (prober, supervisor) = Prober::new().unwrap();
    drop(supervisor);
    let refused = prober.ask(Some(Path::new("/bin/true"))).unwrap_err();
    assert!(refused.contains("the supervisor"), "{refused}");
}
