//! A separate small volume, in a file: needs the right to mount.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const VOLUME_BYTES: u64 = 48 << 20;

/// A mounted volume; unmounted and removed when it is dropped.
pub struct Volume {
    scratch: PathBuf,
}

/// What fills the rest of a volume; dropping it frees the space.
pub struct Filler(PathBuf);

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let text = || format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    output.status.success().then_some(()).ok_or_else(text)
}

impl Volume {
    /// Makes one in `scratch`, a directory that is not there; or says why that cannot be done here.
    pub fn mount(scratch: &Path) -> Result<Volume, String> {
        let (image, root) = (scratch.join("image"), scratch.join("root"));
        std::fs::create_dir_all(&root).map_err(|error| error.to_string())?;
        let made = std::fs::File::create(&image).and_then(|file| file.set_len(VOLUME_BYTES));
        made.map_err(|error| error.to_string())?;
        let volume = Volume { scratch: scratch.to_path_buf() };
        run("mkfs.ext4", &[Path::new("-q"), &image])?;
        run("mount", &[Path::new("-o"), Path::new("loop"), &image, &root])?;
        Ok(volume)
    }

    pub fn root(&self) -> PathBuf {
        self.scratch.join("root")
    }

    /// Takes all the space that is left.
    pub fn fill(&self) -> Filler {
        let path = self.root().join("filler");
        let mut file = std::fs::File::create(&path).expect("created");
        for piece in [1 << 16, 1 << 9] {
            while file.write_all(&vec![7; piece]).is_ok() {}
        }
        Filler(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("removed");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.root()]); // it was not mounted, perhaps
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}
