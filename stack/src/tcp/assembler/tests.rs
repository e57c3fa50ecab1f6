use super::*;
use proptest::prelude::*;

//= rfc2018 4d, 4e, 4f
#[test]
fn reports_the_latest_first() {
    let mut assembler = Assembler::default();
    let base = Seq(u32::MAX - 5);
    for at in [30, 10, 50, 20] {
        assembler.insert(base + at, &[0; 5]);
    }
    let blocks = assembler
        .blocks(base)
        .map(|block| block.map(|(from, to)| (from - base, to - base)));
    assert_eq!(blocks, [Some((20, 25)), Some((50, 55)), Some((10, 15))]);
    assembler.insert(base + 15, &[0; 5]);
    let blocks = assembler
        .blocks(base)
        .map(|block| block.map(|(from, to)| (from - base, to - base)));
    assert_eq!(blocks, [Some((10, 25)), Some((50, 55)), Some((30, 35))]);
}

proptest! {
    #[test]
    fn puts_any_order_together(
        cuts in proptest::collection::vec((0usize..500, 1usize..100), 1..60),
        base in any::<u32>(),
    ) {
        let stream: Vec<u8> = (0..500u32).map(|i| (i * 7) as u8).collect();
        let base = Seq(base);
        let mut assembler = Assembler::default();
        for (from, len) in &cuts {
            let to = (from + len).min(500);
            assembler.insert(base + *from, &stream[*from..to]);
        }
        assembler.insert(base, &stream[..1]);
        let got = assembler.take(base, usize::MAX).concat();
        let mut map = [false; 500];
        map[0] = true;
        for (from, len) in &cuts {
            map[*from..(from + len).min(500)].fill(true);
        }
        let reach = map.iter().position(|bit| !bit).unwrap_or(500);
        prop_assert_eq!(&got[..], &stream[..reach]);
    }
}
