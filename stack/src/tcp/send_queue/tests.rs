use super::*;

fn join(parts: Vec<Bytes>) -> Vec<u8> {
    parts.concat()
}

#[test]
fn slices_any_range() {
    let whole: Vec<u8> = (0..100).collect();
    let mut queue = SendQueue::default();
    for part in whole.chunks(7) {
        queue.push(Bytes::copy_from_slice(part));
    }
    for dropped in [0, 1, 6, 7, 50, 99] {
        let mut queue = queue.clone();
        queue.drop_front(dropped);
        let rest = &whole[dropped..];
        assert_eq!(queue.len(), rest.len());
        for from in 0..rest.len() {
            for len in [1, 3, 20, 200] {
                let to = (from + len).min(rest.len());
                assert_eq!(join(queue.slices(from, len)), &rest[from..to]);
            }
        }
    }
    queue.drop_front(1000);
    assert_eq!((queue.len(), queue.chunks().count()), (0, 0));
}
