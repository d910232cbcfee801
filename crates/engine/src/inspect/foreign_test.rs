use super::refuse_foreign;
use crate::{Db, Error, Options};
use kontiki_env::SimMachine;
use kontiki_env::fs::{CrashMode, Fs, OpenMode};
use std::path::Path;

const DIR: &str = "/data";

fn touch(fs: &dyn Fs, name: &str) {
    fs.create_dir_all(Path::new(DIR)).unwrap();
    fs.open(&Path::new(DIR).join(name), OpenMode::CreateNew).unwrap();
}

fn answer(names: &[&str]) -> Result<(), String> {
    let env = SimMachine::from_seed(1).env();
    names.iter().for_each(|name| touch(&*env.fs, name));
    match refuse_foreign(&env, Path::new(DIR), &["log"]) {
        Ok(()) => Ok(()),
        Err(Error::InvalidArgument(what)) => Err(what),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_directory_with_foreign_files_is_refused_by_name() {
    for name in ["main.rs", ".git", "tables.csv", "log.1", "CURRENT.bak", "MANIFEST-notours"] {
        let what = answer(&["LOCK", name]).unwrap_err();
        assert!(what.contains(&format!("({name})")) && what.contains("new directory"), "{what}");
    }
}

#[test]
fn what_an_open_that_was_cut_short_leaves_is_no_strangers() {
    assert_eq!(answer(&[]), Ok(()));
    assert_eq!(answer(&["lost+found", "log"]), Ok(()));
    assert_eq!(answer(&["LOCK", "MANIFEST-000001", "CURRENT.tmp", "tables"]), Ok(()));
}

#[test]
fn a_database_may_have_other_files_beside_it() {
    assert_eq!(answer(&["CURRENT", "notes.txt"]), Ok(()));
}

#[test]
fn a_first_open_that_loses_power_at_any_point_leaves_a_directory_that_may_become_a_database() {
    for at in 0.. {
        let machine = SimMachine::from_seed(at);
        machine.fs.power_off_after(at);
        drop(Db::open_in(&machine.env(), Path::new(DIR), Options::default()));
        let was_cut_short = machine.fs.is_off();
        machine.fs.crash(CrashMode::KeepUnsynced);
        refuse_foreign(&machine.env(), Path::new(DIR), &[]).unwrap_or_else(|error| panic!("operation {at}: {error}"));
        if !was_cut_short {
            assert!(at > 5, "an open takes some operations");
            return;
        }
    }
}
