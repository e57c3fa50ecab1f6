//! Tests the layout of every command against bytes written by hand from MS-SMB2.

use super::*;

#[test]
fn requests_of_every_other_command() {
    use Request as R;
    let file_id = "1111111111111111 2222222222222222";
    let cases: Vec<(Command, String, Request)> = vec![
        (Command::LOGOFF, "0400 0000".into(), R::Logoff),
        (
            Command::TREE_DISCONNECT,
            "0400 0000".into(),
            R::TreeDisconnect,
        ),
        (Command::ECHO, "0400 0000".into(), R::Echo),
        (Command::CANCEL, "0400 0000".into(), R::Cancel),
        (
            Command::TREE_CONNECT,
            "0900 0000 4800 0A00 5C00 5C00 7300 5C00 7000".into(),
            R::TreeConnect(tree_connect::Request {
                flags: 0,
                path: "\\\\s\\p".into(),
            }),
        ),
        (
            Command::CLOSE,
            format!("1800 0100 00000000 {file_id}"),
            R::Close(close::Request {
                postquery_attrib: true,
                file_id: ID,
            }),
        ),
        (
            Command::FLUSH,
            format!("1800 0000 00000000 {file_id}"),
            R::Flush(flush::Request { file_id: ID }),
        ),
        (
            Command::READ,
            format!(
                "3100 50 00 00000800 0001000000000000 {file_id} 01000000 00000000 00000000 0000 0000 00"
            ),
            R::Read(read::Request {
                flags: 0,
                length: 0x0008_0000,
                offset: 0x100,
                file_id: ID,
                minimum_count: 1,
                channel: 0,
            }),
        ),
        (
            Command::LOCK,
            format!(
                "3000 0200 25000000 {file_id}
                 0100000000000000 0200000000000000 12000000 00000000
                 0300000000000000 0400000000000000 04000000 00000000"
            ),
            R::Lock(lock::Request {
                lock_sequence_number: 5,
                lock_sequence_index: 2,
                file_id: ID,
                locks: vec![
                    lock::Element {
                        offset: 1,
                        length: 2,
                        flags: 0x12,
                    },
                    lock::Element {
                        offset: 3,
                        length: 4,
                        flags: 4,
                    },
                ],
            }),
        ),
        (
            Command::IOCTL,
            format!(
                "3900 0000 04021400 {file_id} 78000000 03000000 00000000 \
                 78000000 00000000 18000000 01000000 00000000 010203"
            ),
            R::Ioctl(ioctl::Request {
                ctl_code: 0x0014_0204,
                file_id: ID,
                input: Bytes::from_static(&[1, 2, 3]),
                max_input_response: 0,
                max_output_response: 0x18,
                flags: 1,
            }),
        ),
        (
            Command::QUERY_DIRECTORY,
            format!("2100 25 01 00000000 {file_id} 6000 0200 00000100 2A00"),
            R::QueryDirectory(query_directory::Request {
                file_information_class: 0x25,
                flags: 1,
                file_index: 0,
                file_id: ID,
                pattern: "*".into(),
                output_buffer_length: 0x0001_0000,
            }),
        ),
        (
            Command::CHANGE_NOTIFY,
            format!("2000 0100 00100000 {file_id} 17000000 00000000"),
            R::ChangeNotify(change_notify::Request {
                watch_tree: true,
                output_buffer_length: 0x1000,
                file_id: ID,
                completion_filter: 0x17,
            }),
        ),
        (
            Command::QUERY_INFO,
            format!("2900 01 12 00100000 0000 0000 00000000 07000000 00000000 {file_id}"),
            R::QueryInfo(query_info::Request {
                info_type: 1,
                file_info_class: 0x12,
                output_buffer_length: 0x1000,
                additional_information: 7,
                flags: 0,
                file_id: ID,
                input: Bytes::new(),
            }),
        ),
        (
            Command::SET_INFO,
            format!("2100 01 0D 01000000 6000 0000 00000000 {file_id} 01"),
            R::SetInfo(set_info::Request {
                info_type: 1,
                file_info_class: 13,
                additional_information: 0,
                file_id: ID,
                data: Bytes::from_static(&[1]),
            }),
        ),
        (
            Command::OPLOCK_BREAK,
            format!("1800 01 00 00000000 {file_id}"),
            R::OplockBreak(oplock_break::Acknowledgment::Oplock {
                oplock_level: 1,
                file_id: ID,
            }),
        ),
        (
            Command::OPLOCK_BREAK,
            format!("2400 0000 00000000 {file_id} 03000000 0000000000000000"),
            R::OplockBreak(oplock_break::Acknowledgment::Lease {
                lease_key: [[0x11; 8], [0x22; 8]].concat().try_into().unwrap(),
                lease_state: 3,
            }),
        ),
    ];
    for (command, body, expected) in cases {
        assert_eq!(parse(command, &body), Ok(expected), "{command:?}");
        let whole = hex(&body);
        // Another StructureSize.
        let mut wrong = whole.clone();
        wrong[0] += 1;
        assert!(matches!(
            Request::parse(&component(command, &wrong)),
            Err(Malformed::StructureSize { .. })
        ));
        // Truncated at any byte: an error, or (a body with one optional byte) the same result.
        for len in 0..whole.len() - 1 {
            let cut = Request::parse(&component(command, &whole[..len]));
            assert!(cut.is_err(), "{command:?} cut to {len}");
        }
    }
    assert_eq!(
        parse(Command(19), "0400 0000"),
        Err(Malformed::UnknownCommand(19))
    );
    let none = format!("3000 0000 00000000 {file_id} {}", "00".repeat(24));
    assert_eq!(parse(Command::LOCK, &none), Err(Malformed::LockCount(0)));
}

