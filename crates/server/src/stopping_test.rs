use super::*;
use futures::channel::mpsc;
use tonic::Code;

type Sender = mpsc::UnboundedSender<Result<u32, Status>>;

fn numbers(control: &StopControl) -> (Sender, impl Stream<Item = Result<u32, Status>> + use<>) {
    let (sender, messages) = mpsc::unbounded();
    (sender, control.stopping().messages(messages))
}

#[tokio::test]
async fn what_had_arrived_is_returned_before_the_end() {
    let control = StopControl::default();
    let (sender, mut stream) = numbers(&control);
    sender.unbounded_send(Ok(1)).unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), 1);
    for number in [2, 3] {
        sender.unbounded_send(Ok(number)).unwrap();
    }
    control.end(Stage::Clients);
    assert_eq!(stream.next().await.unwrap().unwrap(), 2);
    sender.unbounded_send(Ok(4)).unwrap(); // too late
    assert_eq!(stream.next().await.unwrap().unwrap(), 3);
    assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_stream_that_waits_for_its_client_ends_at_once() {
    let control = StopControl::default();
    let (_sender, mut stream) = numbers(&control);
    let waiting = tokio::spawn(async move { stream.next().await });
    tokio::task::yield_now().await;
    control.end(Stage::Clients);
    assert_eq!(waiting.await.unwrap().unwrap().unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_client_that_sends_without_pause_does_not_delay_the_end() {
    let control = StopControl::default();
    let endless = futures::stream::iter((0u64..).map(Ok::<_, Status>));
    let stream = control.stopping().messages(endless);
    control.end(Stage::Clients);
    let all: Vec<_> = stream.collect().await;
    assert_eq!(all.iter().filter(|message| message.is_ok()).count(), ARRIVED_MAX);
    assert!(all.last().unwrap().is_err());
}

#[tokio::test]
async fn a_stream_that_its_client_ended_gets_no_error() {
    let control = StopControl::default();
    let (sender, stream) = numbers(&control);
    sender.unbounded_send(Ok(1)).unwrap();
    drop(sender);
    control.end(Stage::Clients);
    let all: Vec<_> = stream.collect().await;
    assert!(matches!(all[..], [Ok(1)]), "{all:?}");
}

#[tokio::test]
async fn stages_end_in_order_and_never_come_back() {
    let control = StopControl::default();
    let stopping = control.stopping();
    assert!(stopping.reached(Stage::Clients).now_or_never().is_none());
    control.end(Stage::Clients);
    stopping.reached(Stage::Clients).await;
    assert!(stopping.reached(Stage::Peers).now_or_never().is_none());
    control.end(Stage::Peers);
    control.end(Stage::Clients);
    stopping.reached(Stage::Peers).await;
    drop(control);
    stopping.reached(Stage::Peers).await;
}
