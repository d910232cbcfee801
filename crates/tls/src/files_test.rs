//! Each kind of wrong file, and that its error names the file and the remedy.
#![allow(clippy::disallowed_methods)] // tests may touch files

use super::*;
use crate::test_authority::{Authority, expired};
use crate::{ClientCertificates, Credentials};
use kontiki_env::Env;
use rcgen::ExtendedKeyUsagePurpose;
use std::fs;

const ADDRESS: &str = "127.0.0.1:20160";

fn node(files: &TlsFiles) -> Result<Arc<Credentials>, TlsError> {
    Credentials::of_node(Env::real(), files.clone(), ADDRESS, ClientCertificates::Required)
}

fn refusal(files: &TlsFiles) -> String {
    node(files).expect_err("it cannot be used").to_string()
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn a_certificate_of_the_authority_is_used_and_its_end_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "one");
    let files = authority.issue("node", |params| params.not_after = rcgen::date_time_ymd(2100, 3, 1));
    assert_eq!(node(&files).unwrap().expires_at(), Some(4_107_542_400));
    let client = TlsFiles { own: None, ..files };
    assert_eq!(Credentials::of_client(Env::real(), client).unwrap().expires_at(), None);
}

#[test]
fn files_that_are_missing_or_contain_something_else_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "one");
    let files = authority.issue("node", |_| ());
    let (cert, key) = files.own.clone().unwrap();
    let missing = folder.path().join("missing.pem");
    let with = |ca: &Path, cert: &Path, key: &Path| {
        refusal(&TlsFiles { ca: ca.to_path_buf(), own: Some((cert.to_path_buf(), key.to_path_buf())) })
    };
    contains(&with(&missing, &cert, &key), &["ca-file = ", "missing.pem", "No such file", "PEM"]);
    contains(&with(&files.ca, &missing, &key), &["cert-file = ", "missing.pem", "No such file"]);
    contains(&with(&files.ca, &cert, &missing), &["key-file = ", "missing.pem", "No such file"]);
    // The two files exchanged, a usual mistake.
    contains(&with(&files.ca, &key, &cert), &["cert-file = ", "node.key.pem", "no certificate", "BEGIN CERTIFICATE"]);
    contains(&with(&files.ca, &cert, &cert), &["key-file = ", "node.cert.pem", "no private key", "BEGIN PRIVATE KEY"]);
    let damaged = folder.path().join("damaged.pem");
    fs::write(&damaged, "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n").unwrap();
    contains(&with(&damaged, &cert, &key), &["ca-file = ", "damaged.pem", "not valid PEM"]);
    fs::write(&damaged, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    contains(&with(&damaged, &cert, &key), &["ca-file = ", "damaged.pem", "invalid"]);
    contains(&with(&files.ca, &damaged, &key), &["damaged.pem"]);
}

#[test]
fn a_key_of_another_certificate_is_refused_with_both_files() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "one");
    let (cert, _) = authority.issue("first", |_| ()).own.unwrap();
    let (_, key) = authority.issue("second", |_| ()).own.unwrap();
    let error = refusal(&TlsFiles { ca: authority.ca(), own: Some((cert, key)) });
    contains(&error, &["first.cert.pem", "second.key.pem", "does not match"]);
}

#[test]
fn certificates_that_others_would_refuse_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "one");
    let other = Authority::new(folder.path(), "two");
    let error = refusal(&authority.issue("old", expired));
    contains(&error, &["old.cert.pem", "expired at 2002-02-03 00:00:00 UTC", "issue a new one"]);
    let error = refusal(&authority.issue("early", |params| {
        params.not_before = rcgen::date_time_ymd(2999, 1, 1);
        params.not_after = rcgen::date_time_ymd(3000, 1, 1);
    }));
    contains(&error, &["early.cert.pem", "not valid before 2999-01-01", "clock"]);
    let foreign = TlsFiles { ca: authority.ca(), ..other.issue("foreign", |_| ()) };
    contains(&refusal(&foreign), &["foreign.cert.pem", "not signed", "one.ca.pem"]);
    let error = refusal(&authority.issue("server", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    }));
    contains(&error, &["server.cert.pem", "clientAuth"]);
    let files = authority.issue("node", |_| ());
    let elsewhere = Credentials::of_node(Env::real(), files, "db1.example:20160", ClientCertificates::Required);
    let error = elsewhere.expect_err("another name").to_string();
    contains(&error, &["node.cert.pem", "not valid for db1.example", "localhost", "subject alternative name"]);
}

#[test]
fn a_client_learns_that_its_certificate_has_expired() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "one");
    let error = Credentials::of_client(Env::real(), authority.issue("old", expired)).expect_err("expired");
    contains(&error.to_string(), &["old.cert.pem", "expired at 2002-02-03"]);
}

#[test]
fn options_that_go_together_are_named() {
    let file = || Some(PathBuf::from("file"));
    assert_eq!(TlsFiles::of_node(None, None, None).unwrap(), None);
    assert!(TlsFiles::of_node(file(), file(), file()).unwrap().is_some());
    assert!(TlsFiles::of_client(file(), None, None).unwrap().is_some_and(|files| files.own.is_none()));
    let error = TlsFiles::of_node(None, file(), None).unwrap_err().to_string();
    contains(&error, &["--cert-file is given without --ca-file and --key-file"]);
    let error = TlsFiles::of_client(file(), None, file()).unwrap_err().to_string();
    contains(&error, &["--ca-file and --key-file is given without --cert-file", "ca-file alone"]);
}

#[test]
fn hosts_of_addresses() {
    assert_eq!(host_of("db1:20160"), "db1");
    assert_eq!(host_of("127.0.0.1:20160"), "127.0.0.1");
    assert_eq!(host_of("[::1]:20160"), "::1");
}
