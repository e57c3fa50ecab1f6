//! Tests the calls with requests of Debian's smbclient and rpcclient 4.17, and responses of its Samba with this
//! server's values.

use crate::rpc::pipe::tests::{bound, server};
use crate::rpc::{Pipe, pipe::tests::request};
use crate::tests::bytes::hex;

fn called(request: &str) -> Vec<u8> {
    let mut pipe = bound();
    pipe.write(&hex(request), &server()).unwrap();
    let answer = pipe.read(4280).unwrap();
    assert!(!answer.more);
    answer.data
}

#[test]
fn share_enum_of_smbclient() {
    let answer = called(
        "05000003100000005c000000020000004400000000000f00
        00000200 0a000000000000000a000000 3100320037002e0030002e0030002e0031000000
        01000000 01000000 04000200 00000000 00000000 ffffffff 08000200 00000000",
    );
    let want = "05000203100000009c0000000200000084000000 0000 0000
        01000000 01000000 04000200 02000000 08000200 02000000
        0c000200 00000000 10000200
        14000200 03000080 18000200
        0400000000000000040000007000750062000000
        0e000000000000000e000000460069006c0065007300200066006f007200200061006c006c000000
        050000000000000005000000 49005000430024000000 0000
        010000000000000001000000 0000 0000
        02000000 1c000200 00000000 00000000";
    let mut want = hex(want);
    let len = want.len() as u16;
    want[8..10].copy_from_slice(&len.to_le_bytes());
    want[16..18].copy_from_slice(&(len - 24).to_le_bytes());
    assert_eq!(answer, want);
}

#[test]
fn server_get_info_of_rpcclient() {
    let answer = called(
        "050000031000000044000000020000002c00000000001500
        00000200 0c000000000000000c000000 5c005c003100320037002e0030002e0030002e0031000000 65000000",
    );
    // As Samba, except the server's type: no print queue, no Unix extensions.
    let want = "05000203100000007c0000000200000064000000 0000 0000
        65000000 04000200 f4010000 08000200 06000000 01000000 03900000 0c000200
        080000000000000008000000 4f00550054004c00410053005400 0000
        0c000000000000000c000000 540068006500200063006f006d006d0065006e0074000000 00000000";
    assert_eq!(answer, hex(want));
}

#[test]
fn share_get_info_of_rpcclient() {
    let mut asked = hex("0500000310000000540000000700000 03c00000000001000
        00000200 0a000000000000000a000000 3100320037002e0030002e0030002e0031000000
        04000000000000000400000070007500620000 00 01000000");
    let answer = {
        let mut pipe = bound();
        pipe.write(&asked, &server()).unwrap();
        pipe.read(4280).unwrap().data
    };
    let want = "05000203100000006c0000000700000054000000 0000 0000
        01000000 04000200 08000200 00000000 0c000200
        0400000000000000040000007000750062000000
        0e000000000000000e000000460069006c0065007300200066006f007200200061006c006c000000 00000000";
    assert_eq!(answer, hex(want));

    // Another name: NERR_NetNameNotFound and no structure.
    let name = asked.len() - 12;
    asked[name] = b'x';
    let mut pipe = bound();
    pipe.write(&asked, &server()).unwrap();
    assert_eq!(
        pipe.read(4280).unwrap().data[24..],
        hex("01000000 00000000 06090000")
    );
}

#[test]
fn levels_of_share_enum() {
    let at_level = |level: u32| {
        let stub = [
            [0; 4],
            level.to_le_bytes(),
            level.to_le_bytes(),
            [0; 4],
            [0xFF; 4],
            [0; 4],
        ]
        .concat();
        let mut pipe = bound();
        pipe.write(&request(1, 15, 3, &stub), &server()).unwrap();
        pipe.read(4280).unwrap().data.split_off(24)
    };
    for level in [0, 1, 2, 501] {
        let answer = at_level(level);
        assert_eq!(answer[answer.len() - 4..], [0; 4], "{level}");
        assert_eq!(answer[12..16], [2, 0, 0, 0]);
    }
    for (level, status) in [(502, 5), (1005, 124), (7, 124)] {
        let answer = at_level(level);
        assert_eq!(
            answer[8..],
            [[0; 4], [0; 4], [0; 4], [status, 0, 0, 0]].concat(),
            "{level}"
        );
    }
}

#[test]
fn wksta_get_info_of_rpcclient() {
    let mut pipe = Pipe::open("wkssvc").unwrap();
    let bind = hex(
        "05000b03100000004800000001000000 b810b81000000000 01000000 00000100
        98d0ff6b12a110369833 46c3f87e345a 01000000 045d888aeb1cc9119fe808002b10486002000000",
    );
    pipe.write(&bind, &server()).unwrap();
    pipe.read(4280).unwrap();
    let asked = hex("0500000310000000400000000a0000002800000000000000
        00000200 0a000000000000000a000000 3100320037002e0030002e0030002e0031000000 64000000");
    pipe.write(&asked, &server()).unwrap();
    let want = "0500020310000000740000000a0000005c000000 0000 0000
        64000000 04000200 f4010000 08000200 0c000200 06000000 01000000
        080000000000000008000000 4f00550054004c00410053005400 0000
        0a000000000000000a000000 57004f0052004b00470052004f0055005000 0000 00000000";
    assert_eq!(pipe.read(4280).unwrap().data, hex(want));
}
