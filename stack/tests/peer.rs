//! Our TCP against smoltcp's, over a wire that loses, duplicates, reorders, damages and delays, with crashes in
//! between.
//!
//! Every run checks that the streams arrive whole, that no reset is ever sent, that nothing is acknowledged or promised
//! before it is recorded, that no window's right edge moves left, and that after every step the state is the fold of
//! the records.

mod common;

use std::time::Duration;

use common::{Scenario, Traffic, run};
use outlast_stack::Lost;
use outlast_stack::device::Faults;

const ALL: [Traffic; 3] = [Traffic::Upload, Traffic::Download, Traffic::Echo];

fn bad_wire() -> Faults {
    Faults {
        loss_ppm: 20_000,
        duplicate_ppm: 20_000,
        reorder_ppm: 30_000,
        corrupt_ppm: 10_000,
        delay: Duration::from_micros(500),
        jitter: Duration::from_micros(300),
        reorder_delay: Duration::from_millis(3),
        queue_limit: 0,
    }
}

#[test]
fn clean_wire() {
    for traffic in ALL {
        for (offload, timestamps) in [(false, false), (true, true)] {
            run(Scenario {
                offload,
                timestamps,
                ..Scenario::new(1, traffic, 4 << 20)
            });
        }
    }
}

#[test]
fn sixteen_mebibytes() {
    for traffic in [Traffic::Upload, Traffic::Download] {
        run(Scenario {
            offload: true,
            server_buffer: 16 << 20,
            client_buffer: 4 << 20,
            ..Scenario::new(2, traffic, 16 << 20)
        });
    }
}

#[test]
fn bad_wire_without_crashes() {
    for seed in 0..8 {
        for traffic in ALL {
            run(Scenario {
                faults: bad_wire(),
                offload: seed % 2 == 0,
                timestamps: seed % 3 != 0,
                ..Scenario::new(seed, traffic, 300_000)
            });
        }
    }
}

#[test]
fn crashes_on_a_clean_wire() {
    let mut crashes = 0;
    for seed in 0..20 {
        for traffic in ALL {
            crashes += run(Scenario {
                crash_ppm: 150_000,
                crashes_max: 12,
                lost: if seed % 2 == 0 {
                    Lost::Frames
                } else {
                    Lost::Nothing
                },
                offload: seed % 3 == 0,
                timestamps: seed % 4 < 2,
                relocate_ppm: 50_000,
                ..Scenario::new(100 + seed, traffic, 512 << 10)
            })
            .crashes;
        }
    }
    assert!(crashes > 200, "{crashes}");
}

#[test]
fn crashes_on_a_bad_wire() {
    let mut crashes = 0;
    for seed in 0..20 {
        for traffic in ALL {
            crashes += run(Scenario {
                faults: bad_wire(),
                crash_ppm: 40_000,
                crashes_max: 10,
                lost: if seed % 2 == 0 {
                    Lost::Frames
                } else {
                    Lost::Nothing
                },
                relocate_ppm: 50_000,
                full_ppm: 50_000,
                timestamps: seed % 3 != 0,
                ..Scenario::new(200 + seed, traffic, 150_000)
            })
            .crashes;
        }
    }
    assert!(crashes > 200, "{crashes}");
}

#[test]
fn crashes_in_handshake_and_close() {
    let mut crashes = 0;
    for seed in 0..30 {
        for traffic in ALL {
            crashes += run(Scenario {
                crash_ppm: 300_000,
                crashes_max: 6,
                outage: Duration::from_millis(50),
                ..Scenario::new(300 + seed, traffic, 100)
            })
            .crashes;
        }
    }
    assert!(crashes > 200, "{crashes}");
}

#[test]
fn small_and_zero_windows() {
    for seed in 0..6 {
        for traffic in ALL {
            run(Scenario {
                client_buffer: 1000 + 700 * seed as usize,
                server_buffer: 1500 + 900 * seed as usize,
                client_pause: Duration::from_millis(300),
                server_pause: Duration::from_millis(400),
                crash_ppm: 20_000,
                crashes_max: 5,
                ..Scenario::new(400 + seed, traffic, 40_000)
            });
        }
    }
}

#[test]
fn our_sequence_numbers_wrap() {
    for (seed, traffic) in [(0, Traffic::Download), (1, Traffic::Echo)] {
        let report = run(Scenario {
            iss: Some(u32::MAX - 150_000),
            faults: bad_wire(),
            crash_ppm: 20_000,
            crashes_max: 5,
            ..Scenario::new(500 + seed, traffic, 400_000)
        });
        assert!(report.wrapped);
    }
}

#[test]
fn a_full_log_delays_and_loses_nothing() {
    run(Scenario {
        full_ppm: 400_000,
        ..Scenario::new(600, Traffic::Upload, 500_000)
    });
}
