//! Small volumes for the nodes' directories, which faults fill.

use super::support::Cluster;
use super::support::sick_disk::Volume;

/// The volume of each node, or none.
pub struct Disks {
    volumes: Vec<Volume>,
}

impl Disks {
    /// Puts the directories of all nodes, which do not run yet, on volumes of their own; 0: leaves them.
    pub fn mount(cluster: &mut Cluster, mib: u64) -> Disks {
        let mut disks = Disks { volumes: Vec::new() };
        for node in cluster.nodes.iter_mut().filter(|_| mib > 0) {
            let root = cluster.dir.path().join(format!("disk-{}", node.store_id));
            let volume = Volume::mount(&root, mib).unwrap_or_else(|why| {
                panic!("KONTIKI_FAULTS_DISK_MIB needs the right to mount: leave it out, or run as root ({why})")
            });
            node.data_dir = root.join("data");
            disks.volumes.push(volume);
        }
        disks
    }

    pub fn can_fill(&self) -> bool {
        !self.volumes.is_empty()
    }

    /// Fills the disk of a node until nothing more fits.
    pub fn fill(&self, node: usize) {
        self.volumes[node].fill();
    }

    pub fn free(&self, node: usize) {
        self.volumes[node].free();
    }
}
