use std::collections::BTreeMap;

use super::{ALIGN, Arena, BYTES, CLASSES, Snapshot, class_of};

#[test]
fn a_class_is_large_enough_and_not_much_larger() {
    let sizes = (1..5000).chain((1..28).flat_map(|log| [(1 << log) - 1, 1 << log, (1 << log) + 1]));
    for size in sizes.filter(|size| *size <= BYTES / 2) {
        let (class, bytes) = class_of(size);
        assert!(class < CLASSES && bytes >= size, "{size}: {class}, {bytes}");
        assert!(bytes <= size + size / 4 + ALIGN, "{size}: {bytes}");
        assert_eq!(class_of(bytes), (class, bytes));
    }
}

#[test]
fn what_is_restored_is_as_it_was() {
    let arena = Arena::new();
    let mut snapshot = Snapshot::new();
    let map = arena.within(|| {
        let map: BTreeMap<u32, Vec<u8>> = (0..500).map(|n| (n, vec![1; n as usize])).collect();
        Box::into_raw(Box::new(map))
    });
    // SAFETY: `map` is an address in the arena, and nothing borrows from it between these calls.
    unsafe {
        arena.save(&mut snapshot);
        for round in 0..3 {
            arena.within(|| {
                (*map).retain(|n, _| n % 3 == round);
                (*map).extend((600..900).map(|n| (n, vec![2; 3000])));
                (*map).values_mut().for_each(|bytes| bytes.push(3));
            });
            arena.restore(&snapshot);
            assert_eq!((*map).len(), 500);
            assert!(
                (*map)
                    .iter()
                    .all(|(n, bytes)| *bytes == vec![1; *n as usize])
            );
        }
    }
}

#[test]
fn what_was_made_outside_stays_outside() {
    let mut outside = vec![1_u8; 10];
    let arena = Arena::new();
    arena.within(|| outside.extend([2; 5000]));
    drop(arena);
    assert_eq!(outside.len(), 5010);
    outside.push(3);
}
