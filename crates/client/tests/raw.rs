//! Raw operations against a mock cluster whose regions move, split and fail.
#![allow(clippy::unwrap_used)] // helpers of tests

mod mock;

use bytes::Bytes;
use kontiki_client::{Client, Error, Options, Swap};
use kontiki_proto::errorpb;
use mock::{Fault, Mock, SHORT, dead_address};
use std::time::Duration;

fn keys(pairs: &[kontiki_client::KeyPair]) -> Vec<&str> {
    pairs.iter().map(|pair| std::str::from_utf8(&pair.key).unwrap()).collect()
}

fn region_error(error: errorpb::Error) -> Fault {
    Fault::Region(errorpb::Error { message: "planned".to_string(), ..error })
}

#[tokio::test]
async fn single_keys_and_batches_over_several_regions() {
    let mock = Mock::start().await;
    mock.state.lock().split("g");
    mock.state.lock().split("p");
    let raw = mock.client().await.raw();
    assert_eq!(raw.get("a").await.unwrap(), None);
    raw.put("a", "1").await.unwrap();
    raw.put("empty", "").await.unwrap();
    raw.batch_put([("h", "2"), ("q", "3"), ("b", "4"), ("b", "5")]).await.unwrap();
    assert_eq!(raw.get("a").await.unwrap().unwrap(), "1");
    assert_eq!(raw.get("empty").await.unwrap().unwrap(), "", "an empty value is a value");
    let pairs = raw.batch_get(["q", "zz", "b", "h"]).await.unwrap();
    assert_eq!(keys(&pairs), ["b", "h", "q"]);
    assert_eq!(pairs[0].value, "5", "the last one counts");
    raw.delete("a").await.unwrap();
    raw.batch_delete(["h", "q", "absent"]).await.unwrap();
    assert_eq!(mock.state.lock().raw.len(), 2);
}

#[tokio::test]
async fn times_to_live_are_whole_seconds() {
    let mock = Mock::start().await;
    let raw = mock.client().await.raw();
    assert_eq!(raw.time_to_live("a").await.unwrap(), None);
    raw.put("a", "1").await.unwrap();
    assert_eq!(raw.time_to_live("a").await.unwrap(), Some(None));
    for (given_ms, seconds) in [(5_000, 5), (5_001, 6), (1, 1), (0, 1)] {
        raw.put_with_ttl("a", "1", Duration::from_millis(given_ms)).await.unwrap();
        assert_eq!(raw.time_to_live("a").await.unwrap(), Some(Some(Duration::from_secs(seconds))));
    }
}

#[tokio::test]
async fn a_swap_says_what_it_found() {
    let mock = Mock::start().await;
    let raw = mock.client().await.raw();
    let swap = |swapped, previous: Option<&'static str>| Swap { swapped, previous: previous.map(Bytes::from) };
    assert_eq!(raw.compare_and_swap("a", Some("x".into()), "1").await.unwrap(), swap(false, None));
    assert_eq!(raw.compare_and_swap("a", None, "1").await.unwrap(), swap(true, None));
    assert_eq!(raw.compare_and_swap("a", Some("1".into()), "").await.unwrap(), swap(true, Some("1")));
    assert_eq!(raw.compare_and_swap("a", None, "2").await.unwrap(), swap(false, Some("")));

    raw.put("a", "1").await.unwrap();
    assert_eq!(mock.state.lock().atomic_writes, 0);
    let raw = raw.atomic();
    raw.put("a", "2").await.unwrap();
    raw.delete("a").await.unwrap();
    raw.batch_put([("a", "3")]).await.unwrap();
    raw.batch_delete(["a"]).await.unwrap();
    assert_eq!(mock.state.lock().atomic_writes, 4);
}

