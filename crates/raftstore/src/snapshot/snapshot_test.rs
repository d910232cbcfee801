use super::*;
use crate::consensus::log::Position;
use crate::meta;
use crate::model::families::{DATA_FAMILIES, DEFAULT, FAMILIES, META, PLACEMENT, TXN_WRITE};
use crate::model::{MapView, put_keys_around, region};
use crate::region::Space;
use bytes::Bytes;
use kontiki_engine::{Direction, Entries, Family, Range, View, WriteBatch};
use proptest::prelude::*;
use std::io::{Cursor, Read};

fn sample(space: Space, large: usize) -> MapView {
    let mut batch = WriteBatch::new();
    meta::put_region(META, &mut batch, &region(space));
    meta::put_applied(META, &mut batch, RegionId(3), Position { index: 40, term: 6 });
    put_keys_around(&mut batch);
    batch.put(DEFAULT, b"large", vec![9; large]);
    let mut view = MapView::default();
    view.write(&batch);
    view
}

fn file_of(view: &MapView) -> (SnapshotFile, Vec<u8>) {
    let mut bytes = Vec::new();
    let file = write(&FAMILIES, view, RegionId(3), Content::default(), &mut |part| {
        bytes.extend_from_slice(part);
        Ok(())
    });
    (file.expect("built"), bytes)
}

/// Writes into a map; what is added is there when it is ingested. Values of 3 bytes are not kept in tables.
struct IntoMap<'a> {
    view: &'a mut MapView,
    tables: WriteBatch,
    ingested: usize,
    /// The batches and ingests that are carried out before it fails.
    steps_left: usize,
}

impl IntoMap<'_> {
    fn step(&mut self) -> kontiki_engine::Result<()> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or(kontiki_engine::Error::Closed)?;
        Ok(())
    }
}

impl InstallTarget for IntoMap<'_> {
    fn commit(&mut self, batch: WriteBatch) -> kontiki_engine::Result<()> {
        self.step()?;
        self.view.write(&batch);
        Ok(())
    }

    fn is_kept_in_tables(&self, _: Family, value_bytes: usize) -> bool {
        value_bytes != 3
    }

    fn add(&mut self, family: Family, key: &[u8], value: &[u8], _: Option<u64>) -> kontiki_engine::Result<()> {
        let last = self.tables.ops().last().map(|op| (op.family().0, op.key().to_vec()));
        assert!(last < Some((family.0, key.to_vec())) && self.is_kept_in_tables(family, value.len()));
        self.tables.put(family, key, value);
        Ok(())
    }

    fn ingest(&mut self) -> kontiki_engine::Result<()> {
        self.step()?;
        self.ingested += self.tables.len();
        self.view.write(&std::mem::take(&mut self.tables));
        Ok(())
    }
}

/// Returns how many entries were ingested.
fn install_some(
    view: &mut MapView,
    id: SnapshotId,
    bytes: &[u8],
    tables_from: Option<u64>,
    steps_left: usize,
) -> Result<usize, SnapshotError> {
    let before = view.clone();
    let bytes = bytes.to_vec();
    let mut open = || -> std::io::Result<Box<dyn Read>> { Ok(Box::new(Cursor::new(bytes.clone()))) };
    let mut target = IntoMap { view, tables: WriteBatch::new(), ingested: 0, steps_left };
    install(&FAMILIES, &before, id, tables_from, &mut open, &mut target)?;
    Ok(target.ingested)
}

/// By batches and as tables: the result must be the same.
fn install_into(view: &mut MapView, id: SnapshotId, bytes: &[u8]) -> Result<(), SnapshotError> {
    let before = view.clone();
    assert_eq!(install_some(view, id, bytes, None, usize::MAX)?, 0);
    for tables_from in [0, 1, 100, 1000, u64::MAX] {
        let mut other = before.clone();
        let ingested = install_some(&mut other, id, bytes, Some(tables_from), usize::MAX)?;
        assert!(ingested > 0 || tables_from > 0);
        assert_eq!(*view, other);
    }
    Ok(())
}

