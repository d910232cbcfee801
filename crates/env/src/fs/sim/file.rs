//! Handles of the simulated file system.

use super::fault::{Op, Outcome, injected, no_space, power_is_off, process_has_ended};
use super::inode::{Change, Inode};
use super::state::State;
use crate::fs::{File, MappedFile};
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) struct SimFile {
    state: Arc<Mutex<State>>,
    inode: Inode,
    /// The name it was opened under, for faults and the trace.
    path: PathBuf,
    writable: bool,
    /// The process that opened it.
    generation: u64,
}

impl SimFile {
    pub(super) fn new(
        shared: Arc<Mutex<State>>,
        state: &mut State,
        inode: Inode,
        path: &Path,
        writable: bool,
    ) -> SimFile {
        state.update(&inode, |content| content.handles += 1);
        state.open_files += 1;
        SimFile { state: shared, inode, path: path.to_path_buf(), writable, generation: state.generation }
    }

    /// The state, if the process that opened this handle still runs and the power is on.
    fn enter(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.faults.is_off() {
            return Err(power_is_off());
        }
        if state.generation != self.generation {
            return Err(process_has_ended());
        }
        Ok(state)
    }

    fn enter_to_write(&self) -> io::Result<MutexGuard<'_, State>> {
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "simulated: opened for reading"));
        }
        self.enter()
    }

    fn resize(&self, state: &mut State, length: u64, outcome: Outcome) -> io::Result<()> {
        let current = self.inode.lock().live.len();
        match outcome {
            Outcome::Fail => return Err(injected()),
            Outcome::Proceed if length.saturating_sub(current) > state.free_bytes() => return Err(no_space()),
            Outcome::Proceed | Outcome::PowerOff => {}
        }
        state.update(&self.inode, |content| content.change(Change::Resize { length }));
        if outcome == Outcome::PowerOff { Err(power_is_off()) } else { Ok(()) }
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.enter()?;
        match state.faults.check(Op::Read, &self.path, offset, buffer.len() as u64)? {
            Outcome::Proceed => Ok(self.inode.lock().live.read(buffer, offset)),
            Outcome::Fail | Outcome::PowerOff => Err(injected()),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.enter_to_write()?;
        let outcome = state.faults.check(Op::Write, &self.path, offset, bytes.len() as u64)?;
        let growth = (offset + bytes.len() as u64).saturating_sub(self.inode.lock().live.len());
        let missing = growth.saturating_sub(state.free_bytes());
        // If a write fails, some of it may have been written; with the power off, the crash decides how much.
        let (count, result) = match outcome {
            Outcome::Fail => (state.rng.below(bytes.len() as u64 + 1), Err(injected())),
            _ if missing > 0 && !bytes.is_empty() => {
                let fitting = (bytes.len() as u64).saturating_sub(missing);
                (state.rng.below(fitting + 1), Err(no_space()))
            }
            Outcome::PowerOff => (bytes.len() as u64, Err(power_is_off())),
            Outcome::Proceed => (bytes.len() as u64, Ok(())),
        };
        if count > 0 {
            let change = Change::Write { offset, bytes: bytes[..count as usize].to_vec() };
            state.update(&self.inode, |content| content.change(change));
        }
        result
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.enter()?;
        match state.faults.check(Op::Sync, &self.path, 0, 0)? {
            Outcome::Proceed => {
                self.inode.lock().sync();
                Ok(())
            }
            Outcome::PowerOff => Err(power_is_off()),
            Outcome::Fail => {
                state.update_with_rng(&self.inode, |content, rng| content.sync_failed(rng));
                Err(injected())
            }
        }
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut state = self.enter_to_write()?;
        let outcome = state.faults.check(Op::Allocate, &self.path, 0, length)?;
        let current = self.inode.lock().live.len();
        self.resize(&mut state, length.max(current), outcome)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.enter_to_write()?;
        let outcome = state.faults.check(Op::SetLen, &self.path, 0, length)?;
        self.resize(&mut state, length, outcome)
    }

    fn writes_in_place(&self) -> bool {
        true
    }

    fn map(&self, length: u64) -> io::Result<Option<Box<dyn MappedFile>>> {
        let mut state = self.enter_to_write()?;
        if !state.maps || self.inode.lock().live.len() < length {
            return Ok(None);
        }
        state.update(&self.inode, |content| content.handles += 1);
        let (shared, inode, path) = (self.state.clone(), self.inode.clone(), self.path.clone());
        Ok(Some(Box::new(SimMap { state: shared, inode, path, generation: self.generation, length })))
    }

    fn len(&self) -> io::Result<u64> {
        let _state = self.enter()?;
        Ok(self.inode.lock().live.len())
    }

    fn links(&self) -> io::Result<u64> {
        let _state = self.enter()?;
        Ok(u64::from(self.inode.lock().links))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.generation == self.generation {
            state.open_files -= 1;
            state.update(&self.inode, |content| content.handles -= 1);
        }
    }
}

/// A mapping: it keeps the file as a handle does, and needs no descriptor.
struct SimMap {
    state: Arc<Mutex<State>>,
    inode: Inode,
    path: PathBuf,
    generation: u64,
    length: u64,
}

impl MappedFile for SimMap {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let end = offset + bytes.len() as u64;
        assert!(end <= self.length, "a write within the mapping");
        if state.faults.is_off() {
            return Err(power_is_off());
        }
        if state.generation != self.generation {
            return Err(process_has_ended());
        }
        assert!(end <= self.inode.lock().live.len(), "a file is not cut while it is mapped");
        let outcome = state.faults.check(Op::MappedWrite, &self.path, offset, bytes.len() as u64)?;
        let (count, result) = match outcome {
            Outcome::Proceed => (bytes.len(), Ok(())),
            Outcome::PowerOff => (bytes.len(), Err(power_is_off())),
            Outcome::Fail => (state.rng.below(bytes.len() as u64 + 1) as usize, Err(injected())),
        };
        if count > 0 {
            let change = Change::Write { offset, bytes: bytes[..count].to_vec() };
            state.update(&self.inode, |content| content.change(change));
        }
        result
    }
}

impl Drop for SimMap {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.generation == self.generation {
            state.update(&self.inode, |content| content.handles -= 1);
        }
    }
}
