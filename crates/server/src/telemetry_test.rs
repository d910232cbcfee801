use super::*;

#[test]
fn levels_and_filters_are_taken_and_nonsense_is_refused() {
    for good in ["error", "warn", "trace", "warn,kontiki_server=debug"] {
        assert!(filter(good).is_ok(), "{good}");
    }
    assert_eq!(filter("debug").unwrap().to_string(), "kontiki=debug,warn");
    for misspelt in ["loud", "wran", "warn,debgu", ""] {
        let error = filter(misspelt).expect_err(misspelt).to_string();
        assert!(error.contains("log-level") && error.contains("is no level"), "{error}");
    }
    assert!(filter("off,kontiki_server=info").is_ok());
    let error = filter("kontiki=loud=er").unwrap_err().to_string();
    assert!(error.contains("log-level") && error.contains("kontiki=loud=er") && error.contains("trace"), "{error}");
}
