use super::*;

#[test]
fn text_is_taken_and_shown_as_it_is() {
    assert_eq!(parse("KEY", "grüße", false).unwrap(), "grüße".as_bytes());
    assert_eq!(show("grüße".as_bytes(), false), "grüße");
    assert_eq!(to_json(b"a", false), json!("a"));
}

#[test]
fn hex_goes_both_ways() {
    assert_eq!(parse("KEY", "00fFa1", true).unwrap(), [0x00, 0xff, 0xa1]);
    assert_eq!(show(&[0x00, 0xff, 0xa1], true), "00ffa1");
    assert_eq!(to_json(b"a", true), json!("61"));
}

#[test]
fn what_is_no_hex_is_refused_and_named() {
    for wrong in ["abc", "zz", "ü1"] {
        let failure = parse("KEY", wrong, true).unwrap_err();
        assert!(failure.to_string().contains(wrong), "{failure}");
    }
}

#[test]
fn what_is_no_text_is_escaped() {
    assert_eq!(show(&[b'a', 0, 0xff], false), "a\\x00\\xff");
    assert_eq!(show(b"\x1b[2J", false), "\\x1b[2J", "nothing that moves a terminal's cursor");
    assert_eq!(to_json(&[0xff], false), json!({ "hex": "ff" }));
}

#[test]
fn long_texts_are_cut_at_a_character() {
    assert_eq!(shorten("grüße", 5), "\"grüße\"");
    assert_eq!(shorten("grüße", 3), "\"grü...\"");
}

#[test]
fn a_line_stays_a_line() {
    let line = |bytes: &[u8], hex| {
        let escaped = Escaped::of(bytes, hex);
        let mut out = Vec::new();
        escaped.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(escaped.chars(), text.chars().count());
        text
    };
    assert_eq!(line("grüße \\ \"x\"".as_bytes(), false), "grüße \\ \"x\"", "printable text as it is");
    assert_eq!(line("ü\n\\t\t".as_bytes(), false), "ü\\n\\\\t\\t", "with escapes, a backslash is one as well");
    assert_eq!(line("\u{85}".as_bytes(), false), "\\u{85}", "control characters beyond ASCII");
    assert_eq!(line(&[b'a', b'\n', 0xff], false), "a\\n\\xff");
    assert_eq!(line(b"a\n", true), "610a");
}
