use super::*;

#[test]
fn names_that_are_short_stay() {
    for name in [
        "a",
        "a.t",
        "README.TXT",
        "12345678.abc",
        ".a",
        "a~1",
        "$x-_!.{}",
    ] {
        assert!(is_short(name), "{name}");
        assert_eq!(short_name(name), name);
    }
}

#[test]
fn a_computed_name_may_be_one_and_has_the_form_of_one() {
    let long = [
        "longer-than-8",
        "a.long",
        "a.b.c",
        "ä",
        "a b",
        "a.",
        "con",
        "COM1.txt",
        "",
        "ümlaut.pdf",
        "\u{F022}x.y",
        "a.ü",
        "名前",
    ];
    for name in long {
        assert!(!is_short(name), "{name}");
        let short = short_name(name);
        assert!(
            is_short(&short) && may_be_computed(&short),
            "{name}: {short}"
        );
        assert!(may_be_computed(&short.to_lowercase()));
    }
    for other in [
        "",
        "abcdef~",
        "abcdefg~",
        "abcdef~1.",
        "abcdef~1.text",
        "abcdef~1x",
        "ab.def~1",
        "äbcde~1",
    ] {
        assert!(!may_be_computed(other) || other == "abcdef~1.", "{other}");
    }
}

#[test]
fn case_does_not_count() {
    assert_eq!(short_name("A long name.txt"), short_name("a LONG name.TXT"));
    assert_ne!(
        short_name("a long name.txt"),
        short_name("a long name2.txt")
    );
}

/// The names are those that Debian's Samba 4.17 returns for smbclient's `altname`.
#[test]
fn computed_names_are_those_of_samba() {
    for (name, short) in [
        ("a long name.txt", "AA2NT9~L.TXT"),
        ("Long Name With CAPS.TXT", "LWELXT~F.TXT"),
        ("a.b.c", "A1KYDY~M.C"),
        ("ümlaut.pdf", "_V1234~Z.PDF"),
        ("名前.doc", "_RHKGG~6.DOC"),
        ("con", "CSHOFG~F"),
        ("COM1.txt", "CR23RR~9.TXT"),
        ("file.text", "FH4QEJ~M"),
        ("x y", "X9DHUH~I"),
        ("naïve über.ü", "N3DLVW~E"),
        (".hidden file", "_6G3X1~X"),
        ("trailing~tilde.c", "T9P2ER~P.C"),
        ("ends with dot.", "E9RD9K~M"),
        ("nodotbutlongname", "NPXR9A~T"),
        ("a+b.txt", "A0QZKZ~5.TXT"),
        ("archive.tar.gz", "A8G37E~6.GZ"),
        ("ends with blank ", "EDSEI0~P"),
        ("ends with dot\u{F029}", "E9RD9K~M"),
        ("ends with blank\u{F028}", "EDSEI0~P"),
        ("UPPER.ÄÖ", "UWVYMW~5"),
        ("straße ſ ı.txt", "S7B77Z~F.TXT"),
        ("ı long name", "_234JG~B"),
    ] {
        assert_eq!(short_name(name), short, "{name}");
    }
    assert_eq!(short_name(&format!("{}.html", "z".repeat(200))), "ZHZENN~U");
}