#[test]
fn an_installed_snapshot_is_the_region_and_nothing_else() {
    for large in [10, frame::FRAME_BYTES - 1, 3 * frame::FRAME_BYTES] {
        let source = sample(Space::Data, large);
        let (file, bytes) = file_of(&source);
        assert_eq!((file.id, file.bytes), (SnapshotId { region: RegionId(3), term: 6, index: 40 }, bytes.len() as u64));
        assert_eq!(file.clone().numbered(7).name().file_name(), "3/6-40-7.snap");
        assert_eq!(verify(&FAMILIES, &mut bytes.as_slice()).expect("whole"), file);

        let mut target = MapView::default();
        let mut old = WriteBatch::new();
        old.put(DEFAULT, b"b", b"old");
        old.put(TXN_WRITE, b"gone", b"old");
        old.put(DEFAULT, b"a neighbour's", b"stays");
        target.write(&old);
        install_into(&mut target, file.id, &bytes).expect("installed");

        let mut expected = source.clone();
        let data = |family: u32| DATA_FAMILIES.iter().any(|own| own.0 == family);
        expected.0.retain(|(family, key), _| !data(*family) || region(Space::Data).contains(key));
        expected.0.retain(|(family, _), _| *family != PLACEMENT.0);
        expected.0.insert((0, b"a neighbour's".to_vec()), Bytes::from_static(b"stays"));
        assert_eq!(target, expected);
    }
}

#[test]
fn a_system_region_carries_its_own_family() {
    let (file, bytes) = file_of(&sample(Space::System, 10));
    let mut target = MapView::default();
    install_into(&mut target, file.id, &bytes).expect("installed");
    let placement = target.0.keys().filter(|(family, _)| *family == PLACEMENT.0).count();
    assert_eq!((placement, target.0.len()), (3, 5), "b, c, w; and two keys of meta");
}

#[test]
fn corrupt_file() {
    let (file, bytes) = file_of(&sample(Space::Data, 100));
    for at in 0..bytes.len() {
        for bit in [0, 3, 7] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let error = verify(&FAMILIES, &mut damaged.as_slice()).expect_err("a flipped bit is seen");
            assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
            for tables_from in [None, Some(0)] {
                let mut target = MapView::default();
                assert!(install_some(&mut target, file.id, &damaged, tables_from, usize::MAX).is_err());
                assert!(target.0.is_empty(), "nothing of a damaged file is written");
            }
        }
    }
    for length in 0..bytes.len() {
        assert!(verify(&FAMILIES, &mut &bytes[..length]).is_err(), "cut at {length}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(verify(&FAMILIES, &mut longer.as_slice()).is_err());
}

#[test]
fn a_frame_that_is_missing_or_moved_is_seen() {
    let (_, bytes) = file_of(&sample(Space::Data, 100));
    let mut frames = vec![];
    let mut rest = &bytes[frame::MAGIC.len()..];
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[1..5].try_into().expect("four")) as usize + frame::HEAD_BYTES;
        frames.push(&rest[..length]);
        rest = &rest[length..];
    }
    assert_eq!(frames.len(), 6, "header, four families, end");
    for at in 0..frames.len() {
        let without: Vec<&[u8]> = frames.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, f)| *f).collect();
        let file = [frame::MAGIC.as_slice(), &without.concat()].concat();
        assert!(verify(&FAMILIES, &mut file.as_slice()).is_err(), "without frame {at}");
    }
    frames.swap(1, 2);
    let file = [frame::MAGIC.as_slice(), &frames.concat()].concat();
    assert!(verify(&FAMILIES, &mut file.as_slice()).is_err(), "two frames in another order");
}

#[test]
fn a_file_of_another_position_is_not_installed() {
    let (file, bytes) = file_of(&sample(Space::Data, 10));
    let other = SnapshotId { index: 41, ..file.id };
    for tables_from in [None, Some(0)] {
        let installed = install_some(&mut MapView::default(), other, &bytes, tables_from, usize::MAX);
        let error = installed.expect_err("another");
        assert!(matches!(error, SnapshotError::Other { found, expected } if found == file.id && expected == other));
    }
}

