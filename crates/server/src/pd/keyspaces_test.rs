use super::super::PdError;
use super::super::tests::{answering, header};
use super::*;
use kontiki_placement::{KeyspaceList, KeyspaceState};
use kontiki_proto::keyspacepb as wire;

fn keyspace(id: u32, name: &str) -> Keyspace {
    let state = KeyspaceState::Disabled as i32;
    Keyspace { id, name: name.into(), state, created_ms: 5_999, state_changed_ms: 7_000, nonce: 0 }
}

#[tokio::test]
async fn keyspaces_are_answered_with_seconds_and_a_header() {
    let list = KeyspaceList { keyspaces: vec![keyspace(0, "DEFAULT"), keyspace(1, "raft")] };
    let (node, pd) = answering([
        Outcome::Keyspace(keyspace(1, "raft")),
        Outcome::Keyspaces(list),
        Outcome::Keyspace(keyspace(2, "new")),
        Outcome::Keyspace(keyspace(1, "raft")),
    ]);
    let request = wire::LoadKeyspaceRequest { name: "raft".into(), ..Default::default() };
    let answer = pd.load_keyspace(request).await.unwrap();
    assert_eq!(answer.header, header());
    let found = answer.keyspace.unwrap();
    assert_eq!((found.id, found.name.as_str(), found.created_at, found.state_changed_at), (1, "raft", 5, 7));
    assert_eq!(found.state, wire::KeyspaceState::Disabled as i32);

    let request = wire::GetAllKeyspacesRequest { start_id: 0, limit: 2, ..Default::default() };
    let all = pd.get_all_keyspaces(request).await.unwrap().keyspaces;
    assert_eq!(all.iter().map(|found| found.id).collect::<Vec<_>>(), [0, 1]);
    let request = wire::CreateKeyspaceRequest { name: "new".into(), ..Default::default() };
    assert_eq!(pd.create_keyspace(request).await.unwrap().keyspace.unwrap().id, 2);
    let request = wire::UpdateKeyspaceStateRequest { id: 1, state: 1, ..Default::default() };
    assert_eq!(pd.update_keyspace_state(request).await.unwrap().header, header());
    let asked: Vec<_> =
        node.state.lock().placement_requests.drain(..).map(|request| request.command.unwrap()).collect();
    assert_eq!(asked[0], Command::KeyspaceByName(KeyspaceByName { name: "raft".into() }));
    assert_eq!(asked[3], Command::SetKeyspaceState(SetKeyspaceState { id: 1, state: 1 }));
}

/// Clients read the type and the text.
#[tokio::test]
async fn what_is_wrong_with_a_keyspace_is_an_error_in_the_header() {
    let refuse = |code, text: &str| Outcome::Refused(Refusal::new(code, text));
    let (_, pd) = answering([
        refuse(RefusalCode::UnknownKeyspace, "keyspace \"x\" does not exist"),
        refuse(RefusalCode::KeyspaceExists, "keyspace \"x\" exists already"),
        refuse(RefusalCode::Invalid, "no name"),
        refuse(RefusalCode::Busy, "later"),
    ]);
    let answer = pd.load_keyspace(Default::default()).await.unwrap();
    let error = answer.header.unwrap().error.unwrap();
    assert_eq!(
        (error.r#type(), error.message.as_str()),
        (pdpb::ErrorType::EntryNotFound, "keyspace \"x\" does not exist")
    );
    assert_eq!(answer.keyspace, None);
    for kind in [pdpb::ErrorType::DuplicatedEntry, pdpb::ErrorType::InvalidValue] {
        let answer = pd.create_keyspace(Default::default()).await.unwrap();
        assert_eq!(answer.header.unwrap().error.unwrap().r#type(), kind);
    }
    assert_eq!(pd.create_keyspace(Default::default()).await, Err(PdError::Busy("later".into())));
}

/// Placement recognizes by it a call that is sent to it twice.
#[tokio::test]
async fn every_creation_has_a_nonce_of_its_own() {
    let (node, pd) = answering([Outcome::Keyspace(keyspace(1, "a")), Outcome::Keyspace(keyspace(2, "b"))]);
    for _ in 0..2 {
        pd.create_keyspace(Default::default()).await.unwrap();
    }
    let nonce = |request: kontiki_placement::Request| match request.command {
        Some(Command::CreateKeyspace(ask)) => ask.nonce,
        other => panic!("{other:?}"),
    };
    let nonces: Vec<u64> = node.state.lock().placement_requests.drain(..).map(nonce).collect();
    assert!(nonces.len() == 2 && nonces[0] != nonces[1] && !nonces.contains(&0), "{nonces:?}");
}
