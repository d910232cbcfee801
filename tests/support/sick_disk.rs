//! Disks of real nodes that are slow, fail, or fill up.

use super::Node;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Replaces the call that syncs a file in the process that loads it. The file that the variable names holds how many
/// milliseconds longer it takes, or a negative number: then it fails.
const SYNC: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd) {
    char text[16] = {0};
    const char *path = getenv("SICK_DISK");
    int control = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (control >= 0) {
        if (read(control, text, sizeof text - 1) < 0) text[0] = 0;
        close(control);
    }
    int ms = atoi(text);
    if (ms < 0) {
        errno = EIO;
        return -1;
    }
    if (ms > 0) usleep(ms * 1000);
    return syscall(SYS_fdatasync, fd);
}
"#;

/// What the syncs of one node do.
pub struct Syncs {
    control: PathBuf,
}

impl Syncs {
    /// Lets the syncs of a node that is not started yet be controlled; or why that cannot be done here.
    pub fn of(node: &mut Node, dir: &Path) -> Result<Syncs, String> {
        let (source, library, control) = (dir.join("sync.c"), dir.join("sync.so"), dir.join("syncs"));
        std::fs::write(&source, SYNC).map_err(|error| error.to_string())?;
        let mut compile = Command::new("cc");
        let output = compile.args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).output();
        let output = output.map_err(|error| format!("cc: {error}"))?;
        if !output.status.success() {
            return Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let syncs = Syncs { control };
        syncs.take_longer_by_ms(0);
        node.environment.extend([("LD_PRELOAD", library), ("SICK_DISK", syncs.control.clone())]);
        Ok(syncs)
    }

    fn set(&self, text: &str) {
        // By a rename: a sync never reads half of it.
        let new = self.control.with_extension("new");
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(&new, &self.control).expect("its name");
    }

    pub fn take_longer_by_ms(&self, ms: u64) {
        self.set(&ms.to_string());
    }

    pub fn fail(&self) {
        self.set("-1");
    }
}

/// A small volume in memory, mounted until it is dropped.
pub struct Volume {
    root: PathBuf,
}

impl Volume {
    /// Mounts one of so many MiB; or why that cannot be done here.
    pub fn mount(root: &Path, mib: u64) -> Result<Volume, String> {
        std::fs::create_dir_all(root).map_err(|error| error.to_string())?;
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(root).output();
        let output = output.map_err(|error| format!("mount: {error}"))?;
        if output.status.success() {
            Ok(Volume { root: root.to_owned() })
        } else {
            Err(format!("mount: {}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Takes all the space that is left.
    pub fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.ballast()).expect("a file");
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("it is there");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.root).output();
    }
}
