//! Renewal of the files.
#![allow(clippy::disallowed_methods)] // tests may touch files

use super::*;
use crate::test_authority::{Authority, expired};
use std::fs;

const ADDRESS: &str = "127.0.0.1:20160";

#[test]
fn changed_files_are_used_once_all_of_them_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "one");
    let files = authority.issue("node", |params| params.not_after = rcgen::date_time_ymd(2100, 3, 1));
    let credentials = Credentials::of_node(Env::real(), files.clone(), ADDRESS, ClientCertificates::Required).unwrap();
    let first = credentials.expires_at();
    assert!(matches!(credentials.reload(), Reload::Unchanged));

    // A renewal replaces one file after the other.
    let renewed = authority.issue("renewed", |params| params.not_after = rcgen::date_time_ymd(2101, 3, 1));
    let ((cert, key), (new_cert, new_key)) = (files.own.unwrap(), renewed.own.unwrap());
    fs::copy(new_cert, &cert).unwrap();
    assert!(matches!(credentials.reload(), Reload::Failed(TlsError::KeyMismatch { .. })));
    assert_eq!(credentials.expires_at(), first);
    fs::copy(new_key, &key).unwrap();
    assert!(matches!(credentials.reload(), Reload::Renewed));
    assert_eq!(credentials.expires_at(), first.map(|seconds| seconds + 365 * 86_400));
    assert!(matches!(credentials.reload(), Reload::Unchanged));

    let (old, _) = authority.issue("old", expired).own.unwrap();
    fs::copy(old, &cert).unwrap();
    assert!(matches!(credentials.reload(), Reload::Failed(_)), "an old certificate replaces no good one");
    fs::remove_file(&cert).unwrap();
    assert!(matches!(credentials.reload(), Reload::Failed(TlsError::Unreadable { .. })));
    assert!(credentials.grpc_acceptor().is_some());
}

#[test]
fn what_is_printed_for_debugging_has_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::new(folder.path(), "one").issue("node", |_| ());
    let key = fs::read_to_string(&files.own.as_ref().unwrap().1).unwrap();
    let credentials = Credentials::of_client(Env::real(), files).unwrap();
    let text = format!("{credentials:?}");
    assert!(text.contains("node.key.pem"), "{text}");
    let secret = key.lines().nth(1).unwrap();
    assert!(!text.contains(secret));
}
