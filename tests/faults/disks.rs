//! Small file systems in memory for the nodes' directories, which faults fill to the last byte.

use super::support::Cluster;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted until it is dropped.
pub struct Disks {
    mounts: Vec<PathBuf>,
}

fn filler(mount: &Path) -> PathBuf {
    mount.join("filler")
}

impl Disks {
    /// Puts the directories of all nodes, which do not run yet, on file systems of their own; 0: leaves them.
    pub fn mount(cluster: &mut Cluster, mib: u64) -> Disks {
        let mut disks = Disks { mounts: Vec::new() };
        if mib == 0 {
            return disks;
        }
        for node in &mut cluster.nodes {
            let mount = cluster.dir.path().join(format!("disk-{}", node.store_id));
            std::fs::create_dir(&mount).expect("a new folder");
            let size = format!("size={mib}m");
            let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&mount).status();
            assert!(
                mounted.is_ok_and(|status| status.success()),
                "KONTIKI_FAULTS_DISK_MIB needs the right to mount a file system: leave it out, or run as root"
            );
            node.data_dir = mount.join("data");
            disks.mounts.push(mount);
        }
        disks
    }

    pub fn can_fill(&self) -> bool {
        !self.mounts.is_empty()
    }

    /// Fills the disk of a node until nothing more fits.
    pub fn fill(&self, node: usize) {
        let mut file = std::fs::File::create(filler(&self.mounts[node])).expect("a file name fits");
        let mut bytes = 1 << 20;
        while bytes > 0 {
            if file.write_all(&vec![0; bytes]).is_err() {
                bytes /= 2;
            }
        }
    }

    pub fn free(&self, node: usize) {
        std::fs::remove_file(filler(&self.mounts[node])).expect("the filler is there");
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for mount in &self.mounts {
            // Lazily: after a failure the nodes may still run.
            let _ = Command::new("umount").arg("-l").arg(mount).status();
        }
    }
}
