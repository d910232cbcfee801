//! Ranges of versions.

use super::*;

fn known(store: u64, min: u32, max: u32) -> Known {
    Known { store: StoreId(store), program: format!("0.{max}.0"), versions: Versions { min, max } }
}

#[test]
fn the_newest_common_version_is_used() {
    for (a, b, common) in [((1, 2), (1, 2), 2), ((1, 2), (1, 1), 1), ((1, 2), (2, 3), 2), ((3, 5), (4, 9), 5)] {
        let (a, b) = (known(1, a.0, a.1), known(2, b.0, b.1));
        assert_eq!(a.common(&b), Ok(common));
        assert_eq!(b.common(&a), Ok(common));
    }
}

#[test]
fn stores_without_a_common_version_are_named_with_the_one_to_upgrade() {
    let (new, old) = (known(1, 4, 5), known(2, 2, 3));
    let text = new.common(&old).unwrap_err().to_string();
    assert_eq!(text, old.common(&new).unwrap_err().to_string(), "both say the same");
    for part in
        ["store 1 (kontiki 0.5.0) knows versions 4 to 5", "store 2 (kontiki 0.3.0) knows 2 to 3", "upgrade store 2"]
    {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn a_message_without_a_version_is_from_before_versions() {
    let only_new = Versions { min: 2, max: 3 };
    assert!(Versions::OWN.know(0) && Versions::OWN.know(1) && Versions::OWN.know(Versions::OWN.max));
    assert!(!Versions::OWN.know(Versions::OWN.max + 1));
    assert!(!only_new.know(0) && !only_new.know(1) && only_new.know(2));
}
