use super::*;
use crate::Family;
use crate::iterator::KeyRef;
use crate::kind::Kind;
use crate::table::{FinishedTable, TableOptions, TableWriter};
use kontiki_env::SimMachine;

fn write(env: &Env, number: FileNumber) -> FinishedTable {
    let options = TableOptions::default();
    let mut writer = TableWriter::create(env, Path::new("/"), number, Family(0), options).expect("a healthy disk");
    for i in 0..1000u32 {
        writer.add(KeyRef::new(&i.to_be_bytes(), 1), Kind::Put, b"value").expect("a healthy disk");
    }
    writer.finish().expect("a healthy disk")
}

#[test]
fn a_table_larger_than_the_capacity_stays_open_and_at_most_so_many_files_do() {
    let env = SimMachine::from_seed(1).env();
    let tables: Vec<_> = (1..=40).map(|number| write(&env, number)).collect();
    for (capacity_bytes, files_max, most) in [(100, 1000, 4), (1 << 20, 8, 8), (1 << 20, 1000, 40)] {
        let cache = TableCache::new(&env, Path::new("/"), Arc::new(BlockCache::new(0)), capacity_bytes, files_max);
        for table in &tables {
            let reader = cache.reader(table.meta()).expect("whole");
            assert!(reader.memory_bytes() > 1000);
            let again = cache.reader(table.meta()).expect("whole");
            assert!(Arc::ptr_eq(&reader, &again), "a table that was just opened is not opened again");
        }
        let open = tables.iter().filter(|table| cache.tables.contains_key(&table.meta().number)).count();
        assert!((1..=most).contains(&open), "{open} tables are open, at most {most} may be");
        let last = tables.last().expect("there are tables").meta();
        cache.forget(last.number);
        assert!(!cache.tables.contains_key(&last.number));
    }
}
