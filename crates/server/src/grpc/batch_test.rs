use super::*;
use crate::kv::fake::{FakeNode, LEFT, RIGHT, context};
use crate::stopping::{Stage, StopControl};
use futures::channel::mpsc;
use kontiki_env::clock::SimClock;
use kontiki_env::clock::VirtualTime;
use kontiki_proto::kvrpcpb::{GetRequest, RawGetRequest, RawPutRequest};
use kontiki_proto::tikvpb::batch_commands_request::Request;
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Code;

fn commands(node: &FakeNode) -> Commands<FakeNode> {
    let clock = Arc::new(SimClock::new(VirtualTime::default()));
    Commands { kv: node.kv(), metrics: RequestMetrics::new(clock), requests: Handle::current() }
}

fn batch(commands: impl IntoIterator<Item = (u64, Command)>) -> BatchCommandsRequest {
    let (request_ids, requests) =
        commands.into_iter().map(|(id, command)| (id, Request { cmd: Some(command) })).unzip();
    BatchCommandsRequest { requests, request_ids }
}

fn put(region: u64, key: &'static str) -> Command {
    let (context, key) = (context(region), key.into());
    Command::RawPut(RawPutRequest { context, key, value: "v".into(), ..Default::default() })
}

fn get(region: u64, key: &'static str) -> Command {
    Command::RawGet(RawGetRequest { context: context(region), key: key.into(), ..Default::default() })
}

/// Sends one message after the other, each after all answers to the one before.
async fn ask(node: &FakeNode, messages: Vec<BatchCommandsRequest>) -> Result<BTreeMap<u64, Answer>, Status> {
    let (sender, receiver) = mpsc::unbounded();
    let mut answers = Box::pin(answers(commands(node), receiver.map(Ok)));
    let mut found = BTreeMap::new();
    for message in messages {
        let expected = found.len() + message.requests.len();
        sender.unbounded_send(message).unwrap();
        while found.len() < expected {
            let message = answers.next().await.expect("the stream is open")?;
            assert_eq!(message.responses.len(), message.request_ids.len());
            let answers = message.responses.into_iter().map(|answer| answer.cmd.expect("each answer is set"));
            found.extend(message.request_ids.into_iter().zip(answers));
        }
    }
    drop(sender);
    assert!(answers.next().await.is_none(), "the stream ends after its requests");
    Ok(found)
}

#[tokio::test]
async fn each_command_of_a_batch_is_answered_as_if_it_had_come_alone() {
    let node = FakeNode::new();
    let snapshot =
        Command::Get(GetRequest { context: context(LEFT), key: "a".into(), version: 9, ..Default::default() });
    let messages = vec![
        batch([(7, put(LEFT, "a")), (9, put(RIGHT, "z"))]),
        batch([(1, get(LEFT, "a")), (2, get(RIGHT, "absent in this region")), (3, snapshot)]),
    ];
    let answers = ask(&node, messages).await.unwrap();
    assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 7, 9]);
    let Answer::RawGet(found) = &answers[&1] else { panic!("{:?}", answers[&1]) };
    assert_eq!(found.value, "v");
    let Answer::RawGet(refused) = &answers[&2] else { panic!("{:?}", answers[&2]) };
    assert!(refused.region_error.is_some(), "an error of one command is its answer");
    assert!(matches!(&answers[&3], Answer::Get(answer) if answer.not_found));
}

