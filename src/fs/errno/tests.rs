use super::*;

#[test]
fn errors_that_a_client_must_distinguish() {
    assert_eq!(status(Errno::NOSPC), NtStatus::DISK_FULL);
    assert_eq!(status(Errno::ROFS), NtStatus::MEDIA_WRITE_PROTECTED);
    assert_eq!(status(Errno::NOENT), NtStatus::OBJECT_NAME_NOT_FOUND);
    assert_eq!(parent_status(Errno::NOENT), NtStatus::OBJECT_PATH_NOT_FOUND);
    assert_eq!(open_status(Errno::AGAIN), NtStatus::SHARING_VIOLATION);
}
