use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn like_a_bitmap(
        base in prop_oneof![Just(0u32), Just(u32::MAX - 100)],
        inserts in proptest::collection::vec((0usize..200, 0usize..40), 0..20),
        low in 0usize..240,
        width in 0usize..100,
    ) {
        let base = Seq(base);
        let mut ranges = Ranges::default();
        let mut map = [false; 240];
        for (from, len) in inserts {
            let fresh = map[from..from + len].iter().any(|bit| !bit);
            prop_assert_eq!(ranges.insert(base + from, base + from + len), fresh);
            map[from..from + len].fill(true);
        }
        let high = (low + width).min(240);
        let covered = map[low..high].iter().filter(|bit| **bit).count();
        prop_assert_eq!(ranges.covered(base + low, base + high), covered);
        let start = (low..high).find(|at| !map[*at]);
        let hole = start.map(|start| (base + start, base + (start..high).find(|at| map[*at]).unwrap_or(high)));
        prop_assert_eq!(ranges.hole(base + low, base + high), hole);
        ranges.drop_below(base + low);
        prop_assert_eq!(ranges.covered(base, base + 240), map[low..].iter().filter(|bit| **bit).count());
    }
}