#[tokio::test]
async fn many_commands_are_answered_in_messages_of_a_bounded_size() {
    let node = FakeNode::new();
    let (sender, receiver) = mpsc::unbounded();
    let mut answers = Box::pin(answers(commands(&node), receiver.map(Ok)));
    let total = 3 * IN_FLIGHT_MAX as u64;
    for id in 0..total {
        sender.unbounded_send(batch([(id, get(LEFT, "a"))])).unwrap();
    }
    drop(sender);
    let mut ids = Vec::new();
    while let Some(message) = answers.next().await {
        let message = message.unwrap();
        assert!((1..=ANSWERS_MAX).contains(&message.responses.len()));
        ids.extend(message.request_ids);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..total).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_command_that_is_not_implemented_breaks_the_stream() {
    let unknown = BatchCommandsRequest { requests: vec![Request { cmd: None }], request_ids: vec![1] };
    assert_eq!(ask(&FakeNode::new(), vec![unknown]).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn what_ends_the_stream_ends_it_after_the_answers_of_other_commands() {
    let node = FakeNode::new();
    let mut mixed = batch([(1, put(LEFT, "a")), (3, put(RIGHT, "z"))]);
    mixed.requests.insert(1, Request { cmd: None });
    mixed.request_ids.insert(1, 2);
    let malformed = BatchCommandsRequest { request_ids: vec![7], ..Default::default() };
    for (last, code) in [(mixed, Code::Unavailable), (malformed, Code::InvalidArgument)] {
        let (sender, receiver) = mpsc::unbounded();
        let mut answers = Box::pin(answers(commands(&node), receiver.map(Ok)));
        sender.unbounded_send(batch([(9, get(LEFT, "a"))])).unwrap();
        let expected = 1 + last.requests.iter().filter(|request| request.cmd.is_some()).count();
        sender.unbounded_send(last).unwrap();
        let mut ids = Vec::new();
        let status = loop {
            match answers.next().await.expect("an error comes last") {
                Ok(message) => ids.extend(message.request_ids),
                Err(status) => break status,
            }
        };
        assert_eq!((status.code(), ids.len()), (code, expected), "{ids:?}");
        assert!(answers.next().await.is_none());
    }
}

#[tokio::test]
async fn commands_of_one_large_message_are_begun_a_bounded_number_at_a_time() {
    let node = FakeNode::new();
    let total = 3 * IN_FLIGHT_MAX as u64;
    let (queued, serving) = (VecDeque::new(), FuturesUnordered::new());
    let messages = futures::stream::iter([Ok(batch((0..total).map(|id| (id, get(LEFT, "a")))))]);
    let mut batches = Batches { commands: commands(&node), messages, queued, serving, ending: None };
    let mut answered = 0;
    while let Some(message) = batches.next().await {
        answered += message.unwrap().responses.len() as u64;
        assert!(batches.serving.len() <= IN_FLIGHT_MAX);
    }
    assert_eq!(answered, total);
    let many = batch((0..=REQUESTS_MAX as u64).map(|id| (id, get(LEFT, "a"))));
    let refused = answers(commands(&node), futures::stream::iter([Ok(many)]));
    assert_eq!(Box::pin(refused).next().await.unwrap().unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn large_answers_do_not_share_a_message() {
    let answer = |id: u64| {
        let value = vec![b'v'; ANSWER_BYTES_FULL / 2 + 1].into();
        (id, Answer::RawGet(kontiki_proto::kvrpcpb::RawGetResponse { value, ..Default::default() }))
    };
    let serving: FuturesUnordered<Serving> = FuturesUnordered::new();
    (1..=4).for_each(|id| serving.push(Box::pin(async move { answer(id) })));
    let messages = futures::stream::empty();
    let queued = VecDeque::new();
    let mut batches = Batches { commands: commands(&FakeNode::new()), messages, queued, serving, ending: None };
    for expected in [2, 2] {
        assert_eq!(batches.next().await.unwrap().unwrap().responses.len(), expected);
    }
    assert!(batches.next().await.is_none());
}

#[tokio::test]
async fn a_batch_with_a_wrong_number_of_ids_is_refused() {
    let wrong = BatchCommandsRequest { request_ids: vec![1, 2], ..batch([(1, get(LEFT, "a"))]) };
    assert_eq!(ask(&FakeNode::new(), vec![wrong]).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_arrived_before_a_stop_is_answered_and_then_the_stream_ends() {
    let node = FakeNode::new();
    let control = StopControl::default();
    let (sender, receiver) = mpsc::unbounded();
    let mut answers = Box::pin(answers(commands(&node), control.stopping().messages(receiver.map(Ok))));
    for id in 0..3 {
        sender.unbounded_send(batch([(2 * id, put(LEFT, "a")), (2 * id + 1, get(LEFT, "a"))])).unwrap();
    }
    control.end(Stage::Clients);
    let mut ids = Vec::new();
    let status = loop {
        match answers.next().await.expect("a status comes last") {
            Ok(message) => ids.extend(message.request_ids),
            Err(status) => break status,
        }
    };
    ids.sort_unstable();
    assert_eq!((ids, status.code()), ((0..6).collect(), Code::Unavailable));
    assert!(answers.next().await.is_none());
    drop(sender);
}

#[tokio::test(start_paused = true)]
async fn the_command_that_does_nothing_is_answered_late_and_delays_no_other() {
    use kontiki_proto::tikvpb::BatchCommandsEmptyRequest;
    let node = FakeNode::new();
    let empty = |test_id, delay_time| Command::Empty(BatchCommandsEmptyRequest { test_id, delay_time });
    let (sender, receiver) = mpsc::unbounded();
    let mut answers = Box::pin(answers(commands(&node), receiver.map(Ok)));
    sender.unbounded_send(batch([(1, empty(7, u64::MAX)), (2, empty(8, 100)), (3, empty(9, 0))])).unwrap();
    let mut order = Vec::new();
    while order.len() < 3 {
        let message = answers.next().await.unwrap().unwrap();
        for (id, response) in message.request_ids.into_iter().zip(message.responses) {
            let Some(Answer::Empty(answer)) = response.cmd else { panic!("{response:?}") };
            order.push((id, answer.test_id));
        }
    }
    assert_eq!(order, [(3, 9), (2, 8), (1, 7)]);
}
