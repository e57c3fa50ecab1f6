use std::time::Duration;

use outlast_smb::Answered;

use super::super::Return;
use super::*;
use crate::server::fault::Point;

#[test]
fn all_that_is_counted_is_in_the_text() {
    let page = Page::new().unwrap();
    let mut counts = Counts::default();
    counts.pass(Point::One);
    counts.receive(60);
    counts.evict(Eviction::Idle);
    counts.answer(&Answered {
        command: 8,
        is_error: false,
        request_bytes: 117,
        reply_bytes: 65_616,
    });
    counts.take(8, Duration::from_micros(300));
    let mut writer = page.writer().unwrap();
    writer.count(&counts);
    writer.measure(Gauges {
        connections: 3,
        ..Gauges::default()
    });
    page.add_return(Return {
        began_unix_ms: 1,
        gap_us: 2500,
        cause: Cause::Killed,
    });
    let text = text(&page);
    for line in [
        "# HELP outlast_connections TCP connections",
        "# TYPE outlast_connections gauge",
        "outlast_connections 3",
        "outlast_points_total{point=\"1\"} 1",
        "outlast_received_frames_total 1",
        "outlast_received_bytes_total 60",
        "outlast_evictions_total{reason=\"idle\"} 1",
        "outlast_answers_total{command=\"READ\"} 1",
        "outlast_answers_total{command=\"OTHER\"} 0",
        "outlast_replies_bytes_total{command=\"READ\"} 65616",
        "outlast_request_seconds_bucket{le=\"0.0002\",command=\"READ\"} 0",
        "outlast_request_seconds_bucket{le=\"0.0005\",command=\"READ\"} 1",
        "outlast_request_seconds_bucket{le=\"+Inf\",command=\"READ\"} 1",
        "outlast_return_gap_seconds_sum{cause=\"killed\"} 0.0025",
        "outlast_return_gap_seconds_count{cause=\"killed\"} 1",
        "# EOF",
    ] {
        assert!(
            text.lines().any(|it| it == line),
            "{line:?} is not in {text}"
        );
    }
}
