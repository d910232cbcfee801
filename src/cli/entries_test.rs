use super::*;

fn printed(style: Style, entries: &[(&[u8], &[u8])]) -> String {
    let mut out = Vec::new();
    let mut printer = Printer::new(&mut out, style);
    for (key, value) in entries {
        printer.entry(key, value).unwrap();
    }
    printer.finish().unwrap();
    String::from_utf8(out).unwrap()
}

const PEOPLE: Style = Style { hex: false, json: false };

#[test]
fn keys_stand_in_a_column_and_each_entry_is_one_line() {
    assert_eq!(printed(PEOPLE, &[]), "KEY  VALUE\n");
    assert_eq!(
        printed(PEOPLE, &[(b"crew", b"Thor\nKnut"), ("größer".as_bytes(), b"1"), (b"\xff", b"")]),
        "KEY     VALUE\ncrew    Thor\\nKnut\ngrößer  1\n\\xff    \n"
    );
    let hex = Style { hex: true, ..PEOPLE };
    assert_eq!(printed(hex, &[(b"a", b"b")]), "KEY  VALUE\n61   62\n");
}

#[test]
fn the_first_entries_decide_on_the_width() {
    let long = [b'k'; 100];
    let mut entries: Vec<(&[u8], &[u8])> = vec![(b"short", b"v"); FIRST_ENTRIES];
    entries.push((b"a longer one", b"v"));
    let text = printed(PEOPLE, &entries);
    assert!(text.starts_with("KEY    VALUE\nshort  v\n"), "{text}");
    assert!(text.ends_with("short  v\na longer one  v\n"));
    let text = printed(PEOPLE, &[(&long, b"v"), (b"a", b"v")]);
    let widths: Vec<usize> = text.lines().map(str::len).collect();
    assert_eq!(widths, [KEY_CHARS_MAX + 7, 103, KEY_CHARS_MAX + 3], "a long key moves its own value alone");
}

/// What is held does not grow with what is printed.
#[test]
fn after_the_first_entries_nothing_is_held() {
    for (value_bytes, held_max) in [(10, FIRST_ENTRIES), (FIRST_BYTES / 4, 4)] {
        let value = vec![b'v'; value_bytes];
        let mut printer = Printer::new(io::sink(), PEOPLE);
        for _ in 0..2 * FIRST_ENTRIES {
            printer.entry(b"key", &value).unwrap();
            assert!(printer.first.len() < held_max, "{} entries are held", printer.first.len());
        }
        printer.finish().unwrap();
    }
}

#[test]
fn programs_get_a_json_object_for_each_entry() {
    let json = Style { json: true, hex: false };
    assert_eq!(
        printed(json, &[(b"a\n", "ü".as_bytes()), (b"\xff", b"")]),
        "{\"key\":\"a\\n\",\"value\":\"ü\"}\n{\"key\":{\"hex\":\"ff\"},\"value\":\"\"}\n"
    );
    assert_eq!(printed(Style { hex: true, ..json }, &[(b"a", b"b")]), "{\"key\":\"61\",\"value\":\"62\"}\n");
    let quoted = printed(json, &[(b"\"", b"\\")]);
    assert_eq!(quoted, "{\"key\":\"\\\"\",\"value\":\"\\\\\"}\n");
    assert_eq!(printed(json, &[]), "");
}
