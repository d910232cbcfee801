use super::*;

#[test]
fn a_key_is_shown_in_quotes_and_a_long_one_by_its_beginning_and_length() {
    assert_eq!(KeyText(b"crew/1").to_string(), "\"crew/1\"");
    assert_eq!(KeyText(b"\x00\xff\"").to_string(), r#""\x00\xff\"""#);
    assert_eq!(KeyText(&[b'k'; 48]).to_string(), format!("\"{}\"", "k".repeat(48)));
    let long = KeyText(&[b'k'; 65_536]).to_string();
    assert_eq!(long, format!("\"{}...\" (65536 bytes)", "k".repeat(48)));
}
