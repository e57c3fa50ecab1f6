use super::*;

fn frame(ethertype: [u8; 2], ip: &[u8], data_offset: u8) -> Vec<u8> {
    let mut tcp = [0; 32];
    tcp[12] = data_offset << 4;
    [&[0; 12][..], &ethertype, ip, &tcp, &[1; 1000]].concat()
}

#[test]
fn headers_end_where_the_payload_of_tcp_begins() {
    let mut v4 = [0; 20];
    (v4[0], v4[9]) = (0x45, TCP);
    assert_eq!(len(&frame([8, 0], &v4, 8)), 14 + 20 + 32);
    assert_eq!(len(&frame([8, 0], &v4, 5)), 14 + 20 + 20);
    let mut v6 = [0; 40];
    v6[6] = TCP;
    assert_eq!(len(&frame([0x86, 0xDD], &v6, 8)), 14 + 40 + 32);
    v4[9] = 17;
    assert_eq!(len(&frame([8, 0], &v4, 8)), OTHER_MAX);
    assert_eq!(len(&frame([8, 6], &[0; 28], 8)), OTHER_MAX);
}

#[test]
fn a_frame_that_lies_about_itself_is_no_longer_than_it_is() {
    let mut v4 = [0; 20];
    (v4[0], v4[9]) = (0x4F, TCP);
    for end in 0..100 {
        let frame = frame([8, 0], &v4, 15);
        let frame = &frame[..end];
        assert!(len(frame) <= frame.len());
    }
}