/// The first try swapped, and its answer was lost: the second one finds the new value.
#[tokio::test]
async fn a_swap_that_is_repeated_after_a_lost_answer_is_not_said_to_have_failed() {
    let mock = Mock::start().await;
    mock.state.lock().fault("RawCompareAndSwap", Fault::LoseAnswer);
    let options = Options { repeat_uncertain_writes: true, ..Options::default() };
    let raw = Client::connect_with(&mock.endpoints, options).await.unwrap().raw();
    let error = raw.compare_and_swap("a", None, "1").await.unwrap_err();
    assert!(matches!(error, Error::Undetermined { .. }), "{error:?}");
    assert_eq!(mock.state.lock().raw.get(&Bytes::from("a")), Some(&Bytes::from("1")));
}

/// A node that accepts connections and answers nothing, such as one that is stopped by a signal, does not cost a
/// timeout.
#[tokio::test]
async fn a_frozen_endpoint_does_not_keep_a_client_from_the_others() {
    let mock = Mock::start().await;
    let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints = [frozen.local_addr().unwrap().to_string(), mock.endpoints[0].clone()];
    let timeout = Duration::from_secs(30);
    let options = Options { operation_timeout: timeout, request_timeout: timeout, ..Options::default() };
    let raw = Client::connect_with(&endpoints, options).await.unwrap().raw();
    raw.put("k", "v").await.unwrap();
    assert_eq!(raw.get("k").await.unwrap().unwrap(), "v");
}

/// An endpoint that speaks gRPC, or HTTP/2, without a placement service is reported at once, and not retried.
#[tokio::test]
async fn an_endpoint_that_is_no_node_is_named_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let routes = tonic::service::Routes::default();
    tokio::spawn(tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming));
    let error = Client::connect([&address]).await.map(drop).unwrap_err();
    assert!(matches!(&error, Error::Invalid(what) if what.contains(&address)), "{error}");
}

#[tokio::test]
async fn scans_cross_regions_in_both_directions() {
    let mock = Mock::start().await;
    for position in ["g", "g\0", "p"] {
        mock.state.lock().split(position);
    }
    let raw = mock.client().await.raw();
    let all = ["a", "f", "g", "g\0", "h", "p", "z"];
    raw.batch_put(all.map(|key| (key, "v"))).await.unwrap();
    let backwards = || all.iter().rev().copied().collect::<Vec<_>>();
    assert_eq!(keys(&raw.scan("", "", 100).await.unwrap()), all);
    assert_eq!(keys(&raw.scan_reverse("", "", 100).await.unwrap()), backwards());
    assert_eq!(keys(&raw.scan("f", "p", 100).await.unwrap()), all[1..5]);
    assert_eq!(keys(&raw.scan_reverse("f", "p", 100).await.unwrap()), backwards()[2..6]);
    assert_eq!(keys(&raw.scan("f", "z", 3).await.unwrap()), all[1..4]);
    assert_eq!(keys(&raw.scan_reverse("f", "z", 3).await.unwrap()), backwards()[1..4]);
    assert_eq!(keys(&raw.scan("g", "g\0", 3).await.unwrap()), ["g"]);
    assert!(raw.scan("z", "a", 3).await.unwrap().is_empty() && raw.scan("", "", 0).await.unwrap().is_empty());
    assert_eq!(raw.scan_keys("g", "h", 9).await.unwrap(), ["g", "g\0"]);
    // With a cold cache, so that each direction finds its regions by itself.
    let cold = mock.client().await.raw();
    assert_eq!(keys(&cold.scan_reverse("", "", 100).await.unwrap()), backwards());
    raw.delete_range("f", "h").await.unwrap();
    assert_eq!(keys(&raw.scan("", "", 100).await.unwrap()), ["a", "h", "p", "z"]);
    raw.delete_range("", "").await.unwrap();
    assert!(mock.state.lock().raw.is_empty());
}

