use super::*;

#[test]
fn a_permutation_hits_everything_once() {
    for count in [1, 2, 3, 1000, 4096, 4097] {
        let permutation = Permutation::new(count, 7);
        let mut seen: Vec<u64> = (0..count).map(|index| permutation.at(index)).collect();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..count), "{count}");
    }
}

#[test]
fn keys_are_in_the_order_of_indices_and_missing_ones_between() {
    assert!(key(9) < missing_key(9) && missing_key(9) < key(10));
    assert_eq!(index_of(&key(123_456)), 123_456);
}

fn put(model: &Model, index: u64) -> Vec<u8> {
    let mut value = Vec::new();
    model.begin_put(index, &mut value);
    value
}

#[test]
fn answers_between_acknowledged_and_begun_pass() {
    let model = Model::new(10, 100);
    let first = put(&model, 3);
    model.check_missing(model.before_read(3));
    model.check_found(model.before_read(3), &first);
    model.end_write(3);
    let second = put(&model, 3);
    model.check_found(model.before_read(3), &first);
    model.check_found(model.before_read(3), &second);
    model.end_write(3);
    model.begin_delete(3);
    model.check_missing(model.before_read(3));
    model.check_found(model.before_read(3), &second);
    model.end_write(3);
    model.check_missing(model.before_read(3));
    assert_eq!(model.live(), 0);
}

#[test]
#[should_panic(expected = "found version 1")]
fn an_old_version_is_a_wrong_answer() {
    let model = Model::new(10, 100);
    let first = put(&model, 3);
    model.end_write(3);
    put(&model, 3);
    model.end_write(3);
    model.check_found(model.before_read(3), &first);
}

#[test]
#[should_panic(expected = "not found")]
fn a_lost_key_is_a_wrong_answer() {
    let model = Model::new(10, 100);
    put(&model, 3);
    model.end_write(3);
    model.check_missing(model.before_read(3));
}

#[test]
#[should_panic(expected = "damaged")]
fn a_flipped_bit_is_a_wrong_answer() {
    let model = Model::new(10, 100);
    let mut value = put(&model, 3);
    value[77] ^= 4;
    model.check_found(model.before_read(3), &value);
}

#[test]
#[should_panic(expected = "expected states")]
fn a_deleted_key_that_is_back_is_a_wrong_answer() {
    let model = Model::new(10, 100);
    let value = put(&model, 3);
    model.end_write(3);
    model.begin_delete(3);
    model.end_write(3);
    model.check_found(model.before_read(3), &value);
}