/// Files of version 1 stay readable: this is one, as it was written.
#[test]
fn the_format_is_what_it_was() {
    let mut batch = WriteBatch::new();
    meta::put_region(META, &mut batch, &region(Space::Data));
    meta::put_applied(META, &mut batch, RegionId(3), Position { index: 40, term: 6 });
    batch.put(DEFAULT, b"k", b"value");
    batch.put(TXN_WRITE, b"k", b"");
    let mut view = MapView::default();
    view.write(&batch);
    let (file, bytes) = file_of(&view);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        text,
        "4b4f4e54534e5001011a000000e76a0dbe082810061a1408031201621a0178200128023204081f1001380102090000009991c37900016b0576616c75650205000000a8968b2bf27f016b00031400000019598f060200000000000000020000000000000008b92a1b"
    );
    assert_eq!(verify(&FAMILIES, &mut bytes.as_slice()).expect("whole"), file);

    // A file from before the families had reserved numbers is read with the present numbers.
    let earlier = "4b4f4e54534e5001011a000000e76a0dbe082810061a1408031201621a0178200128023204081f1001380102090000009991c37900016b0576616c756502040000006745cbd903016b000314000000135b5426020000000000000002000000000000006b05159e";
    let earlier = hex(earlier);
    let mut input = earlier.as_slice();
    let mut reader = read::SnapshotReader::new(&FAMILIES, &mut input).expect("a snapshot file");
    let mut found = Vec::new();
    while let Some(frame) = reader.next().expect("sound") {
        found.push((frame.family, frame.entries.len()));
    }
    assert_eq!(found, [(DEFAULT, 1), (TXN_WRITE, 1)]);
}

/// A view in which keys that end with a digit expire, at 1000 times the digit.
struct Expiring(MapView);

struct ExpiringEntries {
    entries: Box<dyn Entries>,
    last: Option<Bytes>,
}

impl View for Expiring {
    fn get(&self, family: Family, key: &[u8]) -> kontiki_engine::Result<Option<Bytes>> {
        self.0.get(family, key)
    }

    fn entries(&self, family: Family, range: Range, to: Direction) -> kontiki_engine::Result<Box<dyn Entries>> {
        Ok(Box::new(ExpiringEntries { entries: self.0.entries(family, range, to)?, last: None }))
    }
}

impl Iterator for ExpiringEntries {
    type Item = kontiki_engine::Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.entries.next();
        self.last = next.as_ref().and_then(|entry| entry.as_ref().ok()).map(|(key, _)| key.clone());
        next
    }
}

impl Entries for ExpiringEntries {
    fn seek(&mut self, key: &[u8]) -> kontiki_engine::Result<()> {
        self.entries.seek(key)
    }

    fn expires_at_ms(&self) -> Option<u64> {
        expiry_of(self.last.as_ref()?)
    }
}

fn expiry_of(key: &[u8]) -> Option<u64> {
    key.last().filter(|last| last.is_ascii_digit()).map(|last| 1000 * u64::from(last - b'0' + 1))
}