#[tokio::test]
async fn a_scan_in_pages_asks_for_a_page_when_it_is_wanted() {
    let mock = Mock::start().await;
    mock.state.lock().split("k1500");
    let raw = mock.client().await.raw();
    let names: Vec<String> = (0..3000).map(|i| format!("k{i:04}")).collect();
    raw.batch_put(names.iter().map(|name| (name.clone(), "v"))).await.unwrap();
    for (reverse, limit) in [(false, usize::MAX), (true, usize::MAX), (false, 2000), (true, 10)] {
        let before = mock.state.lock().count("RawScan");
        let mut pages = raw.scan_pages("k", "", limit, reverse);
        let mut expected: Vec<String> = names.clone();
        if reverse {
            expected.reverse();
        }
        expected.truncate(limit);
        let mut found = Vec::new();
        while let Some(page) = pages.next_page().await.unwrap() {
            assert!((1..=1024).contains(&page.len()), "{} pairs in a page", page.len());
            if found.is_empty() {
                assert_eq!(mock.state.lock().count("RawScan"), before + 1, "nothing is requested ahead");
            }
            found.extend(page);
        }
        assert_eq!(keys(&found), expected);
        assert_eq!(pages.next_page().await.unwrap(), None, "the end stays the end");
    }
    let without_values = raw.scan_pages("k", "", 5, false).keys_only().next_page().await.unwrap().unwrap();
    assert!(without_values.iter().all(|pair| pair.value.is_empty()));
}

#[tokio::test]
async fn a_long_scan_is_not_cut() {
    let mock = Mock::start().await;
    mock.state.lock().split("k1500");
    let raw = mock.client().await.raw();
    let names: Vec<String> = (0..3000).map(|i| format!("k{i:04}")).collect();
    raw.batch_put(names.iter().map(|name| (name.clone(), "v"))).await.unwrap();
    assert!(mock.state.lock().count("RawBatchPut") > 4, "in several requests");
    assert_eq!(keys(&raw.scan("k", "l", 10_000).await.unwrap()), names);
    let mut found = raw.scan_reverse("k", "l", 10_000).await.unwrap();
    found.reverse();
    assert_eq!(keys(&found), names);
}

#[tokio::test]
async fn a_moved_leader_is_followed() {
    let mock = Mock::start().await;
    let raw = mock.client().await.raw();
    raw.put("k", "1").await.unwrap();
    mock.state.lock().lead(2, 3);
    raw.put("k", "2").await.unwrap();
    let calls: Vec<u64> =
        mock.state.lock().calls.iter().filter(|(name, _)| *name == "RawPut").map(|(_, store)| *store).collect();
    assert_eq!(calls, [1, 1, 3], "the answer names the new leader");
    assert_eq!(mock.state.lock().count("GetRegion"), 1, "no need to ask the placement driver again");
}

#[tokio::test]
async fn without_a_named_leader_the_peers_are_tried_in_turn() {
    let mock = Mock::start().await;
    let raw = mock.client().await.raw();
    let leaderless = errorpb::NotLeader { region_id: 2, leader: None };
    for _ in 0..4 {
        mock.state
            .lock()
            .fault("RawPut", region_error(errorpb::Error { not_leader: Some(leaderless), ..Default::default() }));
    }
    raw.put("k", "1").await.unwrap();
    assert!(mock.state.lock().count("GetRegion") >= 2, "after a round without success the region is looked up again");
}

#[tokio::test]
async fn a_split_is_learned_from_the_refusal() {
    let mock = Mock::start().await;
    let raw = mock.client().await.raw();
    raw.put("a", "1").await.unwrap();
    mock.state.lock().split("m");
    raw.batch_put([("b", "2"), ("y", "3")]).await.unwrap();
    assert_eq!(keys(&raw.scan("", "", 10).await.unwrap()), ["a", "b", "y"]);
    assert_eq!(mock.state.lock().count("GetRegion"), 1, "both halves came with the error");
}

