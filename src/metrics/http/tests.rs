use super::*;

/// Returns the response to a request.
fn exchange(request: &[u8], text: Result<String, String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(request).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    answer(&mut stream, || text).unwrap();
    drop(stream);
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    heard
}

#[test]
fn metrics_are_served_and_nothing_else() {
    let ask = |request: &str| exchange(request.as_bytes(), Ok("outlast_opens 1\n".into()));
    let heard = ask("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
    assert!(heard.contains("Content-Length: 16\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\noutlast_opens 1\n"), "{heard}");
    assert!(ask("GET /metrics?x=1 HTTP/1.0\r\n\r\n").contains("200 OK"));
    assert!(ask("GET / HTTP/1.1\r\n\r\n").contains("404 Not Found"));
    assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").contains("405 Method"));
    assert!(ask("\u{1}\u{2}\r\n\r\n").contains("400 Bad Request"));
    let why = exchange(b"GET /metrics HTTP/1.1\r\n\r\n", Err("no server".into()));
    assert!(
        why.contains("503 ") && why.ends_with("no server\n"),
        "{why}"
    );
}

#[test]
fn an_endless_head_is_refused() {
    let head = vec![b'a'; 2 * HEAD_MAX_BYTES];
    // The rest of the request is never read, so the client may receive a reset instead.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(&head).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    answer(&mut stream, || panic!("it is no request")).unwrap();
}