/// The kinds of the data frames say where entries expire, and each entry says when.
#[test]
fn entries_keep_their_expiry() {
    let mut batch = WriteBatch::new();
    meta::put_region(META, &mut batch, &region(Space::Data));
    meta::put_applied(META, &mut batch, RegionId(3), Position { index: 40, term: 6 });
    for key in ["k", "k1", "k2", "l", "m"] {
        batch.put(DEFAULT, key, key);
    }
    batch.put(DEFAULT, "o", vec![1; frame::FRAME_BYTES]);
    batch.put(DEFAULT, "p", "stays");
    batch.put(TXN_WRITE, "k3", "");
    let mut view = MapView::default();
    view.write(&batch);
    let mut bytes = Vec::new();
    let written = write(&FAMILIES, &Expiring(view), RegionId(3), Content::default(), &mut |part| {
        bytes.extend_from_slice(part);
        Ok(())
    });
    let file = written.expect("built");
    assert_eq!(verify(&FAMILIES, &mut bytes.as_slice()).expect("whole"), file);
    let mut input = bytes.as_slice();
    let mut reader = read::SnapshotReader::new(&FAMILIES, &mut input).expect("a snapshot file");
    let mut frames = Vec::new();
    while let Some(frame) = reader.next().expect("sound") {
        let is_right = |entry: &read::Entry| entry.expires_at_ms == expiry_of(&entry.key);
        assert!(frame.entries.iter().all(is_right), "each entry expires when it did");
        let keys = frame.entries.iter().map(|entry| String::from_utf8_lossy(&entry.key).into_owned());
        frames.push((frame.family, keys.collect::<Vec<_>>().join(" ")));
    }
    // A frame without expiry ends where an entry expires, and that one goes on until it is full.
    let expected = [(DEFAULT, "k"), (DEFAULT, "k1 k2 l m o"), (DEFAULT, "p"), (TXN_WRITE, "k3")];
    assert_eq!(frames, expected.map(|(family, keys)| (family, keys.to_owned())));
    // Kind, length, checksum; then family, key, expiry, value.
    let golden = "04 08000000 f90a393b f27f 026b33 a01f 00";
    let golden: Vec<u8> = golden.split(' ').flat_map(hex).collect();
    let end = frame::HEAD_BYTES + 20;
    let last = &bytes[bytes.len() - end - golden.len()..bytes.len() - end];
    assert_eq!(last, golden, "{last:02x?}");
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex")).collect()
}

/// Values by the index of a family and a key.
type Contents = std::collections::BTreeMap<(usize, String), Vec<u8>>;

fn any_contents() -> impl Strategy<Value = Contents> {
    prop::collection::btree_map((0_usize..4, "[a-z]{1,2}"), prop::collection::vec(any::<u8>(), 0..6), 0..40)
}

proptest! {
    /// Whatever the region held before, and wherever earlier installs ended: the result is the snapshot, and the
    /// applied position comes with the last step.
    #[test]
    fn any_contents_are_installed_over_any_others_after_any_ends(
        contents in any_contents(),
        old in any_contents(),
        ends in prop::collection::vec((prop::option::of(0_u64..60), 0_usize..7), 0..4),
    ) {
        let fill = |entries: &Contents, index| {
            let mut batch = WriteBatch::new();
            for ((family, key), value) in entries {
                batch.put(DATA_FAMILIES[*family], key, value);
            }
            meta::put_region(META, &mut batch, &region(Space::Data));
            meta::put_applied(META, &mut batch, RegionId(3), Position { index, term: 6 });
            let mut view = MapView::default();
            view.write(&batch);
            view
        };
        let (source, mut target) = (fill(&contents, 40), fill(&old, 20));
        let (file, bytes) = file_of(&source);
        let is_own = |key: &[u8]| region(Space::Data).contains(key);
        let mut expected = fill(&old, 40);
        expected.0.retain(|(family, key), _| *family == META.0 || !is_own(key));
        let new = source.0.iter().filter(|((family, key), _)| *family != META.0 && is_own(key));
        expected.0.extend(new.map(|(key, value)| (key.clone(), value.clone())));
        for (tables_from, steps) in ends {
            if install_some(&mut target, file.id, &bytes, tables_from, steps).is_ok() {
                prop_assert_eq!(&target, &expected);
                break;
            }
            let applied = meta::applied_position(META, &target, RegionId(3)).expect("readable");
            prop_assert_eq!(applied, Some(Position { index: 20, term: 6 }));
        }
        let mut other = target.clone();
        install_some(&mut target, file.id, &bytes, None, usize::MAX).expect("installed");
        install_some(&mut other, file.id, &bytes, Some(10), usize::MAX).expect("installed");
        prop_assert_eq!(&target, &expected);
        prop_assert_eq!(&other, &expected);
    }

    #[test]
    fn reading_anything_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(verify(&FAMILIES, &mut bytes.as_slice()).is_err());
        let file = [frame::MAGIC.as_slice(), &bytes].concat();
        prop_assert!(verify(&FAMILIES, &mut file.as_slice()).is_err());
        let framed = [frame::MAGIC.as_slice(), &frame::encode(frame::KIND_HEADER, &bytes)].concat();
        prop_assert!(verify(&FAMILIES, &mut framed.as_slice()).is_err());
    }
}
