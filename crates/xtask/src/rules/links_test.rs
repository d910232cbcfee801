use super::*;

const GUIDE: &str = "# The guide\n\n## Two words, one `comma`\n";

fn found(text: &str) -> Vec<Finding> {
    check(&Repo::from_files(&[("docs/a.md", text), ("docs/guide.md", GUIDE), ("src/main.rs", "")]))
}

#[test]
fn links_that_lead_somewhere_pass() {
    for text in [
        "[a](guide.md)",
        "[a](../src/main.rs)",
        "[a](guide.md#two-words-one-comma)",
        "# Here\n[a](#here)",
        "[a](https://example.org/x)",
        "`[a](nowhere.md)`",
        "```\n[a](nowhere.md)\n```",
        "[root](../)",
    ] {
        assert!(found(text).is_empty(), "{text}: {:?}", found(text));
    }
}

#[test]
fn links_that_lead_nowhere_are_found_with_their_line() {
    for text in ["\n[a](nowhere.md)", "\n[a](guide.md#no-such)", "\nsee [b](guide.md) and [a](../guide.md)"] {
        let found = found(text);
        assert_eq!((found.len(), found[0].line), (1, 2), "{text}");
    }
}
