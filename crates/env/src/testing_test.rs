use super::*;

#[test]
fn each_address_is_given_once_and_can_be_listened_on() {
    let addresses: Vec<Ipv4Addr> = (0..300).map(|_| loopback_address()).collect();
    let different: std::collections::BTreeSet<_> = addresses.iter().collect();
    assert_eq!(different.len(), addresses.len());
    assert!(addresses.iter().all(|address| address.is_loopback() && *address != Ipv4Addr::LOCALHOST));
    let listener = TcpListener::bind((addresses[0], 20_160)).expect("its ports are free");
    assert!(std::net::TcpStream::connect(listener.local_addr().expect("bound")).is_ok());
}

#[test]
fn a_golden_file_holds_its_bytes_and_leaves_zeros_at_the_end_out() {
    let bytes = [&[1, 2, 0xff, 0, 5][..], &[7; 60], &[0; 1000]].concat();
    let text = golden_text(&bytes);
    assert!(text.starts_with("1065 bytes\n0102ff0005"), "{text}");
    assert_eq!(text.lines().count(), 4);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("golden.hex");
    std::fs::write(&path, text).expect("it can be written");
    assert_eq!(read_golden(&path), bytes);
    check_golden(&path, &bytes);
    let changed = std::panic::catch_unwind(|| check_golden(&path, &bytes[1..]));
    assert!(changed.is_err() || std::env::var_os(UPDATE).is_some(), "another content is found");
}

/// A number of a process that leaves it without addresses would fail its tests once in hundreds of runs.
#[test]
fn every_process_has_addresses() {
    let reserved = Ipv4Addr::new(127, 1, 0, 0);
    for process in (0..70_000).chain([u32::MAX]) {
        let addresses: Vec<_> = (0..300).filter_map(|count| candidate(process, count)).collect();
        assert!(addresses.len() >= 290, "process {process} has {}", addresses.len());
        assert!(addresses.iter().all(|address| address.is_loopback() && *address > reserved));
    }
}
