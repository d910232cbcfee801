use super::*;
use crate::Family;
use crate::table::{FileNumber, TableWriter};
use crate::types::{KeyRef, Kind, SEQUENCE_NUMBER_MAX, TableOptions};
use kontiki_env::SimMachine;

fn write(env: &Env, number: FileNumber) -> Arc<Table> {
    let options = TableOptions::default();
    let mut writer = TableWriter::create(env, Path::new("/"), number, Family(0), options).expect("a healthy disk");
    for i in 0..1000u32 {
        writer.add(KeyRef::new(&i.to_be_bytes(), 1), Kind::Put, b"value").expect("a healthy disk");
    }
    let finished = writer.finish().expect("a healthy disk");
    Arc::new(Table::alone(Family(0), finished.meta().clone()))
}

fn open(tables: &[Arc<Table>]) -> usize {
    tables.iter().filter(|table| table.reader_slot().reader.load().is_some()).count()
}

#[test]
fn a_table_larger_than_the_capacity_stays_open_and_at_most_so_many_files_do() {
    let env = SimMachine::from_seed(1).env();
    for (capacity_bytes, files_max, most) in [(100, 1000, 4), (1 << 20, 8, 8), (1 << 20, 1000, 40)] {
        let tables: Vec<_> = (1..=40).map(|number| write(&env, number + 100 * most)).collect();
        let cache = TableCache::new(&env, Path::new("/"), Arc::new(BlockCache::new(0)), capacity_bytes, files_max);
        for table in &tables {
            let reader = cache.reader(table).expect("whole");
            assert!(reader.memory_bytes() > 1000);
            let again = cache.reader(table).expect("whole");
            assert!(Arc::ptr_eq(&reader, &again), "a table that was just opened is not opened again");
        }
        let open = open(&tables);
        assert!((1..=most as usize).contains(&open), "{open} tables are open, at most {most} may be");
    }
}

#[test]
fn a_table_in_use_stays_and_a_dropped_one_is_swept() {
    let env = SimMachine::from_seed(1).env();
    let mut tables: Vec<_> = (1..=20).map(|number| write(&env, number)).collect();
    let cache = TableCache::new(&env, Path::new("/"), Arc::new(BlockCache::new(0)), 1 << 20, 4);
    let first = cache.reader(&tables[0]).expect("whole");
    for table in &tables[1..] {
        cache.reader(table).expect("whole");
        let again = cache.reader(&tables[0]).expect("whole");
        assert!(Arc::ptr_eq(&first, &again), "what is used between any two others is not closed");
    }
    assert_eq!(open(&tables), 4);
    let bytes = cache.used_bytes();
    tables.drain(1..);
    cache.sweep();
    assert_eq!(cache.used_bytes(), bytes / 4);
}

#[test]
fn threads_share_one_reader_and_one_that_is_closed_under_a_reader_goes_on() {
    let env = SimMachine::from_seed(1).env();
    let tables: Vec<_> = (1..=8).map(|number| write(&env, number)).collect();
    let cache = TableCache::new(&env, Path::new("/"), Arc::new(BlockCache::new(1 << 20)), 1 << 20, 2);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (cache, tables) = (&cache, &tables);
            scope.spawn(move || {
                for step in 0..500u32 {
                    let table = &tables[((step + thread * 3) % 8) as usize];
                    let held = cache.hold(table).expect("whole");
                    let key = (step % 1000).to_be_bytes();
                    let found = held.get(&key, SEQUENCE_NUMBER_MAX).expect("whole").expect("there");
                    assert_eq!(&found.stored[..], b"value");
                }
            });
        }
    });
    assert!(open(&tables) <= 2);
}
