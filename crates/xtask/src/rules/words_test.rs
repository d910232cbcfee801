use super::*;

#[test]
fn unfinished_work_is_found() {
    for word in UNFINISHED {
        let text = format!("fn f() {{ {word} }}\n");
        assert_eq!(check(&Repo::from_files(&[("a.rs", &text)])).len(), 1, "{word}");
    }
}

#[test]
fn machine_paths_are_found_in_code_and_docs() {
    let text = format!("see {}x\n", MACHINE[0]);
    assert_eq!(check(&Repo::from_files(&[("docs/a.md", &text), ("a.rs", &format!("// {text}"))])).len(), 2);
}

#[test]
fn an_ignored_test_needs_a_reason() {
    assert_eq!(check(&Repo::from_files(&[("a.rs", "#[ignore]\nfn f() {}")])).len(), 1);
    assert!(check(&Repo::from_files(&[("a.rs", "#[ignore = \"takes an hour\"]\nfn f() {}")])).is_empty());
}

#[test]
fn vague_words_are_found_whole_and_in_any_case() {
    let (word, better) = VAGUE[9];
    let found = check(&Repo::from_files(&[("docs/a.md", &format!("{} asks\n", word.to_uppercase()))]));
    assert!(found.len() == 1 && found[0].message.contains(better), "{found:?}");
    assert!(check(&Repo::from_files(&[("a.rs", &format!("let {word}_else = 1; // x{word}\n"))])).is_empty());
}
