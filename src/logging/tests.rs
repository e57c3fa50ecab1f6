use super::*;

#[test]
fn a_line_is_one_object_whatever_the_message() {
    let message = "a \"name\"\nof two lines";
    let record = |level| {
        let mut record = Record::builder();
        record.level(level).target("outlast::server");
        record
    };
    let args = format_args!("{message}").to_string();
    let line = object(
        Duration::from_millis(1500),
        7,
        &record(log::Level::Warn)
            .args(format_args!("{args}"))
            .build(),
    );
    let text = line.to_string();
    assert!(!text.contains('\n'), "{text}");
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["message"], message);
    assert_eq!((&read["level"], &read["pid"]), (&json!("warn"), &json!(7)));
    assert_eq!(read["time"], 1.5);
}