#[tokio::test]
async fn other_region_errors_are_tried_again() {
    let mock = Mock::start().await;
    let raw = mock.client().await.raw();
    let errors = [
        errorpb::Error {
            server_is_busy: Some(errorpb::ServerIsBusy { backoff_ms: 1, ..Default::default() }),
            ..Default::default()
        },
        errorpb::Error { store_not_match: Some(errorpb::StoreNotMatch::default()), ..Default::default() },
        errorpb::Error { region_not_found: Some(errorpb::RegionNotFound { region_id: 2 }), ..Default::default() },
        errorpb::Error { key_not_in_region: Some(errorpb::KeyNotInRegion::default()), ..Default::default() },
        errorpb::Error { epoch_not_match: Some(errorpb::EpochNotMatch::default()), ..Default::default() },
        errorpb::Error { disk_full: Some(errorpb::DiskFull {}), ..Default::default() },
    ];
    for error in errors {
        mock.state.lock().fault("RawPut", region_error(error));
        raw.put("k", "1").await.unwrap();
    }
    let stale = errorpb::Error { stale_command: Some(errorpb::StaleCommand {}), ..Default::default() };
    for error in [stale, errorpb::Error::default()] {
        mock.state.lock().fault("RawGet", region_error(error.clone()));
        raw.get("k").await.unwrap();
        mock.state.lock().fault("RawPut", region_error(error));
        let doubtful = raw.put("k", "1").await.unwrap_err();
        assert!(matches!(doubtful, Error::Undetermined { .. }), "the proposal may still be applied");
    }
    assert!(mock.state.lock().faults.is_empty());
}

#[tokio::test]
async fn what_cannot_be_mended_is_said_at_once() {
    let mock = Mock::start().await;
    let raw = mock.client().await.raw();
    let large = errorpb::RaftEntryTooLarge { region_id: 2, entry_size: 99 };
    let large = errorpb::Error { raft_entry_too_large: Some(large), ..Default::default() };
    mock.state.lock().fault("RawPut", region_error(large));
    let error = raw.put("k", "1").await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(text) if text.contains("99")), "{error}");
    mock.state.lock().fault("RawGet", Fault::Status(tonic::Code::Unimplemented));
    assert!(matches!(raw.get("k").await.unwrap_err(), Error::Server(_)));
    mock.state.lock().fault("RawPut", Fault::Status(tonic::Code::InvalidArgument));
    assert!(matches!(raw.put("k", "1").await.unwrap_err(), Error::Invalid(_)));
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_not_repeated() {
    let mock = Mock::start().await;
    let raw = mock.client().await.raw();
    mock.state.lock().fault("RawPut", Fault::LoseAnswer);
    assert!(matches!(raw.put("k", "1").await.unwrap_err(), Error::Undetermined { .. }));
    mock.state.lock().fault("RawBatchPut", Fault::LoseAnswer);
    assert!(matches!(raw.batch_put([("k", "2")]).await.unwrap_err(), Error::Undetermined { .. }));
    let state = mock.state.lock();
    assert_eq!(state.count("RawPut"), 1, "another writer may have written in between");
    assert_eq!(state.calls.last().map(|(name, _)| *name), Some("RawBatchPut"));
    assert_eq!(state.raw[&b"k"[..]], "2");
}

