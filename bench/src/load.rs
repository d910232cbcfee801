//! Puts and gets of many clients for a time. Keys and values follow from an index, and every answer is checked.

use crate::data;
use kontiki_client::RawClient;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    Put,
    Get,
}

/// Who does it. Fails loudly: a measurement with errors is none.
pub trait Target: Clone + Send + Sync + 'static {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> impl Future<Output = ()> + Send;

    /// Reads a key and compares its value.
    fn get(&self, key: Vec<u8>, expected: &[u8]) -> impl Future<Output = ()> + Send;
}

impl Target for RawClient {
    async fn put(&self, key: Vec<u8>, value: Vec<u8>) {
        RawClient::put(self, key, value).await.expect("put");
    }

    async fn get(&self, key: Vec<u8>, expected: &[u8]) {
        let found = RawClient::get(self, key).await.expect("get");
        assert!(found.as_deref() == Some(expected), "wrong answer");
    }
}

/// The keys and values, and for how long.
#[derive(Clone, Copy)]
pub struct Plan {
    pub keys: u64,
    pub value_bytes: usize,
    pub seconds: f64,
}

/// One measurement: rate, every latency, and what the servers took of the processor.
pub struct Outcome {
    pub per_second: f64,
    pub latencies: Vec<Duration>,
    pub cpu_us_per_operation: f64,
}

/// Writes every key once.
pub async fn preload(target: &impl Target, plan: Plan) {
    for index in 0..plan.keys {
        target.put(data::key(index).to_vec(), data::value(index, plan.value_bytes)).await;
    }
}

/// `cpu_seconds`: of the servers so far.
pub async fn measure(
    target: &impl Target,
    work: Work,
    clients: usize,
    plan: Plan,
    cpu_seconds: impl Fn() -> f64,
) -> Outcome {
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(plan.seconds);
    let (next, cpu_before) = (Arc::new(AtomicU64::new(0)), cpu_seconds());
    let spawn = |_| tokio::spawn(client_task(target.clone(), work, plan, end, next.clone()));
    let tasks: Vec<_> = (0..clients).map(spawn).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no client fails"));
    }
    let operations = latencies.len() as f64;
    let cpu_us_per_operation = (cpu_seconds() - cpu_before) * 1e6 / operations;
    Outcome { per_second: operations / start.elapsed().as_secs_f64(), latencies, cpu_us_per_operation }
}

async fn client_task(target: impl Target, work: Work, plan: Plan, end: Instant, next: Arc<AtomicU64>) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let index = data::scatter(next.fetch_add(1, Ordering::Relaxed)) % plan.keys;
        let (key, value) = (data::key(index).to_vec(), data::value(index, plan.value_bytes));
        let start = Instant::now();
        match work {
            Work::Put => target.put(key, value).await,
            Work::Get => target.get(key, &value).await,
        }
        latencies.push(start.elapsed());
    }
    latencies
}
