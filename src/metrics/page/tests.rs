use super::super::Cause;
use super::*;
use crate::server::fault::Point;

#[test]
fn what_one_worker_has_counted_the_next_continues() {
    let page = Page::new().unwrap();
    let mut counts = page.counts();
    assert_eq!(counts, Counts::default());
    counts.pass(Point::Two);
    counts.commit(5);
    page.writer().unwrap().count(&counts);
    let gauges = Gauges {
        recoveries: 9,
        connections: 3,
        ..Gauges::default()
    };
    page.writer().unwrap().measure(gauges);
    let new = Return {
        began_unix_ms: 1,
        gap_us: 2,
        cause: Cause::Killed,
    };
    page.add_return(new);

    let memory = page.memory();
    let memory = rustix::io::fcntl_dupfd_cloexec(memory, 3).unwrap();
    let next = Page::inherited(Some(memory)).unwrap();
    assert_eq!((next.counts(), next.gauges()), (counts, gauges));
    assert_eq!(next.last_returns(), [new]);
}

#[test]
fn a_page_of_another_layout_is_left_alone() {
    let other = SharedPage::new("outlast-metrics", 8).unwrap();
    other.set_words(0, [LAYOUT + 1]).unwrap();
    let other = rustix::io::fcntl_dupfd_cloexec(&other, 3).unwrap();
    let page = Page::inherited(Some(other)).unwrap();
    assert_eq!(page.counts(), Counts::default());
    page.writer().unwrap().count(&page.counts());
}
