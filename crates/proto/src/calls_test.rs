//! The table against the declarations: what the build script derives.

use super::*;

macro_rules! lines {
    ($($call:ident, $function:ident, $handler:ident, $request:ident, $reply:ident, $path:literal, $effect:ident,
       $($errors:ident)+;)+) => {
        vec![$((
            stringify!($function),
            stringify!($handler),
            $path,
            Effect::$effect,
            [$(stringify!($errors)),+].join(" "),
        )),+]
    };
}

#[test]
fn a_line_names_the_function_the_handler_and_the_style_of_errors() {
    let lines = for_each_kv_call!(lines);
    let line = |name: &str| lines.iter().find(|line| line.0 == name).expect("it is in the table").clone();
    let expected = [
        ("kv_get", "get", "/tikvpb.Tikv/KvGet", Effect::NoSideEffects, "key"),
        ("kv_commit", "commit", "/tikvpb.Tikv/KvCommit", Effect::Idempotent, "key"),
        ("kv_prewrite", "prewrite", "/tikvpb.Tikv/KvPrewrite", Effect::Idempotent, "keys"),
        ("raw_put", "raw_put", "/tikvpb.Tikv/RawPut", Effect::IdempotencyUnknown, "text"),
        ("raw_scan", "raw_scan", "/tikvpb.Tikv/RawScan", Effect::NoSideEffects, "pairs kvs"),
    ];
    for (function, handler, path, effect, errors) in expected {
        assert_eq!(line(function), (function, handler, path, effect, errors.to_string()));
    }
}

#[test]
fn names_with_runs_of_capitals_are_spelled_as_prost_spells_them() {
    let lines = for_each_placement_call!(lines);
    let line = lines.iter().find(|line| line.0 == "get_gc_safe_point").expect("it is in the table");
    assert_eq!(line.2, "/pdpb.PD/GetGCSafePoint");
    assert!(lines.iter().all(|line| line.0 != "tso"), "streams are not unary calls");
}

#[test]
fn no_write_without_a_timestamp_may_be_repeated_and_every_other_call_may() {
    for (function, _, _, effect, _) in for_each_kv_call!(lines) {
        let writes = |function: &str| ["put", "delete", "compare_and_swap"].iter().any(|verb| function.contains(verb));
        let is_raw_write = function.starts_with("raw_") && writes(function);
        // They delete what was written in between.
        let is_range_delete = ["kv_delete_range", "unsafe_destroy_range"].contains(&function);
        assert_eq!(effect == Effect::IdempotencyUnknown, is_raw_write || is_range_delete, "{function}");
    }
}
