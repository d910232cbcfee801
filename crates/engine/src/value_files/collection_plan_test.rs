use super::*;
use proptest::prelude::*;

fn file(number: u64, bytes: u64, referred: u64) -> CollectionCandidate {
    CollectionCandidate { number, bytes, referred }
}

#[test]
fn dead_files_go_first_and_without_regard_to_ratios() {
    let files = [file(1, 100, 100), file(2, 1, 0), file(3, 100, 10), file(4, 50, 0)];
    assert_eq!(plan(&files, 99, 100), CollectionPlan::Drop(vec![2, 4]));
}

#[test]
fn little_garbage_is_left_alone() {
    assert_eq!(plan(&[], 25, 100), CollectionPlan::Rest);
    assert_eq!(plan(&[file(1, 100, 50), file(2, 100, 100)], 25, 100), CollectionPlan::Rest, "just a quarter");
    assert_eq!(plan(&[file(1, 100, 49), file(2, 100, 100)], 25, 100), CollectionPlan::Relocate(vec![1]));
    assert_eq!(plan(&[file(1, 100, 500)], 0, 100), CollectionPlan::Rest, "referred to more often than there are bytes");
}

#[test]
fn the_worst_are_gathered_into_one_file() {
    let files = [file(1, 100, 90), file(2, 100, 20), file(3, 100, 60), file(4, 100, 30), file(5, 100, 30)];
    assert_eq!(
        plan(&files, 25, 100),
        CollectionPlan::Relocate(vec![2, 4, 5]),
        "80 bytes are live in these, and that is enough"
    );
    assert_eq!(plan(&files, 25, 60), CollectionPlan::Relocate(vec![2, 4]), "as many as fit");
    assert_eq!(plan(&files, 25, 5), CollectionPlan::Relocate(vec![2]), "one at least");
}

#[test]
fn hidden_garbage_counts_from_some_segments_on() {
    assert!(!hides_too_much(200, 300, 100) && hides_too_much(201, 300, 100));
    assert!(!hides_too_much(1200, 10_000, 100) && hides_too_much(1201, 10_000, 100));
}

proptest! {
    /// Carried out again and again, with nothing written in between, the plan comes to rest, and then garbage is within
    /// its share.
    #[test]
    fn carrying_out_plans_comes_to_rest(
        files in proptest::collection::vec((1u64..1000, 0u64..1200), 0..20),
        percent in 0u64..90,
    ) {
        let mut files: Vec<CollectionCandidate> =
            files.iter().enumerate().map(|(i, (bytes, referred))| file(i as u64, *bytes, *referred)).collect();
        let mut next = 1000;
        for _ in 0..100 {
            match plan(&files, percent, 1000) {
                CollectionPlan::Rest => break,
                CollectionPlan::Drop(dead) => {
                    prop_assert!(files.iter().all(|file| dead.contains(&file.number) == (file.referred == 0)));
                    files.retain(|file| !dead.contains(&file.number));
                }
                CollectionPlan::Relocate(chosen) => {
                    let (moved, kept): (Vec<_>, Vec<_>) =
                        files.iter().copied().partition(|file: &CollectionCandidate| chosen.contains(&file.number));
                    prop_assert_eq!(moved.len(), chosen.len());
                    prop_assert!(moved.iter().any(|file| file.garbage() > 0));
                    let live = moved.iter().map(|file| file.bytes - file.garbage()).sum();
                    files = kept;
                    files.push(file(next, live, live));
                    next += 1;
                }
            }
        }
        prop_assert_eq!(plan(&files, percent, 1000), CollectionPlan::Rest);
        let total: u64 = files.iter().map(|file| file.bytes).sum();
        prop_assert!(files.iter().map(CollectionCandidate::garbage).sum::<u64>() * 100 <= total * percent);
    }
}
