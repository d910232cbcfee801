use super::*;
use kontiki_env::fs::{File, FileLock, Fs, OpenMode};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A file system with one file: enough for loading a configuration.
struct OneFile(&'static str);

impl File for OneFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = &self.0.as_bytes()[offset as usize..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

impl Fs for OneFile {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        assert_eq!(mode, OpenMode::Read);
        if path == Path::new("kontiki.toml") {
            Ok(Arc::new(OneFile(self.0)))
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(vec!["kontiki.toml".into()])
    }
    fn exists(&self, path: &Path) -> bool {
        path == Path::new("kontiki.toml")
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn lock(&self, _: &Path, _: &str) -> io::Result<Box<dyn FileLock>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn lock_to_read(&self, _: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        Ok(None)
    }
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(0)
    }
}

fn resolve(toml: &str) -> Result<ServeConfig, String> {
    let options: ServeOptions = toml::from_str(toml).map_err(|error| error.to_string())?;
    options.resolve().map_err(|error| error.to_string())
}

#[test]
fn nothing_given_is_one_node_on_this_machine() {
    let config = resolve("").unwrap();
    assert_eq!(config.grpc_address.to_string(), GRPC_ADDRESS_DEFAULT);
    assert_eq!(config.status_address.to_string(), STATUS_ADDRESS_DEFAULT);
    assert_eq!(config.node.data_dir, PathBuf::from(DATA_DIR_DEFAULT));
    assert_eq!(config.node.members, BTreeMap::from([(1, GRPC_ADDRESS_DEFAULT.to_owned())]));
    assert_ne!(config.node.cluster_id, 0);
    assert_eq!(config.node.raft, RaftOptions::default());
    assert_eq!(config.node.engine, EngineOptions::default());
    assert_eq!(config.node.cluster_id, NodeConfig::single("d", "h:1").cluster_id);
}

#[test]
fn a_flag_wins_over_the_file() {
    let fs = OneFile("store-id = 3\ntick-ms = 100\n");
    let flags = ServeOptions { store_id: Some(4), ..Default::default() };
    let config = ServeArgs { config: Some("kontiki.toml".into()), options: flags }.resolve(&fs).unwrap();
    assert_eq!(config.node.store_id, 4);
    assert_eq!(config.node.raft.tick_interval, Duration::from_millis(100));
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let fs = OneFile("store-idd = 3\n");
    let error = ServeOptions::load(&fs, "kontiki.toml".into()).unwrap_err().to_string();
    assert!(error.contains("kontiki.toml") && error.contains("store-idd"), "{error}");
    let error = ServeOptions::load(&fs, "other.toml".into()).unwrap_err().to_string();
    assert!(error.contains("other.toml"), "{error}");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_place() {
    let error = resolve("\nstore-id = \"one\"").unwrap_err();
    assert!(error.contains("line 2") && error.contains("store-id"), "{error}");
}

#[test]
fn errors_name_field_value_and_range() {
    let cases = [
        ("store-id = 0", ["store-id", "= 0:", "1 to"]),
        ("cluster-id = 0", ["cluster-id", "= 0:", "1 to"]),
        ("tick-ms = 1", ["tick-ms", "= 1:", "5 to 10000"]),
        ("heartbeat-ticks = 6", ["election-ticks", "= 12:", "twice heartbeat-ticks"]),
        ("raft-entry-bytes-max = 5", ["raft-entry-bytes-max", "= 5:", " to "]),
        ("region-requests-per-second-max = 5", ["region-requests-per-second-max", "= 5:", "0, or 100 to"]),
        ("region-served-bytes-per-second-max = 5", ["region-served-bytes-per-second-max", "= 5:", "0, or 65536 to"]),
        ("memtable-bytes-max = 5", ["memtable-bytes-max", "= 5:", "1048576 to "]),
        ("park-ms-max = 5000", ["park-ms-max", "= 5000:", "0 to 1900"]),
        ("grpc-address = 'localhost'", ["grpc-address", "localhost", "IP:port"]),
        ("status-address = '127.0.0.1:20160'", ["status-address", "20160", "other than"]),
        ("advertise-address = 'http://h:1'", ["advertise-address", "http://h:1", "without a scheme"]),
        ("initial-cluster = '1=one:1,2=two:1'", ["grpc-address", "not given", "0.0.0.0:1"]),
        ("advertise-address = 'db.local:9'", ["grpc-address", "not given", "db.local:9"]),
        ("grpc-address = '0.0.0.0:20160'", ["advertise-address", "not given", "reach"]),
        ("initial-cluster = '1:h:1'", ["initial-cluster", "1:h:1", "list such as"]),
        ("initial-cluster = '1=h:1,1=h:2'", ["initial-cluster", "1=h:1,1=h:2", "each once"]),
        ("initial-cluster = '1=h:1,2=h:1'", ["initial-cluster", "2=h:1", "each address once"]),
        ("initial-cluster = ''", ["initial-cluster", "", "1 to 9 nodes"]),
        ("initial-cluster = '2=h:1'", ["store-id", "= 1:", "one of initial-cluster: 2"]),
    ];
    for (toml, parts) in cases {
        let error = resolve(toml).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "`{toml}` gave `{error}`, which lacks `{part}`");
        }
    }
}

#[test]
fn splits_by_load_are_on_and_can_be_switched_off() {
    let limits = |toml: &str| {
        let raft = resolve(toml).unwrap().node.raft;
        (raft.region_requests_per_second_max, raft.region_served_bytes_per_second_max)
    };
    assert_eq!(limits(""), (5_000, 32 << 20));
    assert_eq!(limits("region-requests-per-second-max = 0\nregion-served-bytes-per-second-max = 0"), (0, 0));
    assert_eq!(limits("region-requests-per-second-max = 100"), (100, 32 << 20));
}

#[test]
fn raft_logs_stay_where_they_are_unless_it_is_asked_for() {
    let choice = |toml: &str| resolve(toml).map(|config| config.node.raft.log_choice);
    assert_eq!(choice(""), Ok(None));
    assert_eq!(choice("raft-log = 'shared'"), Ok(Some(LogChoice::Shared)));
    assert_eq!(choice("raft-log = 'per-group'"), Ok(Some(LogChoice::PerGroup)));
    let error = choice("raft-log = 'memory'").expect_err("it loses everything");
    assert!(error.contains("raft-log = memory: accepted is shared or per-group"), "{error}");
}

#[test]
fn every_node_derives_the_same_cluster() {
    let list = "initial-cluster = '1=127.0.0.1:7001, 2=127.0.0.1:7002,3=127.0.0.1:7003'";
    let one = resolve(&format!("{list}\nstore-id = 1")).unwrap();
    let three = resolve(&format!("{list}\nstore-id = 3")).unwrap();
    assert_eq!(one.node.members, three.node.members);
    assert_eq!(one.node.cluster_id, three.node.cluster_id);
    assert_eq!(three.grpc_address.to_string(), "127.0.0.1:7003");
    assert_eq!(three.node.address(), "127.0.0.1:7003");
    let other = resolve("initial-cluster = '1=127.0.0.1:7001'").unwrap();
    assert_ne!(other.node.cluster_id, one.node.cluster_id);
}

#[test]
fn the_advertised_address_follows_the_listener_unless_it_was_given() {
    let grpc: SocketAddr = "127.0.0.1:4001".parse().unwrap();
    let status: SocketAddr = "127.0.0.1:4002".parse().unwrap();
    let config = resolve("grpc-address = '127.0.0.1:0'\nstatus-address = '127.0.0.1:0'").unwrap();
    let config = config.bound_to(grpc, status);
    assert_eq!(config.node.address(), "127.0.0.1:4001");
    assert_eq!(config.node.status_address, "127.0.0.1:4002");
    assert_eq!(resolve("advertise-address = '127.0.0.1:9'").unwrap().grpc_address.to_string(), "127.0.0.1:9");
    let config = resolve("grpc-address = '0.0.0.0:0'\nadvertise-address = 'db.local:9'").unwrap();
    assert_eq!(config.bound_to(grpc, status).node.address(), "db.local:9");
}

#[test]
fn certificates_go_together() {
    let files = "ca-file = 'ca.pem'\ncert-file = 'node.pem'\nkey-file = 'node.key'";
    let tls = resolve(files).unwrap().tls.expect("TLS");
    assert_eq!((tls.clients, tls.status), (ClientCertificates::Required, false));
    assert_eq!(tls.files.ca, PathBuf::from("ca.pem"));
    let tls = resolve(&format!("{files}\nclient-certificates = 'optional'\nstatus-tls = true")).unwrap().tls;
    assert!(tls.is_some_and(|tls| tls.clients == ClientCertificates::Optional && tls.status));
    assert_eq!(resolve("").unwrap().tls, None);
    for (toml, parts) in [
        ("cert-file = 'node.pem'", ["--cert-file is given", "--ca-file and --key-file"]),
        ("status-tls = true", ["status-tls = true", "only together with ca-file"]),
        ("client-certificates = 'optional'", ["client-certificates", "only together with ca-file"]),
    ] {
        let error = resolve(toml).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let error = resolve(&format!("{files}\nclient-certificates = 'none'")).unwrap_err().to_string();
    assert!(error.contains("required or optional"), "{error}");
}
