use super::*;

const ROWS: &str = "
| scenario | tests | what is missing |
|---|---|---|
| **Leadership** | | |
| 1 first | a::b |  |
| 2 second | a::c | |
| 3 third | a::d | it is never late |
| 4 fourth | - | **open**: needs it |
";

fn found(sentence: &str) -> Vec<Finding> {
    check(&Repo::from_files(&[(PAGE, &format!("{sentence}\n{ROWS}"))]))
}

#[test]
fn counts_are_those_of_the_rows() {
    assert!(found("Of 4 scenarios 2 are\nshown, 1 in part, and 1 are open.").is_empty());
    let findings = found("Of 4 scenarios 3 are shown, 0 in part, and 1 are open.");
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].message.contains("2 are shown, 1 in part, and 1 are open"), "{findings:?}");
}
