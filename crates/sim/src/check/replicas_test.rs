use super::{Difference, compare};
use bytes::Bytes;
use kontiki_engine::{Direction, Entries, Family, Range, Result, View};
use std::collections::BTreeMap;

#[derive(Clone, Default)]
struct Model(BTreeMap<(Family, Bytes), Bytes>);

impl Model {
    fn with(mut self, family: u32, key: &'static str, value: &'static str) -> Model {
        self.0.insert((Family(family), key.into()), value.into());
        self
    }
}

struct Walk(std::vec::IntoIter<(Bytes, Bytes)>);

impl Iterator for Walk {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Ok)
    }
}

impl Entries for Walk {
    fn seek(&mut self, _key: &[u8]) -> Result<()> {
        Err(kontiki_engine::Error::Bug("the comparison never seeks".into()))
    }
}

impl View for Model {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(&(family, Bytes::copy_from_slice(key))).cloned())
    }

    fn entries(&self, family: Family, range: Range, _: Direction) -> Result<Box<dyn Entries>> {
        let own = self.0.iter().filter(|((of, key), _)| *of == family && range.contains(key));
        let entries: Vec<_> = own.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        Ok(Box::new(Walk(entries.into_iter())))
    }
}

fn run(left: &Model, right: &Model) -> std::result::Result<u64, Difference> {
    compare(left, right, &[Family(0), Family(1)], &Range::region(b"", b"m")).unwrap()
}

#[test]
fn equal_replicas_are_equal_within_the_range_and_families() {
    let base = Model::default().with(0, "a", "1").with(1, "b", "2");
    assert_eq!(run(&base, &base), Ok(2));
    assert_eq!(run(&base, &base.clone().with(0, "z", "beyond").with(2, "a", "elsewhere")), Ok(2));
}

#[test]
fn the_first_difference_is_named() {
    let base = Model::default().with(0, "a", "1").with(0, "c", "3");
    let difference = run(&base, &base.clone().with(0, "b", "2")).unwrap_err();
    assert_eq!((difference.key.as_ref(), &difference.left), (&b"b"[..], &None));
    assert_eq!(difference.right.as_deref(), Some(&b"2"[..]));
    let difference = run(&base, &base.clone().with(0, "c", "other")).unwrap_err();
    assert_eq!((difference.left.as_deref(), difference.right.as_deref()), (Some(&b"3"[..]), Some(&b"other"[..])));
    assert!(run(&base.clone().with(1, "x", "9"), &base).is_ok(), "beyond the range");
    assert!(run(&base.clone().with(1, "d", "9"), &base).unwrap_err().to_string().contains("nothing on the other"));
}
