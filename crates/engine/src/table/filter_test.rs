use super::*;

#[test]
fn no_key_is_lost_and_about_one_percent_of_others_pass() {
    let mut writer = FilterWriter::new(10, 0);
    for i in 0..10_000u32 {
        writer.add(format!("key{i}").as_bytes());
        writer.add(format!("key{i}").as_bytes());
    }
    let bytes = writer.bytes();
    let block = writer.finish();
    assert_eq!(block.len(), bytes);
    assert!(block.len() < 10_000 * 10 / 8 + 128);
    let filter = Filter::new(block.into()).expect("well-formed");
    assert!((0..10_000u32).all(|i| filter.may_contain(filter_hash(format!("key{i}").as_bytes()))));
    let passed = (0..10_000u32).filter(|i| filter.may_contain(filter_hash(format!("absent{i}").as_bytes()))).count();
    assert!(passed < 200, "{passed} of 10,000 absent keys pass");
}

#[test]
fn prefixes_are_known_beside_whole_keys() {
    let mut writer = FilterWriter::new(10, 4);
    for i in 0..1000u32 {
        writer.add(format!("{:04}{i:06}", i / 100).as_bytes());
    }
    writer.add(b"abc");
    let filter = Filter::new(writer.finish().into()).expect("well-formed");
    let knows = |text: String| filter.may_contain(filter_hash(text.as_bytes()));
    assert!((0..10).all(|i| knows(format!("{i:04}"))));
    assert!((0..1000).all(|i| knows(format!("{:04}{i:06}", i / 100))) && knows("abc".to_string()));
    let passed = (10..1010).filter(|i| knows(format!("{i:04}"))).count();
    assert!(passed < 30, "{passed} of 1,000 absent prefixes pass");
}

/// The bytes of the format: a change here would let old tables lose keys.
#[test]
fn the_layout_is_frozen() {
    let mut writer = FilterWriter::new(10, 0);
    for i in 0..60u32 {
        writer.add(format!("key{i}").as_bytes());
    }
    let block = writer.finish();
    assert_eq!((block.len(), block.last()), (2 * 64 + 1, Some(&6)));
    assert_eq!(kontiki_env::codec::checksum32(&[&block]), FROZEN_CHECKSUM);
}

const FROZEN_CHECKSUM: u32 = 3_643_186_780;

#[test]
fn an_empty_filter_lets_everything_pass_and_malformed_ones_are_refused() {
    let filter = Filter::new(FilterWriter::new(0, 0).finish().into()).expect("well-formed");
    assert!(filter.may_contain(filter_hash(b"anything")));
    for block in [vec![], vec![0; 64], vec![6; 64], vec![0; 65], vec![17; 65]] {
        assert!(Filter::new(block.into()).is_err());
    }
}
