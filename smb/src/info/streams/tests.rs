use super::encode;
use outlast_fsa::fileop::StreamEntry;
use outlast_fsa::status::NtStatus;

fn entry(name: &str, end_of_file: u64) -> StreamEntry {
    StreamEntry {
        name: name.into(),
        end_of_file,
        allocation_size: 4096,
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn streams_follow_one_another_at_offsets_of_eight() {
    let entries = [entry(":st:$DATA", 5), entry(":s:$DATA", 6)];
    let answer = encode(&entries, 1000).unwrap();
    let second = 48;
    assert_eq!(word(&answer.bytes, 0), second);
    assert_eq!(word(&answer.bytes, 4), 18);
    assert_eq!(word(&answer.bytes, 8), 5);
    assert_eq!(word(&answer.bytes, 16), 4096);
    let second = &answer.bytes[second as usize..];
    assert_eq!(
        (word(second, 0), word(second, 4), word(second, 8)),
        (0, 16, 6)
    );
    assert_eq!(&second[24..], b":\0s\0:\0$\0D\0A\0T\0A\0");
    assert!(encode(&[], 24).unwrap().bytes.is_empty());
}

#[test]
fn no_entry_is_cut() {
    let entries = [entry("::$DATA", 5), entry(":s:$DATA", 6)];
    let whole = encode(&entries, 80).unwrap();
    assert!(!whole.overflow);
    let first = encode(&entries, 79).unwrap();
    assert!(first.overflow);
    assert_eq!(first.bytes.len(), 38);
    assert_eq!(word(&first.bytes, 0), 0);
    assert_eq!(encode(&entries, 37), Err(NtStatus::BUFFER_OVERFLOW));
    assert_eq!(encode(&entries, 23), Err(NtStatus::INFO_LENGTH_MISMATCH));
}
