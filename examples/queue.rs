//! A queue of jobs: workers take the oldest job each, and a job whose worker dies comes back.
//!
//! A job is taken by moving it under a lease that expires; the move is a transaction, so no two workers have one job.
//!
//! ```text
//! cargo run --release --example queue
//! ```

use kontiki::{Db, Family, Options, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(30);

struct Queue {
    db: Db,
    waiting: Family,
    taken: Family,
    leases: Family,
}

impl Queue {
    fn open(path: &std::path::Path) -> Result<Queue> {
        let db = Db::open(path, Options::default())?;
        let [waiting, taken, leases] = ["waiting", "taken", "leases"].map(|name| db.open_family(name));
        Ok(Queue { waiting: waiting?, taken: taken?, leases: leases?, db })
    }

    fn push(&self, number: u64, job: &str) -> Result<()> {
        self.db.put_in(self.waiting, number.to_be_bytes(), job)
    }

    /// Takes the oldest job for as long as the lease lives.
    fn take(&self) -> Result<Option<(u64, String)>> {
        self.db.transact(|transaction| {
            let Some(entry) = transaction.range_in(self.waiting, ..)?.next() else { return Ok(None) };
            let (key, job) = entry?;
            transaction.delete_in(self.waiting, &key)?;
            transaction.put_in(self.taken, &key, &job)?;
            transaction.put_with_ttl(self.leases, &key, "", LEASE)?;
            let number = u64::from_be_bytes(key[..].try_into().expect("8 bytes"));
            Ok(Some((number, String::from_utf8_lossy(&job).into_owned())))
        })
    }

    fn done(&self, number: u64) -> Result<()> {
        self.db.transact(|transaction| {
            transaction.delete_in(self.taken, number.to_be_bytes())?;
            transaction.delete_in(self.leases, number.to_be_bytes())
        })
    }

    /// Puts jobs back whose lease has expired; returns how many.
    fn requeue(&self) -> Result<usize> {
        self.db.transact(|transaction| {
            let mut expired = Vec::new();
            for entry in transaction.range_in(self.taken, ..)? {
                let (key, job) = entry?;
                if !transaction.contains(self.leases, &key)? {
                    expired.push((key, job));
                }
            }
            for (key, job) in &expired {
                transaction.delete_in(self.taken, key)?;
                transaction.put_in(self.waiting, key, job)?;
            }
            Ok(expired.len())
        })
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    const JOBS: u64 = 200;
    let folder = tempfile::tempdir()?;
    let queue = Queue::open(folder.path())?;
    for number in 0..JOBS {
        queue.push(number, &format!("job {number}"))?;
    }
    let sum = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let work = || -> Result<u64> {
            let mut done = 0;
            while let Some((number, _)) = queue.take()? {
                sum.fetch_add(number, Ordering::Relaxed);
                queue.done(number)?;
                done += 1;
            }
            Ok(done)
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        for (worker, thread) in workers.into_iter().enumerate() {
            let done = thread.join().expect("a worker does not panic").expect("the database works");
            println!("worker {worker}: {done} jobs");
        }
    });
    assert_eq!(sum.load(Ordering::Relaxed), JOBS * (JOBS - 1) / 2, "each job once");
    assert_eq!(queue.requeue()?, 0, "none was left behind");
    Ok(())
}