#[test]
fn responses_of_every_other_command() {
    let data = Bytes::from_static(b"abc");
    let cases: Vec<(Response, &str)> = vec![
        (Response::Logoff, "0400 0000"),
        (Response::TreeDisconnect, "0400 0000"),
        (Response::Flush, "0400 0000"),
        (Response::Lock, "0400 0000"),
        (Response::Echo, "0400 0000"),
        (Response::SetInfo, "0200"),
        (
            Response::TreeConnect(tree_connect::Response {
                share_type: 1,
                share_flags: 0x30,
                capabilities: 0,
                maximal_access: 0x001F_01FF,
            }),
            "1000 01 00 30000000 00000000 FF011F00",
        ),
        (
            Response::Close(close::Response { attributes: None }),
            "3C00 0000 00000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000
             0000000000000000 00000000",
        ),
        (
            Response::Close(close::Response {
                attributes: Some(close::Attributes {
                    creation_time: 1,
                    last_access_time: 2,
                    last_write_time: 3,
                    change_time: 4,
                    allocation_size: 5,
                    end_of_file: 6,
                    file_attributes: 7,
                }),
            }),
            "3C00 0100 00000000 0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000
             0600000000000000 07000000",
        ),
        (
            Response::Read(read::Response { data: data.clone() }),
            "1100 50 00 03000000 00000000 00000000 616263",
        ),
        (
            Response::Ioctl(ioctl::Response {
                ctl_code: 0x0014_0204,
                file_id: ID,
                output: data.clone(),
            }),
            "3100 0000 04021400 1111111111111111 2222222222222222 \
             70000000 00000000 70000000 03000000 00000000 00000000 616263",
        ),
        (
            Response::QueryInfo(query_info::Response { data: data.clone() }),
            "0900 4800 03000000 616263",
        ),
        (
            Response::QueryDirectory(query_directory::Response { data: data.clone() }),
            "0900 4800 03000000 616263",
        ),
        (
            Response::ChangeNotify(change_notify::Response { data: Bytes::new() }),
            "0900 0000 00000000",
        ),
        (
            Response::OplockBreak(oplock_break::OplockBreak {
                oplock_level: 1,
                file_id: ID,
            }),
            "1800 01 00 00000000 1111111111111111 2222222222222222",
        ),
        (Response::Error(error::Response::default()), "0900 00 00 00000000 00"),
        (
            Response::Error(error::Response {
                data: data.clone(),
                in_context: false,
            }),
            "0900 00 00 03000000 616263",
        ),
        (
            Response::Error(error::Response {
                data: data.clone(),
                in_context: true,
            }),
            "0900 01 00 0B000000 03000000 00000000 616263",
        ),
    ];
    for (response, expected) in cases {
        assert_eq!(body_of(&response), hex(expected), "{response:?}");
    }
    // READ's data is passed on without a copy.
    let mut out = vec![0; header::LEN];
    let payload = Response::Read(read::Response { data: data.clone() }).encode(&mut out);
    assert_eq!(payload.as_ptr(), data.as_ptr());
}
