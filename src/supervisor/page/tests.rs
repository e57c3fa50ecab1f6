use outlast_smb::copying::Cursor;

use super::*;
use crate::server::digest::Place;

#[test]
fn what_is_written_is_read() {
    let page = Page::new().unwrap();
    assert_eq!(page.standing(), Standing::default());
    assert_eq!(page.mark(), None);
    let standing = Standing {
        pid: 7,
        position: u64::MAX,
    };
    page.stand(standing);
    page.count_comparison();
    page.count_comparison();
    page.count_difference();
    let compared = Compared {
        digests: 2,
        differences: 1,
    };
    assert_eq!((page.standing(), page.compared()), (standing, compared));
    for cursor in [Cursor::Work, Cursor::Opens(Some(u64::MAX))] {
        let mark = Mark {
            from: Place {
                object: u64::MAX,
                cursor,
            },
            position: u64::MAX,
            digest: u64::MAX,
        };
        page.set_mark(&mark);
        assert_eq!(page.mark(), Some(mark));
    }
    page.put(MARK_AT + 9, &[1]);
    assert_eq!(page.mark(), None, "it is half written");
    page.set_mark(&Mark {
        from: Place::START,
        position: 1,
        digest: 2,
    });
    page.begin();
    assert_eq!((page.mark(), page.standing()), (None, Standing::default()));
    assert_eq!(page.compared(), compared);
}