#[tokio::test]
async fn a_batch_of_which_a_part_was_written_is_undetermined_whatever_ended_it() {
    let mock = Mock::start().await;
    mock.state.lock().split(&b"m"[..]);
    let raw = mock.client().await.raw();
    mock.state.lock().fault("RawBatchPut", Fault::Status(tonic::Code::InvalidArgument));
    let error = raw.batch_put([("a", "1"), ("z", "1")]).await.unwrap_err();
    assert!(matches!(error, Error::Undetermined { .. }), "{error}");
    assert_eq!(mock.state.lock().raw.len(), 1, "one region refused its part, the other one wrote it");
    // Nothing was written: the error is that of the region.
    for _ in 0..2 {
        mock.state.lock().fault("RawBatchPut", Fault::Status(tonic::Code::InvalidArgument));
    }
    assert!(matches!(raw.batch_put([("b", "1"), ("y", "1")]).await.unwrap_err(), Error::Invalid(_)));
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_repeated_if_so_chosen() {
    let mock = Mock::start().await;
    let options = Options { repeat_uncertain_writes: true, ..Options::default() };
    let patient = Client::connect_with(&mock.endpoints, options.clone()).await.unwrap().raw();
    mock.state.lock().fault("RawPut", Fault::LoseAnswer);
    patient.put("k", "1").await.unwrap();
    assert_eq!(mock.state.lock().raw.len(), 1);
    assert!(mock.state.lock().count("RawPut") >= 2);
    mock.state.lock().fault("RawPut", Fault::LoseAnswer);
    mock.state.lock().fails_if_done = Some("the disk failed".to_string());
    let error = patient.put("k", "3").await.unwrap_err();
    assert!(
        matches!(error, Error::Undetermined { .. }),
        "the second try's error says nothing about the first: {error}"
    );
    mock.state.lock().fails_if_done = None;
    let options = Options { operation_timeout: SHORT, ..options };
    let hasty = Client::connect_with(&mock.endpoints, options).await.unwrap().raw();
    for _ in 0..100 {
        mock.state.lock().fault("RawPut", Fault::LoseAnswer);
        mock.state.lock().fault("RawGet", Fault::LoseAnswer);
    }
    assert!(matches!(hasty.put("k", "2").await.unwrap_err(), Error::Undetermined { .. }));
    assert!(matches!(hasty.get("k").await.unwrap_err(), Error::Timeout { .. }), "a read changes nothing");
}

#[tokio::test]
async fn a_dead_store_is_left_for_another_peer() {
    let mock = Mock::start().await;
    let raw = mock.client().await.raw();
    let (_socket, dead) = dead_address();
    mock.state.lock().addresses[0] = dead;
    mock.state.lock().lead(2, 2);
    mock.state.lock().reported_leader = Some(1);
    raw.put("k", "1").await.unwrap();
    assert_eq!(mock.state.lock().calls.last().copied(), Some(("RawPut", 2)));
}

/// A placement driver that does not know of a split yet names the old region, of which the client knows a newer version
/// without the key: that one must not be taken for the key's.
#[tokio::test]
async fn an_outdated_answer_of_the_placement_driver_deletes_nothing_else() {
    let mock = Mock::start().await;
    let raw = mock.client().await.raw();
    for key in ["a", "n", "p", "q"] {
        raw.put(key, "1").await.unwrap();
    }
    let outdated = mock.state.lock().regions.clone();
    mock.state.lock().split("m");
    raw.get("a").await.unwrap();
    raw.get("p").await.unwrap();
    // The right half is forgotten, and looked up.
    let not_found = errorpb::Error { region_not_found: Some(errorpb::RegionNotFound::default()), ..Default::default() };
    mock.state.lock().fault("RawDeleteRange", Fault::Region(not_found));
    mock.state.lock().reported_regions.extend([outdated.clone(), outdated]);
    raw.delete_range("p", "q").await.unwrap();
    assert!(mock.state.lock().reported_regions.is_empty(), "it asked");
    let left: Vec<Bytes> = mock.state.lock().raw.keys().cloned().collect();
    assert_eq!(left, ["a", "n", "q"]);
}

#[tokio::test]
async fn regions_are_split_where_their_boundaries_are() {
    let mock = Mock::start().await;
    mock.state.lock().split("m");
    let client = mock.client().await;
    client.raw().split(["a", "p"]).await.unwrap();
    client.split(["z"]).await.unwrap();
    assert_eq!(mock.state.lock().split_keys, ["a", "p", "z"]);
    for key in [String::new(), "k".repeat(4096)] {
        assert!(matches!(client.split([key]).await, Err(Error::Invalid(_))));
    }
}

#[tokio::test]
async fn endpoints_that_do_not_answer() {
    let none: [&str; 0] = [];
    assert!(matches!(Client::connect(none).await, Err(Error::Invalid(_))));
    assert!(matches!(Client::connect(["not an address"]).await, Err(Error::Invalid(_))));
    let (_socket, dead) = dead_address();
    let options = Options { operation_timeout: SHORT, ..Options::default() };
    match Client::connect_with([&dead], options).await {
        Err(Error::Timeout { last, .. }) => assert!(last.contains("refused"), "{last}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("no node is there"),
    }
    // A dead endpoint before a live one is skipped.
    let mock = Mock::start().await;
    let client = Client::connect([&dead, &mock.endpoints[1]]).await.unwrap();
    client.raw().put("k", "1").await.unwrap();
}

#[tokio::test]
async fn timestamps_are_batched_and_strictly_increase() {
    let mock = Mock::start().await;
    let client = mock.client().await;
    let mut last = 0;
    for round in 0..10 {
        if round == 5 {
            mock.state.lock().fault("Tso", Fault::Status(tonic::Code::Unavailable));
        }
        let mut many = futures::future::try_join_all((0..100).map(|_| client.timestamp())).await.unwrap();
        many.sort_unstable();
        assert!(many[0] > last, "later than every earlier one");
        assert!(many.windows(2).all(|pair| pair[0] < pair[1]), "each once");
        last = many[99];
    }
    assert!(mock.state.lock().count("Tso") < 500, "many callers share a message");
}

#[tokio::test]
async fn the_cluster_can_be_looked_at() {
    let mock = Mock::start().await;
    mock.state.lock().split("m");
    let client = mock.client().await;
    let stores = client.stores().await.unwrap();
    assert_eq!(stores.iter().map(|store| store.id).collect::<Vec<_>>(), [1, 2, 3]);
    let regions = client.regions().await.unwrap();
    let ends: Vec<Bytes> = regions.iter().map(|region| region.end_key.clone()).collect();
    assert_eq!(ends, ["m", ""]);
    assert_eq!((regions[0].leader, regions[0].stores.clone()), (Some(1), vec![1, 2, 3]));
}

#[tokio::test]
async fn answers_that_would_be_too_large_are_asked_for_in_parts() {
    let mock = Mock::start().await;
    mock.state.lock().split("g");
    let raw = mock.client().await.raw();
    let all: Vec<String> = ('a'..='p').map(String::from).collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    raw.batch_put(all.iter().map(|key| (key.clone(), "v"))).await.unwrap();
    mock.state.lock().pairs_max = Some(3);
    assert_eq!(keys(&raw.scan("", "", 100).await.unwrap()), names);
    assert_eq!(keys(&raw.scan_reverse("", "", 100).await.unwrap()), names.iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(keys(&raw.batch_get(all.clone()).await.unwrap()), names);
    mock.state.lock().pairs_max = Some(0);
    assert!(matches!(raw.scan("", "", 100).await.unwrap_err(), Error::Server(_)), "it ends");
    assert!(matches!(raw.batch_get(["a"]).await.unwrap_err(), Error::Server(_)));
}

/// The node answers what it has begun; what it has not begun is asked of the next leader. Without an outcome that is
/// known in each case, some of these writes would end as undetermined.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_in_flight_survive_a_node_that_ends_its_connections_in_order() {
    for _ in 0..10 {
        let mut mock = Mock::start().await;
        let client = mock.client().await;
        let writers: Vec<_> = (0..32)
            .map(|writer| {
                let raw = client.raw();
                tokio::spawn(async move {
                    for i in 0..50 {
                        raw.put(format!("{writer}/{i}"), "v").await?;
                    }
                    Ok::<_, Error>(())
                })
            })
            .collect();
        while mock.state.lock().count("RawPut") < 400 {
            tokio::task::yield_now().await;
        }
        mock.state.lock().lead(2, 2);
        mock.stop(1).await;
        for writer in writers {
            writer.await.unwrap().unwrap();
        }
        assert_eq!(mock.state.lock().raw.len(), 32 * 50);
        client.timestamp().await.unwrap();
    }
}
